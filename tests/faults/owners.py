"""Memory whose owner has said where it is to lie or what may be done to it, as hot as any other."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.faults import inject
from tests.faults.case import SETTINGS, Case, Scene, Seen
from tests.vm import scenario
from tests.vm.guest import Guest, GuestError

WISHES = {
    "bind": "C6",
    "preferred": "C6",
    "interleave": "C6",
    "locked": "C5",
    "hugetlb": "C4",
    "userfault": "C11",
    "secret": "C11",
    "shared": "C8",
    "merged": "C8",
}
"""What owner.c makes, with the row of the catalogue; besides them "plain" and "pinned", whose pages may move
as far as nobody holds them."""
LINES = len(WISHES) + 2
PLAIN_SHARE = 0.8
"""Of the memory without a wish, which must move: else tierd did nothing."""
WATCHED_SECONDS = 40
MOST_TRIES = 6
"""Calls of move_pages for pages that are pinned, meanwhile."""
_OUTPUT = "/run/owner.txt"
_POOL = "/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"
_KSM = "/sys/kernel/mm/ksm/run"


@dataclass(frozen=True)
class Owned:
    """Memory of one process. pages: by node, from numa_maps, where a page of hugetlb counts one."""

    pid: int
    pages: Mapping[str, int]


@contextlib.contextmanager
def _owners(guest: Guest, node: int) -> Iterator[None]:
    """The program at work, with huge pages for the one that wants them and KSM on."""
    program = scenario.put_program(guest, "owner")
    with inject.written(guest, {_POOL.format(node=node): "8", _KSM: "1"}):
        guest.run(
            f"rm -f {_OUTPUT}; systemd-run --quiet --unit=other --property=StandardOutput=file:{_OUTPUT}"
            f" --property=CPUWeight=10 {program} --node {node}"
        )
        try:
            guest.wait_for(f"[ $(wc -l < {_OUTPUT}) -ge {LINES} ]", timeout=120)
            yield
        finally:
            guest.run("systemctl stop other; systemctl reset-failed other", check=False)


def _look(guest: Guest) -> dict[str, Owned]:
    """By the name of the wish, without those that the kernel does not have."""
    found = {}
    for line in guest.output(f"cat {_OUTPUT}").splitlines():
        name, *place = line.split()
        if len(place) == 2:
            words = guest.output(f"grep '^{place[1]} ' /proc/{place[0]}/numa_maps || true").split()
            nodes = (word.partition("=")[::2] for word in words if re.match(r"N\d+=", word))
            found[name] = Owned(int(place[0]), {node: int(count) for node, count in nodes})
    return found


def _wait_moved(scene: Scene, away: int, pid: int, address: str) -> None:
    """Until the memory without a wish has left this node."""
    scene.guest.wait_for(
        f"grep '^{address} ' /proc/{pid}/numa_maps | sed 's/.* N{away}=//;t;s/.*/0/' | cut -d' ' -f1"
        f" | awk '{{exit $1 > {(1 - PLAIN_SHARE) * 2048:.0f}}}'",
        timeout=180,
        interval=2,
    )


def _placed(scene: Scene, node: int) -> Seen:
    """With all of it on this node, what tierd does to move it to the other."""
    guest, away = scene.guest, f"N{node}"
    with _owners(guest, node):
        guest.run("sleep 2")  # those that are merged are merged by now
        before = _look(guest)
        _, pid, address = guest.output(f"grep '^plain ' {_OUTPUT}").split()
        faults = []
        try:
            _wait_moved(scene, node, int(pid), address)
        except GuestError:
            faults.append("memory without a wish is not moved either")
        with inject.strace(guest, "move_pages:delay_enter=1") as traced:
            guest.run(f"sleep {WATCHED_SECONDS}", timeout=WATCHED_SECONDS + 60)
            log = traced.log()
        after = _look(guest)
        pools = [guest.output(["cat", _POOL.format(node=number)]) for number in (node, 1 - node)]
    asked = [name for name in WISHES if name in before]
    for name in asked:
        gone = before[name].pages.get(away, 0) - after[name].pages.get(away, 0)
        if gone > 0:
            faults.append(f"{WISHES[name]}: {gone} pages of {name} were moved")
    if pools != ["8", "0"]:
        faults.append(f"C4: huge pages in the pools are {' and '.join(pools)}, not 8 and 0")
    if "MPOL_MF_MOVE_ALL" in log:
        faults.append("C8: move_pages was called with MPOL_MF_MOVE_ALL")
    tries = sum(f"move_pages({before['pinned'].pid}, " in line and "MPOL_MF_MOVE" in line
                for line in log.splitlines()) if "pinned" in before else 0  # fmt: skip
    if tries > MOST_TRIES:
        faults.append(f"C9: {tries} calls for pinned pages in {WATCHED_SECONDS} s")
    text = f"{', '.join(asked)}; pinned pages tried {tries} times"
    return Seen(len(asked), faults, text)


def _hot_on_the_slow_tier(scene: Scene) -> Seen:
    return _placed(scene, 1)


def _too_much_in_dram(scene: Scene) -> Seen:
    crowd = "classes:\n  - {name: crowd, match: [{unit: other.service}], dram: {max: 10%}}\n"
    with inject.policy(scene, scene.policy(more=crowd)):
        return _placed(scene, 0)


CASES = (
    Case(
        "hot",
        "C4 to C11",
        "hot memory on the slow tier stays where its owner wants it, while other comes up",
        _hot_on_the_slow_tier,
    ),
    Case(
        "pushed",
        "C4 to C11",
        "memory of a class that has too much DRAM stays where its owner wants it, while other goes down",
        _too_much_in_dram,
    ),
    SETTINGS,
)
