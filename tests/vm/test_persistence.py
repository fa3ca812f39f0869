"""After a reboot: the memory is back within seconds, who is ordered after it finds it, and a device that is
missing beside it holds up nobody else; what was drained stays so."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.vm.guest import Guest
from tests.vm.test_provision import CLEAN, MIB, POLICY_FILE, Server

pytestmark = [pytest.mark.one_kernel, pytest.mark.slow]

WAITER = """\
[Unit]
{unit}
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ls -d /sys/devices/system/node/node1/memory[0-9]* | wc -l > /run/%N'
[Install]
WantedBy=multi-user.target
"""
WAITERS = {
    "any": "After=tierd-memory.target\nDefaultDependencies=no",
    "strict": "Requires=tierd-convert@test.service\nAfter=tierd-convert@test.service",
    "hopeless": "Requires=tierd-convert@gone.service\nAfter=tierd-convert@gone.service\n"
    "DefaultDependencies=no",
}


@pytest.fixture
def server(own_guest: Guest) -> Server:
    own_guest.run(CLEAN, timeout=180, check=False)
    return Server(own_guest, own_guest.region())


def at(guest: Guest, unit: str, moment: str) -> float:
    """Seconds since the boot."""
    return int(guest.output(f"systemctl show -P {moment}TimestampMonotonic {unit}")) / 1e6


def test_the_memory_is_back_and_a_missing_device_holds_up_nobody(server: Server) -> None:
    guest = server.guest
    requests = (f"name: test, region: {{iset_id: '{server.region.iset_id:#x}'}}, size: 1GiB",)
    requests += ("name: gone, region: {iset_id: '0x77'}, size: all",)
    lines = "".join(f"  - {{{request}, mode: apply}}\n" for request in requests)
    guest.write(POLICY_FILE, f"version: 1\nprovision:\n{lines}")
    for name, unit in WAITERS.items():
        guest.write(f"/etc/systemd/system/waiter-{name}.service", WAITER.format(unit=unit))
    guest.run("systemctl daemon-reload; systemctl restart tierd-convert@test", timeout=180)
    server.is_memory()
    shape = guest.output("ndctl list -RND; daxctl list")
    units = " ".join(f"waiter-{name}" for name in WAITERS)
    guest.run(f"systemctl enable tierd tierd-convert@test tierd-convert@gone {units}", timeout=60)

    guest.reboot()
    guest.wait_for("systemctl is-active tierd-convert@test", timeout=120)
    guest.wait_for("systemctl is-active multi-user.target", timeout=60)
    waiting = guest.output("systemctl show -P ActiveState tierd-convert@gone")
    guest.wait_for("systemctl is-active waiter-strict", timeout=60)
    assert waiting == "activating", "the boot is over while the missing device is waited for"
    server.is_memory()
    assert guest.output("ndctl list -RND; daxctl list") == shape
    took = at(guest, "tierd-convert@test", "ActiveEnter") - at(guest, "tierd-convert@test", "InactiveExit")
    print(f"back {took:.1f} s after its unit began")
    assert guest.output("cat /run/waiter-strict") == "8"

    guest.wait_for("systemctl is-failed tierd-convert@gone", timeout=120)
    guest.wait_for("systemctl is-active waiter-any tierd", timeout=180)
    given_up = at(guest, "tierd-convert@gone", "InactiveEnter")
    print(
        f"given up {given_up - at(guest, 'tierd-convert@gone', 'InactiveExit'):.1f} s after its unit began"
    )
    assert at(guest, "multi-user.target", "ActiveEnter") < given_up
    assert at(guest, "waiter-strict", "ActiveEnter") < given_up
    # who is ordered after all of it waits for the deadline, and no longer
    assert 0 <= at(guest, "waiter-any", "InactiveExit") - given_up < 5
    assert guest.output("cat /run/waiter-any") == "8"
    # who cannot do without is not started
    assert guest.output("systemctl show -P ActiveState waiter-hopeless") == "inactive"
    assert "no region has iset_id 0x77; there is" in server.said("gone")
    guest.run(f"systemctl disable tierd tierd-convert@test tierd-convert@gone {units}")


WORKLOAD = "/run/checksummed"


def tiers(guest: Guest) -> list[tuple[str, int]]:
    """Kind and bytes of each tier, as the daemon sees them."""
    found: list[dict[str, Any]] = json.loads(guest.output("tierctl status --json"))["tiers"]
    return [(tier["kind"], tier["total_bytes"]) for tier in found]


def wait_for_tiers(guest: Guest, kinds: str) -> None:
    check = "import json, sys; print(*[t['kind'] for t in json.load(sys.stdin)['tiers']])"
    guest.wait_for(f'[ "$(tierctl status --json | python3 -c "{check}")" = "{kinds}" ]', timeout=180)


def test_blocks_and_a_whole_device_go_under_the_daemon_and_stay_away(server: Server) -> None:
    """Placing all the time, with a workload that checks itself on the memory that goes."""
    guest = server.guest
    guest.write(
        POLICY_FILE,
        "version: 1\nprocesses: {include: [{unit: load.service}]}\nengine: {mode: place}\nprovision:\n"
        f"  - {{name: test, region: {{iset_id: '{server.region.iset_id:#x}'}}, size: 1GiB, mode: apply}}\n",
    )
    assert server.convert() == 0
    guest.run("systemctl enable tierd tierd-convert@test; systemctl restart tierd", timeout=180)
    guest.put(Path(__file__).with_name("checksummed.py"), f"{WORKLOAD}.py")
    guest.run(f"systemd-run --unit=load python3 {WORKLOAD}.py 300 {WORKLOAD}.status")
    guest.wait_for(f"[ -s {WORKLOAD}.status ]", timeout=120)
    wait_for_tiers(guest, "dram slow")
    daemon = guest.output("systemctl show -P MainPID -P NRestarts tierd")
    lines = "journalctl -b -o cat -u tierd"

    # One block: named in one line, followed, and not fought.
    path = guest.output("ls -d /sys/devices/system/node/node1/memory[0-9]* | tail -1")
    taken = path.rpartition("memory")[2]
    guest.run(f"echo offline > {path}/state", timeout=120)
    guest.wait_for(f"{lines} | grep -q 'memory blocks {taken} went offline'")
    time.sleep(12)
    assert guest.output(f"{lines} | grep -c 'memory blocks {taken} went offline'") == "1"
    assert server.convert() == 0
    assert guest.output(f"cat {path}/state") == "offline"
    assert tiers(guest)[1] == ("slow", 7 * 128 * MIB)
    guest.run(f"echo online_movable > {path}/state")
    guest.wait_for(f"{lines} | grep -q 'memory blocks {taken} went online'")
    server.is_memory()

    # A changed request is carried out under a service that requires it.
    needs = "Requires=tierd-convert@test.service -p After=tierd-convert@test.service"
    guest.run(f"systemd-run --unit=needs -p {needs} sleep infinity")
    needing = guest.output("systemctl show -P MainPID needs")
    guest.run("systemctl reload tierd-convert@test", timeout=180)
    guest.run("systemctl reload tierd", timeout=180)
    guest.wait_for("systemctl is-active --quiet tierd-convert@test", timeout=180)
    assert guest.output("systemctl show -P MainPID needs") == needing != "0"
    server.is_memory()

    # All of it: the node vanishes under the daemon and under the workload.
    rounds = int(guest.output(f"cut -d ' ' -f 1 {WORKLOAD}.status"))
    done = guest.run("tierctl drain nmem0 --yes", timeout=300)
    print(done.stdout)
    # tierctl looks twice a second, and may not see each block; the journal has them all
    assert "of 8 blocks of dax0.0 are empty and offline" in done.stdout
    written = guest.output("journalctl -b -o cat -u 'tierd-drain@*'")
    assert "8 of 8 blocks of dax0.0 are empty and offline" in written
    assert f"{server.region.name} (nmem0) is drained: safe to remove" in done.stdout
    assert server.blocks() == []
    wait_for_tiers(guest, "dram")
    time.sleep(6)
    assert guest.output("systemctl show -P MainPID -P NRestarts tierd") == daemon
    assert guest.output(f"{lines} | grep -Ec 'internal error|engine failed' || true") == "0"
    after, bad, state = guest.output(f"cat {WORKLOAD}.status").split()
    assert (bad, state) == ("0", "running") and int(after) > rounds
    guest.run("systemctl stop load", timeout=120)
    assert guest.output(f"cat {WORKLOAD}.status").split()[1:] == ["0", "ended"]

    # It stays so over a reload and a reboot, and no unit has failed.
    guest.run("systemctl reload tierd", timeout=180)
    namespaces = guest.output("ndctl list -N | grep -v chardev")
    guest.reboot()
    guest.wait_for("systemctl is-active tierd-convert@test", timeout=120)
    assert f"{server.region.name} is drained, and stays so" in server.said()
    assert server.blocks() == []
    assert guest.output("systemctl list-units --failed --no-legend --plain 'tierd*'") == ""
    assert "safe to remove" in guest.output("tierctl drain")
    guest.wait_for("systemctl is-active tierd", timeout=120)
    guest.wait_for(f"tierctl status | grep -q '{server.region.name} is drained'", timeout=30)

    # Until told otherwise: the same namespace is memory again.
    assert "test: done" in guest.output("tierctl drain --undo nmem0", timeout=180)
    server.is_memory()
    assert guest.output("ndctl list -N | grep -v chardev") == namespaces
    wait_for_tiers(guest, "dram slow")
    guest.run("systemctl disable tierd tierd-convert@test")
