"""Runs in the guest: moves a process's pages to and fro, once with tierd's mover and once with the C loop,
in turn, and prints how long each took.

    move_through_tierd.py MOVE_LOOP MIB ROUNDS

The engine has looked where the pages are before it plans to move them, and the loop does not look either.
`*_seconds` are sums over both directions of the fastest round, `*missed` the pages that a query did not
find where they should be, over all rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np

from tierd.core.budget import LARGEST_BATCH
from tierd.core.model import ProcessId
from tierd.kernel.mover import Mover
from tierd.kernel.paths import Root

FLOOR = 64 << 20
"""Bytes left free on either node."""
NODES = (1, 0)
"""Where the pages go in turn; they begin on 0."""


def main(program: str, mib: str, rounds: str) -> None:
    holder = subprocess.Popen([program, "hold", mib], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        place = json.loads(holder.stdout.readline())
        print(json.dumps(_measure(program, place, int(rounds))))
    finally:
        holder.kill()


def _measure(program: str, place: dict[str, int], rounds: int) -> dict[str, float]:
    process = ProcessId(place["pid"], _start_time(place["pid"]))
    pages = np.arange(place["pages"], dtype=np.uint64) + np.uint64(place["address"] >> 12)
    words = [str(place[name]) for name in ("pid", "address", "pages")]
    mover = Mover(Root())
    seconds: dict[tuple[str, int], list[float]] = {}
    missed = {"loop": 0, "tierd": 0}

    def where(node: int) -> int:
        return int(_loop(program, "where", *words, str(node))["moved"])

    for node in NODES:  # wherever they were first touched
        _loop(program, "move", *words, str(node), str(LARGEST_BATCH))
    for _ in range(rounds):
        for node in NODES:
            said = _loop(program, "move", *words, str(node), str(LARGEST_BATCH))
            seconds.setdefault(("loop", node), []).append(said["seconds"])
            missed["loop"] += place["pages"] - int(said["moved"])
        for node in NODES:
            begun = time.monotonic()
            mover.promote(process, pages, node, FLOOR, elsewhere=True)
            seconds.setdefault(("tierd", node), []).append(time.monotonic() - begun)
            missed["tierd"] += place["pages"] - where(node)
    return {
        "pages": place["pages"] * len(NODES),
        "loop_seconds": sum(min(seconds["loop", node]) for node in NODES),
        "tierd_seconds": sum(min(seconds["tierd", node]) for node in NODES),
        "missed": missed["tierd"],
        "loop_missed": missed["loop"],
    }


def _loop(program: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _start_time(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[19])


if __name__ == "__main__":
    main(*sys.argv[1:])
