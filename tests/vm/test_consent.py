"""Namespaces that exist against real devices: refused for every doubt, taken with full consent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.guest import Guest
from tests.vm.test_provision import CLEAN, MIB, POLICY_FILE, Server

pytestmark = [pytest.mark.one_kernel, pytest.mark.slow]

ALLOW = "/etc/tierd/allow-convert.d"
KEPT = "/var/lib/tierd/kept"
SIZE = 256 * MIB
EDGE = 8 * MIB
NDCTL_CALLS = "/run/ndctl-calls"
REFUSED = 69


class Store(Server):
    """The guest with one namespace of 256 MiB in its region, and an ext4 to put into it."""

    def make(self, mode: str) -> None:
        """Make the namespace, with zeros at both ends: free capacity is what was there before."""
        self.guest.run(CLEAN + f"rm -rf {ALLOW} {KEPT}/*", timeout=180, check=False)
        make = f"ndctl create-namespace -r {self.region.name} -s {SIZE} -n store -m"
        self.guest.run(f"{make} raw && udevadm settle")
        found = self.namespace()
        zero = f"dd if=/dev/zero of=/dev/{found['blockdev']} bs=1M conv=notrunc,fsync status=none count=20"
        self.guest.run(f"{zero}; {zero} seek={SIZE // MIB - 20}; udevadm settle", timeout=180)
        if mode != "raw":
            self.guest.run(f"ndctl destroy-namespace -f {found['dev']}; {make} {mode} && udevadm settle")
            found = self.namespace()
        self.uuid = str(found["uuid"])
        self.device = f"/dev/{found['blockdev']}" if "blockdev" in found else ""

    def namespace(self) -> dict[str, Any]:
        (found,) = json.loads(self.guest.output("ndctl list -N"))
        return dict(found)

    def fill(self, source: str = "cat /run/ext4.img") -> None:
        self.guest.run(f"{source} > {self.device}; sync; udevadm settle")

    def want(self, consent: str | None, *, allow: bool = True) -> None:
        self.guest.run(f"rm -rf {ALLOW}")
        if allow:
            self.guest.run(f"install -D -m 0600 /dev/null {ALLOW}/{self.uuid}")
        line = "" if consent is None else f"\n    consent: {consent}"
        text = f"  - name: test\n    namespace: {{uuid: {self.uuid}}}{line}\n    mode: apply\n"
        self.guest.write(POLICY_FILE, f"version: 1\nprovision:\n{text}")

    def checksum(self) -> str:
        """Of all that the tests write."""
        parts = f"head -c 72M {self.device}; tail -c 8M {self.device}"
        return self.guest.output(f"{{ {parts}; }} | sha256sum")

    def refused(self, *kinds: str) -> None:
        """Run the unit: it refuses for these reasons, asks ndctl for its list alone, and changes nothing."""
        before = (self.checksum() if self.device else "", self.shape())
        planned = self.plan()
        assert planned["verdict"] == "refused" and planned["steps"] == []
        assert {refusal["kind"] for refusal in planned["refusals"]} == set(kinds), planned["refusals"]
        self.guest.run(f"rm -f {NDCTL_CALLS}")
        self.replace_tool("ndctl", f'\necho "$1" >> {NDCTL_CALLS}\nexec /usr/bin/ndctl.real "$@"\n')
        try:
            assert self.convert() == REFUSED
        finally:
            self.restore_tool("ndctl")
        assert set(self.guest.output(f"cat {NDCTL_CALLS}").split()) == {"list"}
        assert (self.checksum() if self.device else "", self.shape()) == before
        assert self.guest.output(f"ls {KEPT}") == "" and self.records() == []

    def becomes_memory(self) -> None:
        assert self.convert() == 0, self.said()
        assert set(self.blocks()) == {"online Movable"} and self.policy() == "online"
        assert self.plan()["verdict"] == "done"
        found = self.namespace()
        assert found["name"] == "tierd:test" and found["uuid"] != self.uuid


@pytest.fixture(scope="module")
def store(own_guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    image = tmp_path_factory.mktemp("store") / "ext4.img"
    # the guest has no program that makes one
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image, "64M"], check=True)
    own_guest.put(image, "/run/ext4.img")
    yield Store(own_guest, own_guest.region())


def test_an_ext4_is_refused_in_every_wrong_way_and_then_becomes_memory(store: Store) -> None:
    guest = store.guest
    store.make("fsdax")
    store.fill()
    store.want(None)
    store.refused("no-consent")
    store.want("{destroy: xfs}")
    store.refused("consent")
    store.want("destroy")
    store.refused("consent")
    store.want("{destroy: ext4}", allow=False)
    store.refused("allow-file")
    store.want("{destroy: ext4}")
    guest.run(f"chmod 0644 {ALLOW}/{store.uuid}")
    store.refused("allow-file")
    guest.run(f"chmod 0600 {ALLOW}/{store.uuid}")

    hold = f"systemd-run --unit=hold --property=PrivateMounts=yes sh -c 'mount -r {store.device} /mnt"
    guest.run(f"{hold} && touch /run/held && sleep 1000'")
    guest.wait_for("[ -e /run/held ]")
    store.refused("mounted")
    guest.run("systemctl stop hold")
    guest.run(f"systemd-run --unit=hold sh -c 'exec 7<{store.device}; touch /run/open; sleep 1000'")
    guest.wait_for("[ -e /run/open ]")
    store.refused("open")
    guest.run(f"systemctl stop hold; losetup -f {store.device}")
    store.refused("holder")
    guest.run("losetup -D")

    head = guest.output(f"head -c {EDGE} {store.device} | sha256sum")
    tail = guest.output(f"tail -c {EDGE} {store.device} | sha256sum")
    planned = store.plan()
    assert planned["holds"] == "ext4" and planned["verdict"] == "ready"
    assert [s["action"] for s in planned["steps"]] == ["take-namespace", "create-namespace", "system-ram"]
    assert planned["unrecoverable"][0]["from_step"] == 1
    store.becomes_memory()
    kept = guest.output(f"stat -c '%a %U %n' {KEPT} {KEPT}/*").splitlines()
    assert kept[0] == f"700 root {KEPT}"
    assert [line.rpartition(".")[2] for line in kept[1:]] == ["head", "json", "tail"]
    assert all(line.startswith(f"600 root {KEPT}/{store.uuid}-") for line in kept[1:])
    assert guest.output(f"sha256sum < {KEPT}/*.head") == head
    assert guest.output(f"sha256sum < {KEPT}/*.tail") == tail
    result = next(r for r in store.records() if r["record"] == "result" and r["action"] == "take-namespace")
    assert result["outcome"] == "done" and result["facts"]["kept"].startswith(f"{KEPT}/{store.uuid}-")

    # As after a boot: the memory is devdax again, and the policy names a UUID that is nowhere.
    guest.run("daxctl reconfigure-device -m devdax -f $(ls /sys/bus/dax/devices)", timeout=120)
    assert store.plan()["verdict"] == "ready" and store.blocks() == []
    store.becomes_memory()
    assert [r["action"] for r in store.records() if r["record"] == "result"] == [
        *("take-namespace", "create-namespace", "system-ram", "system-ram")
    ]

    # What is older than 30 days goes, and nothing before.
    guest.run("systemd-tmpfiles --clean")
    assert guest.output(f"ls {KEPT} | wc -l") == "3"
    guest.run(f"touch -m -d '29 days ago' {KEPT}/*; systemd-tmpfiles --clean")
    assert guest.output(f"ls {KEPT} | wc -l") == "3"
    guest.run(f"touch -m -d '31 days ago' {KEPT}/*; cat {KEPT}/* > /dev/null; systemd-tmpfiles --clean")
    assert guest.output(f"ls {KEPT}") == ""


@pytest.mark.parametrize("mode", ["raw", "devdax"])
def test_zeros_take_plain_consent(store: Store, mode: str) -> None:
    store.make(mode)
    store.want("{destroy: ext4}")
    store.refused("consent")
    store.want("destroy")
    store.becomes_memory()


MAP = """
import mmap, os, time
name = os.listdir("/sys/bus/dax/devices")[0]
descriptor = os.open(f"/dev/{name}", os.O_RDWR)
mapped = mmap.mmap(descriptor, 2 << 20, mmap.MAP_SHARED)
os.close(descriptor)
open("/run/mapped", "w").close()
time.sleep(1000)
"""


def test_who_swaps_to_it_and_who_maps_it_is_seen_and_lives(store: Store) -> None:
    guest = store.guest
    store.make("raw")
    guest.run(f"mkswap -q {store.device} && udevadm settle && swapon {store.device}")
    store.want("{destroy: swap}")
    assert {r["kind"] for r in store.plan()["refusals"]} == {"swap"}
    store.refused("swap")
    guest.run(f"swapoff {store.device}")
    assert store.plan()["verdict"] == "ready"

    store.make("devdax")
    guest.write("/run/map.py", MAP)
    guest.run("rm -f /run/mapped; systemd-run --unit=hold python3 /run/map.py")
    guest.wait_for("[ -e /run/mapped ]")
    store.want("destroy")
    store.refused("mapped", "open")  # Python keeps a descriptor of its own for a mapping
    assert guest.output("systemctl is-active hold") == "active"
    guest.run("systemctl stop hold")
    assert store.plan()["verdict"] == "ready"


def test_random_bytes_take_a_consent_of_their_own(store: Store) -> None:
    store.make("raw")
    store.fill("head -c 1M /dev/urandom")
    store.want("destroy")
    store.refused("consent")
    store.want("{destroy: unknown data}")
    store.becomes_memory()


def test_a_sector_namespace_is_never_taken(store: Store) -> None:
    store.make("sector")
    store.want("destroy")
    store.refused("sector")


def test_an_ndctl_that_is_killed_over_it_is_finished_by_the_next_run(store: Store) -> None:
    """At instants from before it did anything to after it did all; what is left is finished or as it was."""
    guest = store.guest
    states = []
    for instant in (0.05, 0.15, 0.3, 0.6):
        store.make("fsdax")
        store.fill()
        store.want("{destroy: ext4}")
        head = guest.output(f"head -c {EDGE} {store.device} | sha256sum")
        kill = f'[ "$1" != destroy-namespace ] || exec timeout -s KILL {instant} /usr/bin/ndctl.real "$@"'
        store.replace_tool("ndctl", f'\n{kill}\nexec /usr/bin/ndctl.real "$@"\n')
        first = store.convert()
        store.restore_tool("ndctl")
        found = json.loads(guest.output("ndctl list -N -i") or "[]")
        states.append([f"{n['mode']}/{n.get('state', 'enabled')}" for n in found if n["size"]])
        assert first in (0, 1), store.said()
        store.becomes_memory()
        assert head in guest.output(f"for f in {KEPT}/*.head; do sha256sum < $f; done")
    print(states)
