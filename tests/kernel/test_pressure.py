"""Memory pressure: `some avg10`, or an error that stops moving."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.kernel.fixtures import Machine, fail_reading
from tierd.errors import DeniedError, GoneError, MalformedError
from tierd.kernel.pressure import read_memory_pressure


@pytest.mark.parametrize(("text", "share"), [("0.00", 0.0), ("1.50", 1.5), ("100.00", 100.0)])
def test_the_share_of_the_last_ten_seconds(tmp_path: Path, text: str, share: float) -> None:
    assert read_memory_pressure(Machine(tmp_path, pressure=text).write().root) == share


@pytest.mark.parametrize(
    "text",
    ["", "some\n", "full avg10=3.00 avg60=0.00\n", "some avg10=high avg60=0.00\n", "some avg60=1.00\n"],
)
def test_malformed(tmp_path: Path, text: str) -> None:
    machine = Machine(tmp_path)
    machine.put(machine.root.memory_pressure, text)
    with pytest.raises(MalformedError, match="pressure/memory"):
        read_memory_pressure(machine.root)


def test_a_kernel_without_pressure_information(tmp_path: Path) -> None:
    with pytest.raises(GoneError, match="pressure/memory"):
        read_memory_pressure(Machine(tmp_path).root)


@pytest.mark.parametrize(("code", "kind"), [(errno.EACCES, DeniedError), (errno.EOPNOTSUPP, MalformedError)])
def test_denied_and_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    """EOPNOTSUPP is what a kernel booted with psi=0 says."""
    machine = Machine(tmp_path).write()
    fail_reading(monkeypatch, machine.root.memory_pressure, code)
    with pytest.raises(kind, match="pressure/memory"):
        read_memory_pressure(machine.root)
