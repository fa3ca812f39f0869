"""At boot a device may come late: tierd-convert waits for what its request names, and for nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.kernel.fixtures.provisioned import ISET, Machine
from tierd.core.policy import AnyRequest, NamespaceRequest, ProvisionMode, ProvisionRequest
from tierd.kernel.intents import Intents
from tierd.service import convert

SERIAL = "8680-56341200"
UUID = "8459ba59-89bc-4a92-8717-7ee89e284fea"
APPLY = ProvisionMode.APPLY
REQUESTS = (
    ProvisionRequest("region", ISET, 1 << 30, APPLY),
    NamespaceRequest("namespace", UUID, "ext4", APPLY),
    NamespaceRequest("dimm", "", "", APPLY, SERIAL),
)
LATE = "mv ../root/sys/bus/nd/late ../root/sys/bus/nd/devices; mv ../late.json ../ndctl.json"
"""What brings the devices, here."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An NVDIMM with one namespace, none of which is there yet."""
    machine = Machine(tmp_path, "raw")
    machine.write("sys/bus/nd/devices/region0/mappings", "1\n")
    machine.write("sys/bus/nd/devices/region0/mapping0", "nmem0,0,2147483648,0\n")
    machine.write("sys/bus/nd/devices/nmem0/nfit/id", f"{SERIAL}\n")
    devices, listing = machine.root.nd_devices, tmp_path / "ndctl.json"
    devices.rename(devices.with_name("late"))
    listing.rename(tmp_path / "late.json")
    listing.write_text("[]")
    return machine


def missing(machine: Machine, request: AnyRequest, seconds: float) -> set[str]:
    """What the plan that tierd-convert comes to does not find."""
    record = Intents(machine.directory / "conversions.jsonl", machine.root)
    plan = convert._wait(machine.root, machine.tools, record, request, "/etc/tierd/tierd.yaml", seconds)
    return {refusal.kind for refusal in plan.refusals if refusal.kind.endswith("-not-found")}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_what_udev_has_not_brought_yet_is_waited_for(machine: Machine, request_: AnyRequest) -> None:
    machine.stub("udevadm", f'[ "$1" = settle ] && [ -e ../late.json ] && {{ {LATE}; }}; exit 0')
    assert missing(machine, request_, 20.0) == set()
    assert "settle" in machine.calls.read_text()


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name)
def test_what_never_comes_is_named_at_the_deadline(machine: Machine, request_: AnyRequest) -> None:
    begun = time.monotonic()
    assert len(missing(machine, request_, 0.5)) == 1
    assert time.monotonic() - begun < 10
    assert machine.acts() == []


def test_a_machine_that_has_another_device_is_not_waited_for(machine: Machine) -> None:
    """Its region is there, and what the request says of it is wrong for good."""
    machine.stub("udevadm", f'[ "$1" = settle ] && [ -e ../late.json ] && {{ {LATE}; }}; exit 0')
    missing(machine, REQUESTS[0], 20.0)
    machine.calls.write_text("")
    assert missing(machine, ProvisionRequest("region", ISET, 1 << 50, APPLY), 20.0) == set()
    assert "settle" not in machine.calls.read_text()
