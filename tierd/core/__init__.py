"""Decisions. Pure: dataclasses in, dataclasses out; no clock, no I/O, no logging."""
