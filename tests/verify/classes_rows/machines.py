"""Two virtual machines as libvirt makes them, each of a class: processes of QEMU's name, with one piece of
anonymous memory, in scopes of machine.slice whose names systemd has escaped."""

from __future__ import annotations

import json
import shlex

from tests.verify.table import Figure, Row, Stage
from tests.vm import scenario
from tests.vm.guest import Guest

MIB = 1 << 20
MACHINES = {"gold": 1, "bronze": 2}
"""Their numbers, as `virsh list` has them."""
MEMORY_MIB, HOT_MIB = 300, 60
WITHIN = 90
SAMPLES = 30
QEMU = "/usr/local/bin/qemu-system-x86_64"
_POLICY = r"""classes:
  - {name: gold, match: [{cgroup: "/machine.slice/machine-qemu\\x2d*\\x2dgold.scope*"}], dram: guaranteed}
  - {name: bronze, match: [{command: "qemu-system-*"}], dram: {max: 10%}}
"""


def scope(name: str) -> str:
    """As systemd-machined calls it: ``machine-qemu\\x2d1\\x2dgold.scope``."""
    return rf"machine-qemu\x2d{MACHINES[name]}\x2d{name}.scope"


def machines(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        program = scenario.put_program(guest, "workload")
        guest.run(f"cp {program} {QEMU}")
        guest.write(scenario.POLICY, scenario.policy(region, units=["machine.slice"]) + _POLICY)
        try:
            for name in ("bronze", "gold"):
                _start(guest, name)
            before = {name: _share(guest, name) for name in MACHINES}
            scenario.start_tierd(guest)
            guest.run(f"sleep {WITHIN}", timeout=WITHIN + 60)
            seen = []
            for _ in range(SAMPLES):
                seen.append({name: _share(guest, name) for name in MACHINES})
                guest.run("sleep 1")
            told = {name: _told(guest, name) for name in MACHINES}
            nodes = guest.output(["systemctl", "show", "-P", "AllowedMemoryNodes", scope("gold")])
        finally:
            scenario.stop_tierd(guest)
            guest.run("systemctl stop vm-gold vm-bronze; systemctl reset-failed", check=False)
        gold, bronze = min(one["gold"] for one in seen), max(one["bronze"] for one in seen)
        text = (
            f"gold {before['gold']:.0%} in DRAM before, {gold:.2%} at least, may use nodes {nodes or 'all'};"
            f" bronze {before['bronze']:.0%} before, {bronze:.1%} at most;"
            f" told as {told['gold']} and {told['bronze']}"
        )
        right = told == {"gold": "gold", "bronze": "bronze"} and nodes == "0"
        holds = right and gold == 1 and bronze <= 0.12 and before["bronze"] > 0.5
        return Figure(holds, text, {"kernel": kernel, "gold": gold, "bronze": bronze})

    return Row(
        f"machines-{kernel}",
        f"virtual machines (stand-ins), gold by its scope and bronze by QEMU's name, Linux {kernel}",
        "gold all in DRAM, bronze at most 12 %",
        measure,
    )


def _start(guest: Guest, name: str) -> None:
    arguments = ["--report", "5", "--cluster", "2048", "--size", str(MEMORY_MIB), "--hot", str(HOT_MIB)]
    inner = [
        "systemd-run",
        "--quiet",
        "--scope",
        f"--unit={scope(name)}",
        "--slice=machine.slice",
        QEMU,
        *arguments,
    ]
    output = f"/run/vm-{name}.json"
    guest.run(
        f"rm -f {output}; systemd-run --quiet --expand-environment=no --unit=vm-{name}"
        f" --property=StandardOutput=file:{output} {shlex.join(inner)}"
    )
    guest.wait_for(f"[ -s {output} ]", timeout=300, interval=1)


def _share(guest: Guest, name: str) -> float:
    path = f"/sys/fs/cgroup/machine.slice/{scope(name)}/memory.numa_stat"
    words = guest.output(["grep", "^anon ", path]).split()
    held = [int(word.partition("=")[2]) for word in words[1:]]
    return held[0] / max(1, sum(held))


def _told(guest: Guest, name: str) -> str:
    """The class that tierd says the machine has."""
    pids = guest.output(["cat", f"/sys/fs/cgroup/machine.slice/{scope(name)}/cgroup.procs"]).split()
    return str(json.loads(guest.output(f"tierctl explain {pids[0]} --json"))["class"])
