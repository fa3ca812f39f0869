"""The rows of the table on service classes."""
