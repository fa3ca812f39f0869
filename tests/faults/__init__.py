"""The fault matrix: what goes wrong around tierd, and what may not come of it."""
