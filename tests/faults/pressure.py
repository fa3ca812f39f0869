"""Memory runs out, in DRAM, on the slow tier or everywhere, and what tierd does then."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.faults import inject
from tests.faults.case import MIB, SETTINGS, Case, Scene, Seen
from tests.verify.engine_rows.endurance import BATCH_BYTES, floor_bytes
from tests.verify.service_rows import placing
from tests.vm import scenario
from tests.vm.guest import Guest

STORMS = 3
SLOW_FREE_MIB = 300
"""Left on the slow node, which is above the floor of 32 MiB and below its raised watermark."""
SCALE = "300"
"""vm.watermark_scale_factor: the high watermark of 4 GiB is then about 240 MiB."""
WATCHED_SECONDS = 25
SWAPPED_MORE = 2000
"""Pages that the kernel may swap out more with tierd than without, by chance."""
RAISED = "1000"
"""The same for DRAM of 1.25 GiB: a floor of half a GiB."""
LIMIT = 40.0
"""engine.pressure_limit as it comes: `some avg10` above which nothing is moved."""
SPEED_MIB, RELOADS = 2, 20
_FREE_KIB = "awk '/MemFree/ {{print $4}}' /sys/devices/system/node/node{node}/meminfo"
_OWN_PAGES = (
    "for pid in $(cat /sys/fs/cgroup/system.slice/tierd.service/cgroup.procs); do"
    " grep -o 'N1=[0-9]*' /proc/$pid/numa_maps; done | cut -d= -f2 | awk '{s += $1} END {print s + 0}'"
)


def _storm(scene: Scene) -> Seen:
    """Somebody takes all memory there is, and is killed for it."""
    guest = scene.guest
    program = scenario.put_program(guest, "allocator")
    pid, own = scene.server.main_pid(), int(guest.output(_OWN_PAGES))
    killed = 0
    with inject.written(guest, {"/proc/sys/vm/overcommit_memory": "1"}):
        for _ in range(STORMS):
            guest.run(
                f"systemd-run --quiet --wait --unit=allocator {program} --size 9000 --rate 4000"
                " --duration 60",
                check=False,
                timeout=300,
            )
            killed += guest.output("systemctl show -P Result allocator") == "oom-kill"
            guest.run("systemctl reset-failed allocator", check=False)
    faults = []
    if scene.server.main_pid() != pid:
        faults.append("the daemon did not live through it")
    if int(guest.output(_OWN_PAGES)) > own:
        faults.append("pages of the daemon are on the slow node")
    return Seen(killed, faults, f"{STORMS} times all memory taken")


def _swapped_out(scene: Scene, seconds: int) -> int:
    before = scene.counter("pswpout")
    scene.guest.run(f"sleep {seconds}", timeout=seconds + 60)
    return scene.counter("pswpout") - before


def _full_slow_node(scene: Scene) -> Seen:
    """DRAM wants room, and the slow node has none to give; with swap, which is where pages would go."""
    guest = scene.guest
    with (
        inject.swap(guest),
        inject.written(guest, {"/proc/sys/vm/watermark_scale_factor": SCALE}),
        inject.little_room(guest, 1, SLOW_FREE_MIB),
        inject.little_room(guest, 0, 200),
    ):
        guest.run("tierctl pause 300s", timeout=60)
        alone = _swapped_out(scene, WATCHED_SECONDS)
        guest.run("tierctl resume", timeout=60)
        scene.newcomer()
        together = _swapped_out(scene, WATCHED_SECONDS)
        free = int(guest.output(_FREE_KIB.format(node=1))) * 1024
        high = (floor_bytes(guest.output("cat /proc/zoneinfo"), 1) - (32 << 20)) // 2
    faults = []
    if together > alone + SWAPPED_MORE:
        faults.append(f"{together} pages swapped out beside tierd, {alone} without")
    if free < high - BATCH_BYTES:
        faults.append(f"{free >> 20} MiB free on the slow node, high watermark {high >> 20} MiB")
    return Seen(int(high > 64 * MIB), faults, f"{together} pages swapped out, {alone} with tierd paused")


def _swapped(scene: Scene) -> Seen:
    guest = scene.guest
    group = "/sys/fs/cgroup/system.slice/load.service"
    with inject.swap(guest):
        # down a tier first, then out: the kernel goes on until it has had so much
        guest.run(f"echo 400M > {group}/memory.reclaim", check=False, timeout=120)
        out = int(guest.output(["cat", f"{group}/memory.swap.current"]))
        before = placing.in_dram(guest)
        guest.run("sleep 30", timeout=90)
        came = placing.in_dram(guest) - before
    faults = [] if came >= placing.PROMOTED else [f"only {came >> 20} MiB came back to DRAM in 30 s"]
    return Seen(out // MIB, faults, f"{out >> 20} MiB swapped out, {came >> 20} MiB came back to DRAM")


@dataclass(frozen=True)
class _Second:
    """free, came: bytes of DRAM, and of a newcomer in it. pressure: `some avg10`."""

    free: int
    came: int
    pressure: float


def _seconds(guest: Guest, seconds: int) -> list[_Second]:
    """What there was each second, asked for by one process."""
    script = (
        f"for n in $(seq {seconds}); do echo $({_FREE_KIB.format(node=0)})"
        f" $(sed -n 's/^anon N0=\\([0-9]*\\).*/\\1/p' {placing.account('probe')})"
        " $(sed -n 's/^some avg10=\\([0-9.]*\\).*/\\1/p' /proc/pressure/memory); sleep 1; done"
    )
    lines = [line.split() for line in guest.output(script, timeout=4 * seconds + 60).splitlines()]
    return [_Second(int(free) * 1024, int(came), float(pressure)) for free, came, pressure in lines]


def _raised_watermarks(scene: Scene) -> Seen:
    guest = scene.guest
    with (
        inject.little_room(guest, 0, 350),
        inject.written(guest, {"/proc/sys/vm/watermark_scale_factor": RAISED}),
    ):
        floor = floor_bytes(guest.output("cat /proc/zoneinfo"))
        guest.run("sleep 32", timeout=90)  # at rest tierd reads watermarks every half minute
        scene.newcomer()
        seen = _seconds(guest, WATCHED_SECONDS)
    low = [
        (first, last)
        for first, last in zip(seen, seen[1:], strict=False)
        if max(first.free, last.free) < floor - BATCH_BYTES
    ]
    came = sum(max(0, last.came - first.came) for first, last in low)
    faults = [f"{came >> 20} MiB came up while DRAM was below its floor"] if came > BATCH_BYTES else []
    least = min(second.free for second in seen)
    return Seen(len(low), faults, f"floor {floor >> 20} MiB, least free {least >> 20} MiB")


def _stalls(scene: Scene) -> Seen:
    """Somebody waits for memory most of the time, at a limit of its own."""
    guest = scene.guest
    program = scenario.put_program(guest, "allocator")
    with inject.swap(guest):
        guest.run(
            "systemd-run --quiet --unit=allocator --property=MemoryHigh=30M"
            f" {program} --size 400 --rate 2000 --duration 600"
        )
        try:
            pressed = f"awk -F'[= ]' '/^some/ {{exit !($3 > {LIMIT + 10:g})}}' /proc/pressure/memory"
            guest.wait_for(pressed, timeout=90, interval=1)
            guest.run("sleep 3")
            scene.newcomer()
            seen = _seconds(guest, WATCHED_SECONDS)
        finally:
            scene.stop("allocator")
    pairs = list(zip(seen, seen[1:], strict=False))
    high = [(first, last) for first, last in pairs if min(first.pressure, last.pressure) > LIMIT]
    came = sum(max(0, last.came - first.came) for first, last in high)
    faults = [f"{came >> 20} MiB came up under pressure"] if came > BATCH_BYTES else []
    most = max(second.pressure for second in seen)
    return Seen(len(high), faults, f"some avg10 up to {most:.0f}")


def _reloads(scene: Scene) -> Seen:
    slow = scene.policy(engine=f"bandwidth: {SPEED_MIB}MiB/s")
    guest = scene.guest
    with inject.policy(scene, slow):
        before, began = scene.newcomer(), time.monotonic()
        # a signal alone, which takes no time to speak of
        guest.run(
            f'for n in $(seq {RELOADS}); do echo "# $n" >> {scenario.POLICY};'
            " systemctl kill --kill-whom=main --signal=HUP tierd; sleep 0.5; done",
            timeout=120,
        )
        adopted = guest.output("busctl get-property org.tierd1 /org/tierd1 org.tierd1.Manager ConfigState")
        came, took = scene.gained(before), time.monotonic() - began
    # a burst of some seconds' worth is its right once
    most = int(SPEED_MIB * MIB * (took + 10))
    faults = [f"{came >> 20} MiB in {took:.0f} s at {SPEED_MIB} MiB/s"] if came > most else []
    return Seen(RELOADS if "current" in adopted else 0, faults, f"{came / MIB:.1f} MiB in {took:.0f} s")


CASES = (
    Case("oom-storm", "D7", f"all memory taken by somebody {STORMS} times: the daemon lives", _storm),
    Case("slow-node-full", "D6", "a slow node at its watermark: nothing is swapped out for DRAM's sake",
         _full_slow_node),
    Case("swapped", "D9", "a load that is swapped out is placed again when it is back", _swapped),
    Case("watermarks-raised", "D1", "a floor that is raised is kept from then on", _raised_watermarks),
    Case("stalls", "D1", "nothing is moved while others wait for memory", _stalls),
    Case("reloads", "F4", f"{RELOADS} reloads are no more than the bandwidth of one", _reloads),
    SETTINGS,
)  # fmt: skip
