"""Runs in the guest: a process for each of NAMES, which calls itself so and uses memory on the slow node.

Standard library only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time

NAMES = (
    *(b"a\nFORGED", b"\nFORGED line", b"a\rFORGED", b"\x1b[31mred", b"\x1b]0;title\x07", b"\xff\xfe\xfd"),
    *(b") R 1 1 (", b"(((", b")))", b" ", b"\t", b"a b c", b"100% %s %n", b"$(reboot)", b"`reboot`"),
    *(b"\xe2\x80\xae abc", b"\xc3", b"\xf0\x9f\x92\xa9", b"<3>FORGED", b'{"a": 1}', b"'; --", b"\\n\\x1b"),
    *(
        b"tierd",
        b"\x01\x02\x03",
        b"\x7f",
        b"..",
        b"../../etc",
        b"MESSAGE=FORGED",
        b"-rf",
        b"0123456789abcde",
    ),
)
"""Names as prctl(2) takes them: 15 bytes of anything but zero. Whoever writes them out as they are forges a
line, which begins with FORGED."""
SIZE = 4 << 20


def live(name: bytes) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(15, name)  # PR_SET_NAME, linux/prctl.h
    mask = ctypes.c_ulong(1 << 1)
    libc.syscall(238, 1, ctypes.byref(mask), 64)  # set_mempolicy of x86-64, MPOL_PREFERRED
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, SIZE, mmap.PAGESIZE):
        memory[at] = 1
    libc.syscall(238, 0, None, 0)
    while True:
        for at in range(0, SIZE, mmap.PAGESIZE):
            memory[at] = 2
        time.sleep(0.5)


def main() -> None:
    for name in NAMES:
        if not os.fork():
            live(name)
    print("ready", flush=True)
    time.sleep(10000)


if __name__ == "__main__":
    main()
