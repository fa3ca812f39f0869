"""The rows of the table of provisioning."""
