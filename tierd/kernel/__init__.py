"""The one door to /proc, /sys, system calls, perf, ndctl and daxctl. Every reader takes its root."""
