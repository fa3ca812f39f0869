"""Others who tier memory, or take away what tierd lives by, while it runs: noticed, named and not fought."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from tests.bench.contenders import DEMOTION
from tests.faults import inject
from tests.faults.case import COMES_UP, MIB, SETTINGS, Case, Scene, Seen
from tests.verify.service_rows import placing
from tests.vm.guest import GuestError
from tests.vm.records import PAGE
from tests.vm.test_settings import BALANCING, RATE_LIMIT

NAMED_WITHIN = 60
"""Seconds until `tierctl status` must say so: at rest tierd looks at settings every half minute."""
BLOCKS = 20
MOVES = 20
"""How often the other mover moves everything, every other second."""
_GENERATIONS = "/sys/kernel/mm/lru_gen/enabled"
_STORM = """
for n in $(seq TIMES); do
  block=$(ls -d /sys/devices/system/node/node1/memory[0-9]* | shuf -n 1)
  timeout 20 sh -c "echo offline > $block/state" 2>/dev/null && gone=$((gone + 1))
  sleep 1
  echo online_movable > $block/state
done 2>/dev/null
echo $((gone))
for block in /sys/devices/system/node/node1/memory[0-9]*; do cat $block/state; done | grep -vcx online
"""


def _named(scene: Scene, before: set[str], words: str) -> float | None:
    """Seconds until `tierctl status` says more than before, in words like these; None: never."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < NAMED_WITHIN:
        if any(re.search(words, line, re.IGNORECASE) for line in scene.said() - before):
            return passed
        time.sleep(2)
    return None


def _taken(path: str, value: str, words: str) -> Callable[[Scene], Seen]:
    """Somebody writes a setting. words: some that name it."""

    def play(scene: Scene) -> Seen:
        before, swapped = scene.said(), scene.counter("pswpout")
        with inject.written(scene.guest, {path: value}):
            after = _named(scene, before, words)
            stays = inject.reads(scene.guest, path, value)
        faults = []
        if after is None:
            faults.append(f"nobody is told that {path} is {value}")
        if not stays:
            faults.append(f"{path} was written again: a fight")
        if scene.counter("pswpout") > swapped:
            faults.append("something was swapped out")
        return Seen(1, faults, f"named after {after:.0f} s" if after is not None else "")

    return play


def _processor(scene: Scene) -> Seen:
    guest, faults, before = scene.guest, [], scene.said()
    scene.comes_up("other", "--property=CPUAffinity=1")
    guest.run("echo 0 > /sys/devices/system/cpu/cpu1/online")
    gone = guest.output("cat /sys/devices/system/cpu/online")
    guest.run("sleep 3; echo 1 > /sys/devices/system/cpu/cpu1/online")
    try:
        text = f"seen again after {scene.comes_up('other', '--property=CPUAffinity=1'):.0f} s"
    except GuestError:
        after = _named(scene, before, "CPU|processor")
        text = "what is used there is not seen, which is named"
        if after is None:
            faults.append("pages used on a processor that was offline for 3 s never come up, untold")
        guest.run("systemctl restart tierd", timeout=180)
    scene.stop("other")
    return Seen(int("1" not in gone), faults, text)


def _blocks(scene: Scene) -> Seen:
    taken, left = map(
        int, scene.guest.output(_STORM.replace("TIMES", str(BLOCKS)), timeout=BLOCKS * 30).split()
    )
    faults = [f"{left} blocks did not come back"] if left else []
    return Seen(taken, faults, f"{taken} of {BLOCKS} blocks taken offline and given back")


def _mover(scene: Scene) -> Seen:
    """migratepages(8), as numad uses it, against tierd."""
    guest, theirs = scene.guest, 0
    pid = guest.output("systemctl show -P MainPID load")
    before = scene.counter("pgmigrate_success")
    for _ in range(MOVES):
        had = placing.in_dram(guest)
        guest.run(["migratepages", pid, "0", "1"], timeout=60)
        theirs += max(0, had - placing.in_dram(guest))
        time.sleep(2)
    ours = (scene.counter("pgmigrate_success") - before) * PAGE - theirs
    most = 2 * placing.HOT_MIB * MIB
    faults = [f"a war: {ours >> 20} MiB came up again"] if ours > most else []
    return Seen(theirs // COMES_UP, faults, f"{theirs >> 20} MiB taken down, {ours >> 20} MiB came up")


CASES = (
    Case(
        "balancing-taken", "D2", "numa_balancing set to 0 by somebody else is named and left alone",
        _taken(BALANCING, "0", "balancing"),
    ),
    Case(
        "rate-limit-raised", "D2", "the kernel's own promotion switched on by its rate limit is named",
        _taken(RATE_LIMIT, "65536", "rate.?limit"),
    ),
    Case(
        "generations-off", "D2", "lru_gen switched off is named",
        _taken(_GENERATIONS, "0", "lru_gen|generation"),
    ),
    Case(
        "demotion-off", "D2", "demotion switched off is named and left alone",
        _taken(DEMOTION, "false", "demotion"),
    ),
    *(
        Case(
            f"damon-{name}".replace("_", "-"), "D2",
            f"DAMON's module {name} switched on by somebody is named and left alone",
            _taken(f"/sys/module/damon_{name}/parameters/enabled", "Y", f"damon.{name}"),
        )
        for name in ("reclaim", "lru_sort")
    ),
    Case(
        "cpu-off-on", "B11",
        "what is used on a processor that was offline is seen again, or it is told that it is not",
        _processor,
    ),
    Case(
        "blocks-by-others", "C13", f"{BLOCKS} random memory blocks taken offline and given back by others",
        _blocks,
    ),
    Case(
        "another-mover", "D2", "somebody moves the load down every other second: no war", _mover,
    ),
    SETTINGS,
)  # fmt: skip
