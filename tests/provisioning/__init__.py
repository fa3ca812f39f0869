"""Requests carried out on simulated and recorded machines, whose tools lie and die at every point."""
