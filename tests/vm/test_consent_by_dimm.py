"""An NVDIMM without labels, as QEMU makes them, becomes memory by its serial number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import machine
from tests.vm.guest import Guest
from tests.vm.test_consent import ALLOW, KEPT, REFUSED
from tests.vm.test_provision import MIB, POLICY_FILE, Server

pytestmark = [pytest.mark.one_kernel, pytest.mark.slow]

SIZE = 514 * MIB
"""Of which 128 KiB are the labels' when there are some."""


@pytest.fixture(scope="module")
def bare(kernel: str, tierd_package: Path) -> Iterator[Server]:
    with machine.boot(machine.Machine(kernel=kernel, pmem=(SIZE // MIB,), accessed_bits=False)) as guest:
        guest.wait_for("ndctl list -R | grep -q region", timeout=60)
        guest.install_tierd(tierd_package)
        yield Server(guest, guest.region())


def serial(guest: Guest) -> str:
    return guest.output("cat /sys/bus/nd/devices/nmem0/nfit/id").strip()


def ask(server: Server, consent: str | None) -> None:
    line = "" if consent is None else f", consent: {consent}"
    request = f"{{name: test, namespace: {{dimm: {serial(server.guest)}}}{line}, mode: apply}}"
    server.guest.write(POLICY_FILE, f"version: 1\nprovision:\n  - {request}\n")


def refused(server: Server, *kinds: str) -> None:
    plan = server.plan()
    assert plan["verdict"] == "refused" and {r["kind"] for r in plan["refusals"]} == set(kinds), plan
    assert server.convert() == REFUSED
    # its one namespace, raw, is still there
    assert server.guest.output("cat /sys/bus/nd/devices/region0/nstype").strip() == "4"


def test_a_dimm_gets_labels_by_consent_and_becomes_memory(bare: Server) -> None:
    guest = bare.guest
    ask(bare, None)
    refused(bare, "no-consent", "allow-file")
    guest.run(f"install -D -m 0600 /dev/null {ALLOW}/{serial(guest)}")
    refused(bare, "no-consent")
    guest.run("printf 'somebody was here' | dd of=/dev/pmem0 conv=notrunc,fsync status=none")
    ask(bare, "destroy")
    refused(bare, "consent")
    ask(bare, "{destroy: unknown data}")
    assert bare.plan()["numbers"]["blocks"] >= 3

    assert bare.convert() == 0, bare.said()
    assert set(bare.blocks()) == {"online Movable"} and bare.policy() == "online"
    assert guest.output("cat /sys/bus/nd/devices/region0/nstype").strip() == "5"
    assert guest.output(f"head -c 17 {KEPT}/*.head") == "somebody was here"
    assert bare.plan()["verdict"] == "done"

    guest.run("systemctl enable tierd-convert@test")
    guest.reboot()
    guest.wait_for("systemctl is-active tierd-convert@test", timeout=240)
    assert set(bare.blocks()) == {"online Movable"}
