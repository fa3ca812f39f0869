"""The rows of the engine's table, by what they need: shared runs of a workload, or a scene of their own."""
