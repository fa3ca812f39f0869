"""Shares of a region against real devices: growing and shrinking under a workload that checks itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.guest import Guest
from tests.vm.test_provision import CLEAN, MIB, POLICY_FILE, Server

UNIT = "tierd-convert@test"
WORKLOAD = "/run/checksummed"


class Shares(Server):
    """The guest with its region free, and a share of it."""

    def want(self, size: str) -> None:
        region = f"{{iset_id: '{self.region.iset_id:#x}'}}"
        request = f"{{name: test, region: {region}, size: {size}, mode: apply}}"
        self.guest.write(POLICY_FILE, f"version: 1\nprovision:\n  - {request}\n")

    def carry_out(self, size: str) -> dict[str, Any]:
        """Ask for a share, and have it: the plan of before."""
        self.want(size)
        predicted = self.plan()
        assert self.convert() == 0, self.said()
        assert self.plan()["verdict"] == "done"
        assert self.policy() == "online"
        return predicted

    def online(self) -> int:
        """Blocks of node 1; all must be movable."""
        found = self.blocks()
        assert set(found) <= {"online Movable"}, found
        return len(found)

    def available(self) -> int:
        """Bytes of the region that no namespace holds, as the kernel counts them."""
        return int(self.guest.output(f"cat /sys/bus/nd/devices/{self.region.name}/available_size"))

    def workload(self) -> tuple[int, int, str]:
        """Rounds, bad chunks, and whether it runs."""
        rounds, bad, state = self.guest.output(f"cat {WORKLOAD}.status").split()
        return int(rounds), int(bad), state


@pytest.fixture(scope="module")
def shares(own_guest: Guest) -> Iterator[Shares]:
    own_guest.run(CLEAN, timeout=180, check=False)
    yield Shares(own_guest, own_guest.region())
    own_guest.run(f"systemctl stop tierd {UNIT} load; true", check=False)


@pytest.fixture
def load(shares: Shares) -> Iterator[Shares]:
    """With a workload of 640 MiB on the slow node."""
    guest = shares.guest
    guest.put(Path(__file__).with_name("checksummed.py"), f"{WORKLOAD}.py")
    shares.carry_out("1GiB")
    guest.run(f"systemd-run --unit=load python3 {WORKLOAD}.py 640 {WORKLOAD}.status")
    guest.wait_for(f"[ -s {WORKLOAD}.status ]", timeout=120)
    yield shares
    guest.run("systemctl stop load; systemctl reset-failed load", check=False)


def file_system(directory: Path) -> Path:
    """An empty ext4 of 64 MiB; the guest has no program that makes one."""
    path = directory / "data.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", path, "64M"], check=True)
    return path


def used(shares: Shares) -> int:
    """Bytes of node 1 in use."""
    found = shares.guest.output("awk '/MemUsed/ {print $4}' /sys/devices/system/node/node1/meminfo")
    return int(found) << 10


@pytest.mark.one_kernel
@pytest.mark.slow  # `./dev verify provisioning` has it as growth
def test_it_grows_and_shrinks_under_a_workload(load: Shares, tmp_path: Path) -> None:
    guest = load.guest
    assert load.online() == 8
    assert used(load) > 600 * MIB

    # More, by a reload of the daemon.
    guest.run("systemctl start tierd", timeout=120)
    load.want("2GiB")
    predicted = load.plan()["numbers"]
    assert (predicted["memory"], predicted["lost"] - predicted["lost_now"]) == (2048 * MIB, 128 * MIB)
    guest.run("systemctl reload tierd", timeout=120)
    guest.wait_for("[ $(ls -d /sys/devices/system/node/node1/memory[0-9]* | wc -l) -eq 16 ]", timeout=120)
    guest.wait_for(f"systemctl is-active {UNIT}", timeout=120)
    guest.run("systemctl stop tierd", timeout=120)
    assert load.online() == 16 and load.plan()["verdict"] == "done"

    # Less: a smaller slice is made, and both large ones are drained and given back.
    before = load.workload()[0]
    predicted = load.carry_out("all but 3GiB")
    assert [s["action"] for s in predicted["steps"]][:2] == ["create-namespace", "system-ram"]
    assert predicted["numbers"]["rest"] == load.available() >= 3072 * MIB
    assert predicted["numbers"]["drained"] == 2048 * MIB
    assert load.online() * 128 * MIB == predicted["numbers"]["memory"] == 7 * 128 * MIB
    assert "16 of 16" not in load.said() and "8 of 8 blocks of dax0" in load.said()

    # What was given back holds a file system, which nothing that comes after touches.
    guest.put(file_system(tmp_path), "/run/data.img")
    guest.run(
        f"ndctl create-namespace -r {load.region.name} -m fsdax -s 1G -n data && udevadm settle &&"
        " device=/dev/$(ndctl list -N | grep -o 'pmem[0-9.]*' | head -1) && echo $device > /run/device &&"
        " dd if=/run/data.img of=$device bs=1M status=none && mkdir -p /mnt/data && mount $device"
        " /mnt/data && head -c 32M /dev/urandom > /mnt/data/file && sha256sum /mnt/data/file > /run/sum &&"
        " umount /mnt/data",
        timeout=120,
    )
    said = guest.run("tierctl provision set test 1280MiB --yes", timeout=200)
    assert "becomes 1280MiB in 10 blocks" in said.stdout and "size: 1280MiB" in guest.output(
        f"cat {POLICY_FILE}"
    )
    assert load.online() == 10
    guest.run("mount $(cat /run/device) /mnt/data && sha256sum -c /run/sum")
    seen = json.loads(guest.output("tierctl list devices --json"))
    guest.run("umount /mnt/data")
    found = {n["label"]: n for n in seen["namespaces"]}
    assert found["data"]["users"] == ["ext4 at /mnt/data"]
    assert found["data"]["could"]["reasons"][0]["kind"] == "not-ours"
    ours = [n["could"] for label, n in found.items() if label.startswith("tierd:test")]
    assert [could["verdict"] for could in ours] == ["done"] * 2
    assert sum(could["memory"] for could in ours) == 10 * 128 * MIB

    rounds, bad, state = load.workload()
    assert (bad, state) == (0, "running") and rounds > before
    guest.run("systemctl stop load", timeout=120)
    rounds, bad, state = load.workload()
    print(f"{rounds} chunks rewritten, {bad} bad")
    assert (bad, state) == (0, "ended")

    # And all of it.
    load.carry_out("none")
    assert load.online() == 0
    (entry,) = json.loads(guest.output("ndctl list -N"))
    assert entry["name"] == "data"
    guest.run("mount $(cat /run/device) /mnt/data && sha256sum -c /run/sum && umount /mnt/data")
    guest.run(f"ndctl destroy-namespace -f {entry['dev']}")


@pytest.mark.one_kernel
@pytest.mark.slow
def test_a_stop_while_draining_leaves_all_as_it_was(load: Shares) -> None:
    guest = load.guest
    before = guest.output("ndctl list -RNDv; daxctl list")
    load.want("none")
    guest.run(
        f"systemctl restart --no-block {UNIT}; for i in $(seq 600); do"
        f" journalctl -o cat -u {UNIT} -n 5 | grep -q '[1-7] of 8 blocks' && break; sleep 0.05; done;"
        f" systemctl stop {UNIT}",
        timeout=180,
    )
    assert load.online() == 8
    assert guest.output("ndctl list -RNDv; daxctl list") == before
    assert "stopped; the next run goes on from here" in load.said()
    assert load.workload()[1:] == (0, "running")
    assert load.convert() == 0
    assert load.online() == 0 and json.loads(guest.output("ndctl list -N") or "[]") == []


@pytest.mark.one_kernel
@pytest.mark.slow
def test_what_cannot_be_emptied_stays_and_the_deadline_holds(load: Shares) -> None:
    """A page that a device pins: the kernel would try for ever."""
    guest = load.guest
    guest.write(f"{WORKLOAD}-pin.py", PIN)
    guest.run(f"systemd-run --unit=pin python3 {WORKLOAD}-pin.py; sleep 5")
    load.want("none")
    command = "/usr/bin/python3 -I -m tierd.service.convert --drain 10 test"
    done = guest.run(f"time -p {command}", check=False, timeout=180)
    assert done.returncode == 1, done.stderr
    assert "could not be emptied in 10 s" in done.stderr and "online again" in done.stderr
    assert float(done.stderr.rsplit("real ", 1)[1].split()[0]) < 60
    assert load.online() == 8
    guest.run("systemctl stop pin")
    assert load.convert() == 0
    assert load.online() == 0


@pytest.mark.one_kernel
@pytest.mark.slow
def test_a_device_that_somebody_maps_is_not_given_back(shares: Shares) -> None:
    """Mapped and closed again, between the moment it left the kernel and the moment it would go."""
    shares.carry_out("512MiB")
    shares.replace_tool(
        "daxctl",
        '\n/usr/bin/daxctl.real "$@"; code=$?\n'
        '[ "$3" != devdax ] || { python3 -c "import mmap, os, time; f = os.open(\'/dev/dax0.0\', os.O_RDWR);'
        " m = mmap.mmap(f, 2 << 20, mmap.MAP_SHARED); os.close(f);"
        " print(os.getpid(), file=open('/run/mapped', 'w'), flush=True);"
        ' time.sleep(60)" </dev/null >/dev/null 2>&1 & while [ ! -s /run/mapped ]; do sleep 0.1; done; }\n'
        "exit $code\n",
    )
    shares.want("none")
    before = [r["action"] for r in shares.records()]
    done = shares.guest.run("/usr/bin/python3 -I -m tierd.service.convert test", check=False, timeout=180)
    shares.restore_tool("daxctl")
    assert done.returncode == 1
    assert "in use, and left alone" in done.stderr and "mapped" in done.stderr
    after = [r["action"] for r in shares.records()][len(before) :]
    assert "devdax" in after and "destroy-namespace" not in after
    shares.guest.run("kill $(cat /run/mapped); rm /run/mapped")
    assert shares.convert() == 0
    assert shares.online() == 0


# vmsplice(2) pins the pages of an anonymous mapping into a pipe that nobody reads.
PIN = r"""
import ctypes, mmap, os, time

class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

libc = ctypes.CDLL(None, use_errno=True)
mask = ctypes.c_ulong(1 << 1)
libc.syscall(238, 1, ctypes.byref(mask), 64)
memory = mmap.mmap(-1, 1 << 20)
for offset in range(0, 1 << 20, 4096):
    memory[offset] = 1
read, write = os.pipe()
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
vector = Vector(address, 16 << 12)
assert libc.vmsplice(write, ctypes.byref(vector), 1, 0) > 0, ctypes.get_errno()
time.sleep(10000)
"""
