"""A workload whose memory checks itself: run in the guest as `python3 checksummed.py MIB STATUS`.

Fills MIB mebibytes, on the slow node as far as there is room, then for ever rewrites chunks of 1 MiB picked
at random, each filled with a number that it remembers, after looking whether the chunk still holds the
number of before. STATUS is rewritten about once a second: rounds, bad chunks, `running` or `ended`. On
SIGTERM everything is checked once more.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import time

import numpy as np

MPOL_PREFERRED = 1
SET_MEMPOLICY = 238  # x86-64
CHUNK = 1 << 20


def main() -> None:
    mib, status = int(sys.argv[1]), sys.argv[2]
    mask = ctypes.c_ulong(1 << 1)
    ctypes.CDLL(None).syscall(SET_MEMPOLICY, MPOL_PREFERRED, ctypes.byref(mask), 64)
    memory = np.empty((mib, CHUNK // 8), dtype=np.uint64)
    numbers = [random.getrandbits(63) for _ in range(mib)]
    for chunk, number in enumerate(numbers):
        memory[chunk] = number
    ctypes.CDLL(None).syscall(SET_MEMPOLICY, 0, None, 0)
    stop = False

    def end(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, end)
    rounds = bad = 0
    told = 0.0
    while not stop:
        chunk = random.randrange(mib)
        bad += bool((memory[chunk] != numbers[chunk]).any())
        numbers[chunk] = random.getrandbits(63)
        memory[chunk] = numbers[chunk]
        rounds += 1
        if time.monotonic() - told > 1:
            tell(status, rounds, bad, "running")
            told = time.monotonic()
    bad += sum(bool((memory[chunk] != numbers[chunk]).any()) for chunk in range(mib))
    tell(status, rounds, bad, "ended")


def tell(path: str, rounds: int, bad: int, state: str) -> None:
    with open(f"{path}.new", "w") as file:
        file.write(f"{rounds} {bad} {state}\n")
    os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main()
