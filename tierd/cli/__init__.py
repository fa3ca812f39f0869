"""tierctl: what an operator types."""
