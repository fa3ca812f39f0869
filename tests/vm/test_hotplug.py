"""Modules that come while the machine runs: a server that starts without any, and two that are plugged in
over QEMU's control socket, which cannot take them out again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.guest import Guest
from tests.vm.qmp import LABEL_SIZE, Qmp
from tierd.service.hotplug import APPEARED

pytestmark = [pytest.mark.one_kernel, pytest.mark.slow]

MIB = 1 << 20
SERIAL = 0x123456
"""QEMU's serial number of the NVDIMM in slot 0; those in the next slots follow (hw/acpi/nvdimm.c)."""
UNIT = "tierd-convert@later"

WAITER = """\
[Unit]
After=tierd-memory.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
"""


def iset_of_slot(slot: int) -> int:
    """The interleave set of a single NVDIMM in a slot, which nobody can read before it is plugged in.

    A Fletcher checksum of an offset of 0 and the serial number (drivers/acpi/nfit/core.c, nfit_set_info;
    nd_fletcher64 in drivers/nvdimm/core.c).
    """
    return (2 * (SERIAL + slot)) << 32 | (SERIAL + slot)


class Plugged:
    """The server, and what a test asks of it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.directory = guest.directory

    def backing(self, slot: int, region: int) -> Path:
        """An empty module of `region` bytes, which takes no room on this machine."""
        path = self.directory / f"module{slot}"
        with path.open("xb") as file:
            file.truncate(region + LABEL_SIZE)
        return path

    def plug(self, slot: int, backing: Path) -> None:
        with Qmp(self.guest.qmp, timeout=60) as control:
            control.plug_nvdimm(slot, backing, node=1)

    def ask(self, mode: str) -> None:
        """A policy with one request, for the region of slot 1."""
        request = f"{{name: later, region: {{iset_id: '{iset_of_slot(1):#x}'}}, size: all, mode: apply}}"
        self.guest.write(
            "/etc/tierd/tierd.yaml",
            f"version: 1\nprocesses: {{include: [{{unit: nothing.service}}]}}\nengine: {{mode: {mode}}}\n"
            f"provision:\n  - {request}\n",
        )

    def state(self, unit: str) -> str:
        return self.guest.output(f"systemctl show -P ActiveState {unit}")

    def appeared(self, region: str) -> str:
        """The one line about a region, of this boot."""
        look = f"journalctl -b -o cat -u tierd-hotplug@{region} MESSAGE_ID={APPEARED.message_id}"
        self.guest.wait_for(f'[ -n "$({look})" ]', timeout=120)
        (line,) = self.guest.output(look).splitlines()
        return line

    def online(self) -> list[int]:
        """Numbers of the blocks of node 1 that are online, all of them movable."""
        found = self.guest.output(
            "for block in /sys/devices/system/node/node1/memory[0-9]*; do [ ! -e $block ] ||"
            " echo $(basename $block) $(cat $block/state) $(cat $block/valid_zones); done"
        )
        rows = [line.split() for line in found.splitlines()]
        assert {row[2] for row in rows if row[1] == "online"} <= {"Movable"}, rows
        return sorted(int(row[0].removeprefix("memory")) for row in rows if row[1] == "online")

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.guest.output("tierctl status --json")))

    def wait_for_status(self, condition: str, seconds: float = 120) -> None:
        """`condition` is Python on `s`, the status as JSON."""
        check = f"import json, sys; s = json.load(sys.stdin); sys.exit(not ({condition}))"
        self.guest.wait_for(f'tierctl status --json | python3 -c "{check}"', timeout=seconds, interval=1)


@pytest.fixture
def server(bare_guest: Guest) -> Iterator[Plugged]:
    yield Plugged(bare_guest)
    bare_guest.run("systemctl stop tierd; true", check=False)


def test_modules_that_come(server: Plugged) -> None:
    guest = server.guest

    # A boot without the device that an enabled request names: nobody waits but who wants to.
    server.ask("place")
    guest.write("/etc/systemd/system/waiter.service", WAITER)
    guest.run(f"systemctl enable tierd {UNIT}", timeout=60)
    guest.reboot()
    guest.run("systemctl start --no-block waiter")
    guest.wait_for("systemctl is-active multi-user.target", timeout=60)
    assert server.state(UNIT) == "activating", "it still waits for its device"
    assert server.state("waiter") == "inactive"
    guest.wait_for(f"systemctl is-failed {UNIT}", timeout=120)
    guest.wait_for("systemctl is-active waiter", timeout=60)
    guest.wait_for("systemctl is-active tierd", timeout=180)
    said = guest.output(f"journalctl -b -o cat -u {UNIT}")
    assert f"no region has iset_id {iset_of_slot(1):#x}; there is no region of persistent memory" in said
    server.wait_for_status("any('request later: no region has' in n for n in s['notices'])")
    assert server.status()["state"] == "idle"

    # One that nobody asked for, without labels: reported, and left alone.
    first = server.backing(0, 512 * MIB)
    server.plug(0, first)
    assert "region0: 512MiB of persistent memory, " in (line := server.appeared("region0"))
    assert "tierd would not use it: region0 has no labels" in line
    server.wait_for_status("any('region0' in n and 'without labels' in n for n in s['notices'])")
    seen = json.loads(guest.output("tierctl list devices --json"))
    assert [dimm["name"] for dimm in seen["dimms"]] == ["nmem0"]
    assert [region["could"]["reasons"][0]["kind"] for region in seen["regions"]] == ["label-less"]

    # One with labels, which the policy asks for: taken up by itself.
    assert guest.prepare_labels().iset_id == iset_of_slot(0)
    second = server.backing(1, 1024 * MIB)
    with first.open("rb") as source, second.open("r+b") as target:
        source.seek(-LABEL_SIZE, 2)
        target.seek(-LABEL_SIZE, 2)
        target.write(source.read())
    began = time.monotonic()
    server.plug(1, second)
    assert "request later takes it up" in server.appeared("region1")
    guest.wait_for(f"systemctl is-active {UNIT}", timeout=120)
    print(f"memory {time.monotonic() - began:.0f} s after it was plugged in")
    blocks = server.online()
    assert len(blocks) == 7
    # The daemon that had nothing to tier has started again, for the kernel's settings.
    server.wait_for_status("[t['kind'] for t in s['tiers']] == ['dram', 'slow']")
    assert guest.output("cat /proc/sys/kernel/numa_balancing") == "2"
    assert len(json.loads(guest.output("ndctl list -Nr region0") or "[]")) == 0, "the other is as it was"
