"""The benchmark: tierd and what else there is, on the same server with the same workloads."""
