"""A load whose pages begin on one node: touched there first, then a hot part of them again and again.

usage: expander_load.py NODE MIB HOT_MIB. Writes "ready" to stdout once everything is touched.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import time

node, size, hot = int(sys.argv[1]), int(sys.argv[2]) << 20, int(sys.argv[3]) << 20
libc = ctypes.CDLL(None, use_errno=True)
SET_MEMPOLICY, PREFERRED, DEFAULT = 238, 1, 0  # x86-64; linux/mempolicy.h
mask = ctypes.c_ulong(1 << node)
if libc.syscall(SET_MEMPOLICY, PREFERRED, ctypes.byref(mask), 64):
    sys.exit(f"set_mempolicy: errno {ctypes.get_errno()}")
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, size, mmap.PAGESIZE):
    memory[page] = 1
# from here on the pages are nobody's in particular, as those of most programs
if libc.syscall(SET_MEMPOLICY, DEFAULT, None, 0):
    sys.exit(f"set_mempolicy: errno {ctypes.get_errno()}")
print("ready", flush=True)
while True:
    for page in range(0, hot, mmap.PAGESIZE):
        memory[page] = 2
    time.sleep(0.05)  # the rest of the guest has two CPUs alone, and emulated ones
