"""tierd-convert with a request for CXL memory, from the command line to the exit status."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.kernel.fixtures.simulated_cxl import SimulatedCxl
from tierd.kernel import intents
from tierd.service import convert

TEXT = """\
version: 1
provision:
  - {name: here, cxl: {serials: ["0x1234"]}, size: all, mode: apply}
  - {name: shown, cxl: {serials: ["0x1235"]}, size: all, mode: plan}
  - {name: gone, cxl: {serials: ["0x77"]}, size: all, mode: apply}
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedCxl:
    machine = SimulatedCxl(tmp_path / "machine").begin()
    monkeypatch.setattr(convert, "Root", lambda: machine.root)
    monkeypatch.setattr(convert, "Tools", lambda: machine.tools)
    monkeypatch.setattr(intents, "DEFAULT_PATH", tmp_path / "conversions.jsonl")
    monkeypatch.setattr(convert, "LOCK", tmp_path / "convert.lock")
    monkeypatch.setattr(convert.os, "geteuid", lambda: 0)
    policy = convert.tierd.config.loader.parse(TEXT.encode(), str(tmp_path / "tierd.yaml"))
    monkeypatch.setattr(convert.tierd.config, "load", lambda _: policy)
    return machine


def test_it_is_made_and_told_without_ndctl(machine: SimulatedCxl, capfd: pytest.CaptureFixture[str]) -> None:
    assert not (machine.bin / "ndctl").exists()
    assert convert.main(["here"]) == 0
    said = capfd.readouterr().err
    assert machine.blocks() == ["online Movable"] * 8
    assert "here: 1024 MiB of CXL memory on node 2, 8 blocks in ZONE_MOVABLE are online" in said


def test_the_plan_is_printed_and_nothing_run(
    machine: SimulatedCxl, capfd: pytest.CaptureFixture[str]
) -> None:
    assert convert.main(["shown"]) == 0
    out, err = capfd.readouterr()
    assert "shown: ready" in out and "create-region" in out
    assert "1024 MiB of CXL memory, 8 blocks in ZONE_MOVABLE to come" in err
    assert convert.main(["here", "--plan"]) == 0
    assert machine.acts() == []


def test_one_that_does_not_come_is_refused(machine: SimulatedCxl, capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert convert.main(["gone", "--wait", "1"]) == convert.Exit.REFUSED
    assert 0.9 < time.monotonic() - began < 6
    assert "no CXL memory device has serial 0x77" in capfd.readouterr().err


def test_one_that_comes_late_is_waited_for_and_seen_at_once(machine: SimulatedCxl) -> None:
    devices = machine.root.cxl_devices
    away = devices.rename(devices.with_name("away"))
    late = threading.Timer(1.0, away.rename, (devices,))
    late.start()
    began = time.monotonic()
    assert convert.main(["here", "--wait", "60"]) == 0
    late.join()
    assert time.monotonic() - began < convert.LONGEST_PAUSE - 1.0
    assert machine.blocks() == ["online Movable"] * 8
