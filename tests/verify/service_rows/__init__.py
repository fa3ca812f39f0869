"""The rows of the table of the service."""
