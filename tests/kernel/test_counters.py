"""/proc/vmstat, and what was demoted on request."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.kernel.fixtures import Machine, fail_reading
from tierd.errors import DeniedError, GoneError, MalformedError
from tierd.kernel.counters import read_counters, read_demoted
from tierd.kernel.paths import Root


def test_by_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path, vmstat={"pgmigrate_success": 12}).write()
    assert read_counters(machine.root, b"pgmigrate_success", b"no_such_counter") == (12, 0)


@pytest.mark.parametrize(
    ("vmstat", "demoted"),
    [
        ({"pgdemote_direct": 500}, 500),  # up to 6.12
        ({"pgdemote_direct": 20, "pgdemote_proactive": 500}, 500),  # from 7.2 on
        ({"pgdemote_direct": 20, "pgdemote_proactive": 0}, 0),
        ({"pgdemote_khugepaged": 7}, 0),
        ({}, 0),
    ],
)
def test_demoted_on_request(tmp_path: Path, vmstat: dict[str, int], demoted: int) -> None:
    """What kswapd demotes by itself (1000 pages in the tree) is not ours."""
    assert read_demoted(Machine(tmp_path, vmstat=vmstat).write().root) == demoted


def test_a_kernel_without_demotion(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.put("proc/vmstat", "nr_free_pages 5\n")
    assert read_demoted(machine.root) == 0


@pytest.mark.parametrize(
    "text", [b"", b"pgdemote_direct many\n", b"nr_x\n", b"\xff\xfe\n", b" 3\n", b"nr_x 1 2\n", b"nr_x -1\n"]
)
def test_a_line_that_is_no_counter_is_not_skipped(tmp_path: Path, text: bytes) -> None:
    machine = Machine(tmp_path)
    machine.put("proc/vmstat", b"pgdemote_proactive 3\n" + text if text else text)
    with pytest.raises(MalformedError, match="vmstat: "):
        read_demoted(machine.root)


def test_gone_and_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path)
    with pytest.raises(GoneError, match="vmstat"):
        read_counters(machine.root)
    machine.write()
    fail_reading(monkeypatch, machine.root.proc / "vmstat", errno.EACCES)
    with pytest.raises(DeniedError, match="vmstat"):
        read_counters(machine.root)


def test_this_machine() -> None:
    assert read_counters(Root(), b"nr_free_pages")[0] > 0
