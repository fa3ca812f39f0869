"""Every kind of memory device in one machine: what is shown, refused, adopted, made and given back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm import machine
from tests.vm.devices import CXL_NODE, CXL_SERIALS, NVDIMM_NODE, SOFT_RESERVED_NODE, every_kind
from tests.vm.guest import Guest
from tierd.service.events import MEMORY_MODE

pytestmark = [pytest.mark.one_kernel, pytest.mark.slow]

MIB = 1 << 20
DRAM = "/sys/devices/system/node/node0"
POLICY_FILE = "/etc/tierd/tierd.yaml"
RECORD = "/var/lib/tierd/conversions.jsonl"
ONLINE = "/sys/devices/system/memory/auto_online_blocks"
LOAD = "/run/expander_load.py"
CREATE = "/sys/bus/cxl/devices/decoder0.0/create_ram_region"

BLOCKS = f"""
for block in /sys/devices/system/node/node{CXL_NODE}/memory[0-9]*; do
  [ ! -e "$block" ] || echo "$(cat $block/state) $(cat $block/valid_zones)"
done
"""


class Server:
    """The guest, and what a test asks of it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def devices(self) -> dict[str, Any]:
        """The picture of `tierctl list devices`."""
        found = self.guest.run("tierctl list devices --json", check=False)
        return dict(json.loads(found.stdout))

    def ask(self, size: str, *serials: int, mode: str = "observe") -> None:
        listed = ", ".join(f"'{serial:#x}'" for serial in serials)
        self.guest.write(
            POLICY_FILE,
            f"version: 1\nengine: {{minimum_process: 16MiB, mode: {mode}}}\nprovision:\n"
            f"  - {{name: cxl, cxl: {{serials: [{listed}]}}, size: {size}, mode: apply}}\n",
        )

    def convert(self) -> int:
        """Run the unit to its end; its exit status."""
        self.guest.run("systemctl restart tierd-convert@cxl", timeout=300, check=False)
        return int(self.guest.output("systemctl show -P ExecMainStatus tierd-convert@cxl"))

    def plan(self) -> dict[str, Any]:
        (found,) = json.loads(self.guest.run("tierctl provision plan --json", check=False).stdout)[
            "requests"
        ]
        return dict(found)

    def leave_dram_free(self, mib: int) -> None:
        """Reserve huge pages of DRAM until so much of it is free."""
        free = int(self.guest.output(f"awk '/MemFree/ {{print int($4 / 1024)}}' {DRAM}/meminfo"))
        pages = max(0, free - mib) // 2
        self.guest.run(f"echo {pages} > {DRAM}/hugepages/hugepages-2048kB/nr_hugepages")

    def makes_regions(self) -> bool:
        """Whether the kernel makes regions of volatile CXL memory, as Linux does from 6.3 on."""
        return self.guest.run(f"test -e {CREATE}", check=False).returncode == 0

    def blocks(self) -> list[str]:
        """State and zone of every memory block of the CXL node."""
        return self.guest.output(BLOCKS).splitlines()

    def said(self) -> str:
        return self.guest.output("journalctl -o cat -u tierd-convert@cxl")


@pytest.fixture(scope="module")
def server(kernel: str, tierd_package: Path) -> Iterator[Server]:
    with machine.boot(every_kind(kernel)) as guest:
        guest.run("udevadm settle")
        guest.wait_for("[ $(ndctl list -R | grep -c '\"dev\"') -ge 5 ]", timeout=90)
        guest.wait_for("[ -e /sys/bus/cxl/devices/endpoint2 ]", timeout=90)
        for dimm in ("nmem0", "nmem1"):
            guest.prepare_labels(dimm)
        guest.install_tierd(tierd_package)
        yield Server(guest)


def kinds(part: dict[str, Any]) -> set[str]:
    return {reason["kind"] for reason in part["could"]["reasons"]}


def test_regions_of_every_kind_are_shown_and_refused_with_the_reason(server: Server) -> None:
    found = server.devices()
    assert found["faults"] == found["unseen"] == []
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for region in found["regions"]:
        by_kind.setdefault(region["kind"], []).append(region)
    labelled = [r for r in by_kind["NVDIMM"] if r["labelled"]]
    # not interleaved: each its own set, and each could become memory by itself
    assert len({region["iset_id"] for region in labelled}) == 2
    assert [(r["could"]["verdict"], r["target_node"]) for r in labelled] == [("ready", NVDIMM_NODE)] * 2
    (bare,) = [r for r in by_kind["NVDIMM"] if not r["labelled"]]
    assert bare["could"]["verdict"] == "refused" and kinds(bare) == {"label-less"}
    assert "init-labels" in bare["could"]["reasons"][0]["words"]
    (virtual,) = by_kind["virtio-pmem"]
    assert virtual["could"]["verdict"] == "refused" and "label-less" in kinds(virtual)
    (legacy,) = by_kind["memmap="]
    assert legacy["could"]["verdict"] == "refused" and kinds(legacy) == {"label-less", "target-node"}
    assert sum(dimm["regions"] != [] for dimm in found["dimms"]) == 3


def test_soft_reserved_memory_is_shown_and_adopted_when_kmem_took_it(server: Server) -> None:
    found = server.devices()
    (device,) = [d for d in found["dax_devices"] if d["kind"] == "soft-reserved memory"]
    print(json.dumps(device))
    assert device["size"] == 512 * MIB
    if device["mode"] == "devdax":  # Linux 6.1 leaves it to a program
        assert kinds(device) == {"no-region"} and "daxctl" in device["could"]["reasons"][0]["words"]
        return
    assert device["target_node"] == SOFT_RESERVED_NODE
    assert device["mode"] == "system-ram" and device["could"]["verdict"] == "done"
    # Debian's kernels bring it online in ZONE_NORMAL, which is said
    assert device["movable_blocks"] == 0 and kinds(device) == {"zone"}
    (node,) = [n for n in found["nodes"] if n["number"] == SOFT_RESERVED_NODE]
    assert node["kind"] == "slow" and node["reason"] is None


def test_memory_mode_is_told_in_the_picture_the_status_and_once_in_the_journal(server: Server) -> None:
    (node,) = [n for n in server.devices()["nodes"] if n["number"] == 0]
    (cache,) = node["memory_side_caches"]
    assert (cache["size"], cache["line"], cache["write_policy"]) == (1 << 30, 64, "write-back")
    guest = server.guest
    assert "Memory Mode" in guest.output("tierctl status --offline")
    guest.run("systemctl start tierd", timeout=120)
    journal = f"journalctl -o cat -u tierd MESSAGE_ID={MEMORY_MODE.message_id}"
    guest.wait_for(f'[ -n "$({journal})" ]', timeout=60)
    assert "Memory Mode" in guest.output("tierctl status")
    guest.run("sleep 5; systemctl stop tierd", timeout=120)
    said = guest.output(journal).splitlines()
    assert len(said) == 1 and said[0].startswith("node 0 is behind a memory-side cache of 1.0 GiB")


@pytest.fixture
def regions(server: Server) -> None:
    """For tests that take a kernel which makes regions of volatile CXL memory."""
    if not server.makes_regions():
        pytest.skip("Linux before 6.3 makes no region of volatile CXL memory")


def test_a_kernel_that_makes_no_region_of_volatile_memory_is_named(server: Server) -> None:
    if server.makes_regions():
        pytest.skip("this one does")
    server.ask("all", *CXL_SERIALS)
    assert server.plan()["verdict"] == "refused" and server.convert() == 69
    assert "or this kernel cannot use it" in server.said()
    assert {m["could"]["verdict"] for m in server.devices()["cxl_memdevs"]} == {"refused"}


@pytest.mark.usefixtures("regions")
def test_cxl_memory_is_offered_made_and_drained_under_a_load(server: Server) -> None:
    guest = server.guest
    offered = {m["serial"]: m for m in server.devices()["cxl_memdevs"]}
    assert set(offered) == {f"{serial:#x}" for serial in CXL_SERIALS}
    assert {m["could"]["verdict"] for m in offered.values()} == {"ready"}
    server.ask("all", CXL_SERIALS[1])
    predicted = server.plan()
    assert predicted["verdict"] == "ready"
    assert server.convert() == 0, server.said()
    assert server.blocks() == ["online Movable"] * 4
    assert predicted["numbers"]["memory"] == 512 * MIB and predicted["numbers"]["blocks"] == 4
    assert guest.output(f"cat {ONLINE}") == "online"
    lines = guest.output(f"wc -l < {RECORD}")
    assert server.convert() == 0 and guest.output(f"wc -l < {RECORD}") == lines
    found = server.devices()
    (region,) = found["cxl_regions"]
    (device,) = [d for d in found["dax_devices"] if d["kind"] == "CXL memory"]
    assert region["devices"] == [device["name"]] and device["movable_blocks"] == device["blocks"] == 4
    assert device["could"]["verdict"] == "done" and kinds(device) == set()

    # A small load: QEMU emulates each access to CXL memory, and 300 MiB took more than two minutes.
    guest.put(Path(__file__).with_name("expander_load.py"), LOAD)
    guest.run(f"systemd-run --unit=load -p StandardOutput=journal python3 {LOAD} {CXL_NODE} 20 2")
    guest.wait_for("journalctl -o cat -u load | grep -q ready", timeout=240)
    on_node = guest.output(f"awk '/MemUsed/ {{print $4}}' /sys/devices/system/node/node{CXL_NODE}/meminfo")
    assert int(on_node) >> 10 >= 38
    # the engine takes the node for slow memory, and looks at the load
    guest.run("systemctl start tierd", timeout=120)
    guest.wait_for("tierctl status --json | grep -q '\"hosted_processes\": [1-9]'", timeout=90)
    status = json.loads(guest.output("tierctl status --json"))
    slow = [tier["nodes"] for tier in status["tiers"] if tier["kind"] == "slow"]
    assert any(CXL_NODE in nodes for nodes in slow) and status["state"] not in ("idle", "degraded")

    # the load is still on it: it is drained, and the region goes
    server.ask("none", CXL_SERIALS[1])
    guest.run("systemctl stop tierd", timeout=120)
    assert server.convert() == 0, server.said()
    assert server.blocks() == [] and server.devices()["cxl_regions"] == []
    assert guest.output("systemctl is-active load") == "active"
    guest.run("systemctl stop load")
    assert server.plan()["verdict"] == "done"


@pytest.mark.usefixtures("regions")
def test_what_is_used_on_cxl_memory_comes_up_to_dram(server: Server) -> None:
    guest = server.guest
    server.ask("all", CXL_SERIALS[1], mode="place")
    assert server.convert() == 0, server.said()
    # with more than 1 GiB free, the kernel itself brings up what it sees used (pgdat_free_space_enough)
    server.leave_dram_free(600)
    guest.put(Path(__file__).with_name("expander_load.py"), LOAD)
    guest.run(f"systemd-run --unit=load -p StandardOutput=journal python3 {LOAD} {CXL_NODE} 20 2")
    guest.wait_for("journalctl -o cat -u load | grep -q ready", timeout=240)
    total = f"for (i = 3; i <= NF; i++) if ($i ~ /^N{CXL_NODE}=/) sum += substr($i, 4)"
    there = f"awk '{{{total}}} END {{print +sum}}' /proc/$(systemctl show -P MainPID load)/numa_maps"
    before = int(guest.output(there))
    assert before >= 18 * MIB // 4096
    guest.run("systemctl start tierd", timeout=120)
    nearly = 2 * MIB // 4096 * 9 // 10
    guest.wait_for(f"[ $({there}) -le {before - nearly} ]", timeout=300, interval=2)
    counters = json.loads(guest.output("tierctl status --json"))["counters"]
    guest.run("systemctl stop tierd load", timeout=120)
    server.leave_dram_free(1 << 20)
    assert counters["promoted_pages"] >= nearly, "and it was tierd that moved them"
    server.ask("none", CXL_SERIALS[1])
    assert server.convert() == 0, server.said()


@pytest.mark.usefixtures("regions")
def test_two_devices_are_interleaved(server: Server) -> None:
    server.ask("all", *CXL_SERIALS)
    assert server.convert() == 0, server.said()
    assert server.blocks() == ["online Movable"] * 8
    (region,) = server.devices()["cxl_regions"]
    assert region["ways"] == 2 and len(region["memdevs"]) == 2
    server.ask("none", *CXL_SERIALS)
    assert server.convert() == 0, server.said()
    assert server.devices()["cxl_regions"] == []


@pytest.mark.usefixtures("regions")
def test_a_conversion_killed_over_the_tool_is_got_over(server: Server) -> None:
    guest = server.guest
    server.ask("all", CXL_SERIALS[0])
    guest.run("mv /usr/bin/cxl /usr/bin/cxl.real")
    script = '#!/bin/sh\n/usr/bin/cxl.real "$@"\n[ "$1" != create-region ] || kill -9 $PPID\n'
    guest.write("/usr/bin/cxl", script, 0o755)
    assert server.convert() == 9
    guest.run("mv /usr/bin/cxl.real /usr/bin/cxl")
    assert guest.output(f"cat {ONLINE}") == "online_movable"
    assert server.convert() == 0, server.said()
    assert server.blocks() == ["online Movable"] * 4
    assert guest.output(f"cat {ONLINE}") == "online"
    server.ask("none", CXL_SERIALS[0])
    assert server.convert() == 0, server.said()


def test_of_two_nvdimms_one_becomes_memory_and_the_other_stays(server: Server) -> None:
    guest = server.guest
    mine, other = (guest.region(dimm) for dimm in ("nmem1", "nmem0"))
    guest.write(
        POLICY_FILE,
        f"version: 1\nprovision:\n  - {{name: cxl, region: {{iset_id: '{mine.iset_id:#x}'}}, size: 256MiB,"
        " mode: apply}\n",
    )
    assert server.convert() == 0, server.said()
    states = guest.output(f"cat /sys/devices/system/node/node{NVDIMM_NODE}/memory[0-9]*/valid_zones")
    assert states.splitlines() == ["Movable"] * 2
    assert guest.region("nmem0") == other and guest.region("nmem1").available_size < mine.available_size


@pytest.mark.usefixtures("regions")
def test_what_the_kernel_took_by_itself_is_adopted(server: Server) -> None:
    """A region that an operator made, in the zone that the kernel chooses by itself."""
    guest = server.guest
    name = f"$(basename $(dirname $(grep -l {CXL_SERIALS[0]:#x} /sys/bus/cxl/devices/mem*/serial)))"
    guest.run(f"cxl create-region -m -t ram -d decoder0.0 -w 1 {name} && udevadm settle")
    guest.wait_for(f"[ -e /sys/devices/system/node/node{CXL_NODE}/meminfo ]")
    assert server.blocks() == ["online Normal"] * 4
    (device,) = [d for d in server.devices()["dax_devices"] if d["kind"] == "CXL memory"]
    assert device["could"]["verdict"] == "done" and kinds(device) == {"zone"}
    server.ask("all", CXL_SERIALS[0])
    plan = server.plan()
    assert plan["verdict"] == "done" and plan["adopted"]
    assert any("online in Normal, not Movable" in note for note in plan["notes"])
    assert server.convert() == 0, server.said()
    assert "made by others" in server.said()
    server.ask("none", CXL_SERIALS[0])
    assert server.convert() == 69
    assert server.blocks() == ["online Normal"] * 4
