"""The root helper hands its descriptors to systemd, and takes them back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.service import helper_bench
from tests.service.helper_bench import ServiceManager, facts, pipe_doors
from tierd.core.state import MissingFeature
from tierd.errors import DeniedError
from tierd.kernel.paths import Root
from tierd.kernel.settings import Ledger
from tierd.service import helper
from tierd.service.helper import Report, Settings, apply_settings, begin, read_report

root = helper_bench.root
ledger_path = helper_bench.ledger_path
manager = helper_bench.manager


def test_descriptors_arrive_in_the_store_by_name(manager: ServiceManager) -> None:
    assert helper.store_descriptors(pipe_doors("lru_gen", "perf.0"))
    assert {name: os.read(fds[0], 99) for name, fds in manager.store.items()} == {
        "lru_gen": b"lru_gen",
        "perf.0": b"perf.0",
    }
    stores = [m for m in manager.messages if m.startswith("FDSTORE=1")]
    assert all("FDPOLL=0" in m for m in stores) and len(stores) == 2


def test_descriptors_of_an_earlier_run_are_replaced(manager: ServiceManager) -> None:
    assert helper.store_descriptors(pipe_doors("lru_gen", "perf.0", "perf.1"))
    assert helper.store_descriptors(
        pipe_doors("lru_gen", "perf.0"), previous=("lru_gen", "perf.0", "perf.1")
    )
    assert {name: len(fds) for name, fds in manager.store.items()} == {"lru_gen": 1, "perf.0": 1}
    assert helper.store_descriptors({}, previous=("lru_gen", "perf.0"))
    assert manager.store == {}


def test_without_a_service_manager_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert helper.store_descriptors({}) is False


def test_open_then_restore_leaves_the_machine_as_it_was(
    root: Root, ledger_path: Path, manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, report_path = facts(root), ledger_path.with_name("doors.json")
    monkeypatch.setattr(
        helper.doors_module,
        "open_doors",
        lambda root, written_down: (pipe_doors("lru_gen"), (MissingFeature("perf", "blind", "buy one"),)),
    )
    assert helper.open_command(root, ledger_path, report_path) == 0
    report = read_report(report_path)
    assert (report.doors, report.settings) == (("lru_gen",), Settings.APPLIED)
    assert [feature.feature for feature in report.missing] == [
        "perf",
        "DAMON, in the place of hint faults (this kernel has no DAMON)",
    ]
    assert report_path.stat().st_mode & 0o777 == 0o644
    assert set(manager.store) == {"lru_gen"}

    assert helper.restore_command(ledger_path, report_path) == 0
    assert facts(root) == before
    assert manager.store == {} and not report_path.exists() and not ledger_path.exists()
    assert helper.restore_command(ledger_path, report_path) == 0


def test_monitors_that_a_crash_left_are_stopped_at_start_and_at_stop(
    root: Root, ledger_path: Path, manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper.doors_module, "open_doors", lambda root, written_down: ({}, ()))
    number, state = root.damon / "nr_kdamonds", root.damon / "0/state"
    state.parent.mkdir(parents=True)
    number.write_text("0\n")
    for act in (
        lambda: helper.open_command(root, ledger_path, ledger_path.with_name("doors.json")),
        lambda: helper.restore_command(ledger_path, ledger_path.with_name("doors.json")),
    ):
        Ledger(ledger_path).set(number, "16")
        state.write_text("on\n")
        assert act() == 0
        assert (number.read_text(), state.read_text()) == ("0\n", "off\n")


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError(errno.ECONNREFUSED, "refused"), ImportError("systemd")]
)
def test_settings_are_put_back_where_systemd_does_not_listen(
    root: Root,
    ledger_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    before, report_path = facts(root), ledger_path.with_name("doors.json")
    apply_settings(root, Ledger(ledger_path))
    begin(root, Ledger(ledger_path))
    helper.write_report(report_path, Report(("lru_gen",), Settings.APPLIED))

    def fail(doors: dict[str, int], previous: Iterable[str] = ()) -> bool:
        raise error

    monkeypatch.setattr(helper, "store_descriptors", fail)
    assert helper.restore_command(ledger_path, report_path) == 0
    assert facts(root) == before and not ledger_path.exists()
    assert "left behind" in capsys.readouterr().err
    assert report_path.exists(), "names what the next start has to drop"


def test_descriptors_are_dropped_where_the_ledger_cannot_be_trusted(
    ledger_path: Path, manager: ServiceManager
) -> None:
    report_path = ledger_path.with_name("doors.json")
    helper.write_report(report_path, Report(("lru_gen",), Settings.APPLIED))
    assert helper.store_descriptors(pipe_doors("lru_gen"))
    ledger_path.write_text("{}")
    ledger_path.chmod(0o666)
    with pytest.raises(DeniedError):
        helper.restore_command(ledger_path, report_path)
    assert not report_path.exists()
    assert [m for m in manager.messages if m.startswith("FDSTOREREMOVE")], "said to systemd"


def test_a_ledger_that_cannot_be_trusted_changes_no_setting(
    root: Root, ledger_path: Path, manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, report_path = facts(root), ledger_path.with_name("doors.json")
    ledger_path.parent.mkdir()
    ledger_path.write_text("{}")
    ledger_path.chmod(0o666)
    asked = []
    monkeypatch.setattr(
        helper.doors_module,
        "open_doors",
        lambda root, written_down: (asked.append(written_down), ({}, ()))[1],
    )
    assert helper.open_command(root, ledger_path, report_path) == 0
    report = read_report(report_path)
    assert report.settings is Settings.FAILED
    assert report.missing[0].feature.startswith("kernel settings (")
    assert facts(root) == before and asked == [None]
