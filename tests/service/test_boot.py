"""The boot: who waits for persistent memory, and who does not."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

import pytest

from tests.kernel.fixtures.region import ISET, SimulatedRegion
from tests.service.conftest import ROOT
from tierd.kernel import intents
from tierd.service import convert

TEXT = """\
version: 1
provision:
  - {{name: here, region: {{iset_id: "{here:#x}"}}, size: 512MiB, mode: apply}}
  - {{name: gone, region: {{iset_id: "0x77"}}, size: all, mode: apply}}
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedRegion:
    machine = SimulatedRegion(tmp_path / "machine").begin()
    monkeypatch.setattr(convert, "Root", lambda: machine.root)
    monkeypatch.setattr(convert, "Tools", lambda: machine.tools)
    monkeypatch.setattr(intents, "DEFAULT_PATH", tmp_path / "conversions.jsonl")
    monkeypatch.setattr(convert, "LOCK", tmp_path / "convert.lock")
    monkeypatch.setattr(convert.os, "geteuid", lambda: 0)
    path = tmp_path / "tierd.yaml"
    path.write_text(TEXT.format(here=ISET))
    policy = convert.tierd.config.loader.parse(path.read_bytes(), str(path))
    monkeypatch.setattr(convert.tierd.config, "load", lambda _: policy)
    return machine


def test_a_device_that_does_not_come_keeps_no_other_waiting(
    machine: SimulatedRegion, capfd: pytest.CaptureFixture[str]
) -> None:
    free: list[bool] = []

    def look() -> None:
        time.sleep(1.0)
        with convert.LOCK.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free.append(True)
            except BlockingIOError:
                free.append(False)

    watcher = threading.Thread(target=look)
    watcher.start()
    began = time.monotonic()
    assert convert.main(["gone", "--wait", "3"]) == convert.Exit.REFUSED
    took = time.monotonic() - began
    watcher.join()
    assert free == [True]
    assert 2.5 < took < 20
    assert "no region has iset_id 0x77; there is" in capfd.readouterr().err
    assert machine.acts() == []


def test_a_device_that_is_there_is_not_waited_for(machine: SimulatedRegion) -> None:
    began = time.monotonic()
    assert convert.main(["here"]) == 0
    assert time.monotonic() - began < 20 and len(machine.online()) == 4


def settings(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (ROOT / "systemd" / name).read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).extend(value.split())
    return found


def test_the_boot_waits_for_neither_the_memory_nor_the_daemon() -> None:
    # a target is ordered after what it wants, unless that has no default dependencies
    for name in ("tierd-convert@.service", "tierd.service"):
        unit = settings(name)
        assert unit["DefaultDependencies"] == ["no"], name
        assert "sysinit.target" in unit["After"] and "sysinit.target" in unit["Requires"]
        assert unit["Conflicts"] == ["shutdown.target"] and "shutdown.target" in unit["Before"]


def test_what_is_ordered_after_the_target_finds_the_memory() -> None:
    unit = settings("tierd-convert@.service")
    assert {"tierd.service", "tierd-memory.target"} <= set(unit["Before"])
    # so that `After=tierd-memory.target` is enough: the target is there when a request is
    assert unit["Wants"] == ["tierd-memory.target"]
    target = settings("tierd-memory.target")
    assert set(target) == {"Description", "Documentation"}
