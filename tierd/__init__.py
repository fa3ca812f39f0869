"""tierd: persistent memory behind DRAM, and every page in the tier it deserves."""

__version__ = "0.1.0"
