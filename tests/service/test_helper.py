"""The root helper on a tree of plain files: what it sets, puts back, and says."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service import helper_bench
from tests.service.helper_bench import facts
from tierd.core.state import MissingFeature
from tierd.errors import DeniedError
from tierd.kernel.paths import Root
from tierd.kernel.scanning import SCAN_DOORS
from tierd.kernel.settings import Ledger, read_setting
from tierd.service import helper
from tierd.service.helper import Report, Settings, apply_settings, begin, read_missing, read_report

root = helper_bench.root
ledger_path = helper_bench.ledger_path


def test_settings_are_applied_and_put_back(root: Root, ledger_path: Path) -> None:
    before = facts(root)
    settings, missing = apply_settings(root, Ledger(ledger_path))
    assert (settings, missing) == (Settings.APPLIED, ())
    assert read_setting(root.numa_balancing) == "0", "nothing is unmapped before the daemon reads the rings"
    assert begin(root, Ledger(ledger_path)) is None
    assert read_setting(root.numa_balancing) == "2"
    assert read_setting(root.promote_rate_limit) == "0"
    assert read_setting(root.demotion_enabled) == "false", "the daemon's to set"
    root.demotion_enabled.write_text("true\n")
    assert read_setting(root.generations_enabled) == "0x0007"
    (root.scan_settings / "scan_size_mb").write_text("32\n")  # as the daemon does through its doors
    Ledger(ledger_path).restore_all()
    assert facts(root) == before


def test_only_what_the_daemon_sets_is_written_down_for_it(root: Root, ledger_path: Path) -> None:
    (root.scan_settings / "hot_threshold_ms").write_text("1000\n")
    ledger = Ledger(ledger_path)
    apply_settings(root, ledger)
    handed_out = {Path(record.path).name for record in ledger.records if record.value is None}
    assert handed_out == {*SCAN_DOORS, "demotion_enabled"}


@pytest.mark.parametrize("watching", [True, False])
def test_damon_stays_where_the_daemon_looks_through_it(
    root: Root, ledger_path: Path, watching: bool
) -> None:
    """And else hint faults are what it looks for."""
    number, target = root.damon / "nr_kdamonds", root.damon / "0/contexts/0/targets/0/pid_target"
    target.parent.mkdir(parents=True)
    number.write_text("0\n")
    target.write_text("77\n" if watching else "0\n")
    ledger = Ledger(ledger_path)
    apply_settings(root, ledger)
    ledger.set(number, "16")
    assert begin(root, Ledger(ledger_path)) is None
    assert (read_setting(number), read_setting(root.numa_balancing)) == (
        ("16", "0") if watching else ("0", "2")
    )
    assert Ledger(ledger_path).holds(number) is watching


def test_nothing_is_unmapped_for_a_source_that_needs_no_faults(root: Root, ledger_path: Path) -> None:
    apply_settings(root, Ledger(ledger_path))
    assert begin(root, Ledger(ledger_path), "soft-dirty bits") is None
    assert read_setting(root.numa_balancing) == "0"
    begin(root, Ledger(ledger_path), "hint faults")
    assert read_setting(root.numa_balancing) == "2"


def test_balancing_between_sockets_is_kept(root: Root, ledger_path: Path) -> None:
    root.numa_balancing.write_text("1\n")
    apply_settings(root, Ledger(ledger_path))
    begin(root, Ledger(ledger_path))
    assert read_setting(root.numa_balancing) == "3"


def test_the_mode_is_set_last_and_undone_first(root: Root, ledger_path: Path) -> None:
    ledger = Ledger(ledger_path)
    apply_settings(root, ledger)
    begin(root, ledger)
    assert ledger.records[-1].path == str(root.numa_balancing)
    assert ledger.restore_all()[0].path == str(root.numa_balancing)


def test_generations_that_are_on_are_not_touched(root: Root, ledger_path: Path) -> None:
    root.generations_enabled.write_text("0x0003\n")
    ledger = Ledger(ledger_path)
    apply_settings(root, ledger)
    assert read_setting(root.generations_enabled) == "0x0003"
    assert not ledger.holds(root.generations_enabled)


@pytest.mark.parametrize("mode", ["2", "3"])
def test_kernel_tiering_of_somebody_else_is_not_seized(root: Root, ledger_path: Path, mode: str) -> None:
    root.numa_balancing.write_text(f"{mode}\n")
    before = facts(root)
    settings, missing = apply_settings(root, Ledger(ledger_path))
    assert settings is Settings.CONFLICT
    assert [m.feature for m in missing] == [f"{helper.TIERING_CONFLICT} (kernel.numa_balancing is {mode})"]
    assert f"kernel.numa_balancing={int(mode) - 2}" in missing[0].remedy
    assert facts(root) == before and not ledger_path.exists()


@pytest.mark.parametrize(
    ("tier", "mode", "handed_out"), [("1", "0", True), ("", "0", False), ("1", "2", False)]
)
def test_the_daemon_may_set_only_what_is_in_the_ledger(
    root: Root, ledger_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str, mode: str, handed_out: bool
) -> None:
    (root.memory_tiers / "memory_tier22/nodelist").write_text(f"{tier}\n")
    root.numa_balancing.write_text(f"{mode}\n")
    asked: list[bool] = []

    def open_doors(
        root: Root, written_down: Callable[[Path], bool] | None
    ) -> tuple[dict[str, int], tuple[MissingFeature, ...]]:
        asked.append(written_down is not None and written_down(root.demotion_enabled))
        return {}, ()

    monkeypatch.setattr(helper.doors_module, "open_doors", open_doors)
    helper.open_command(root, ledger_path, ledger_path.with_name("doors.json"))
    assert asked == [handed_out]


def test_what_lies_in_debugfs_is_written_down_where_it_was_not_mounted(
    root: Root, ledger_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, report_path = facts(root), ledger_path.with_name("doors.json")
    stored: dict[str, int] = {}
    debugfs = root.scan_settings.parent.parent
    debugfs.rename(root.path / "aside")
    debugfs.mkdir()

    def mount(target: Path) -> None:
        for child in (root.path / "aside").iterdir():
            child.rename(target / child.name)

    monkeypatch.setattr(helper.doors_module, "_mount_debugfs", mount)
    monkeypatch.setattr(helper.doors_module, "_open_events", lambda *_: ())
    monkeypatch.setattr(helper, "store_descriptors", lambda doors, previous: stored.update(doors) or True)
    helper.open_command(root, ledger_path, report_path)
    monkeypatch.undo()
    os.write(stored["scan_size_mb"], b"32\n")
    for descriptor in stored.values():
        os.close(descriptor)
    helper.restore_command(ledger_path, report_path)
    assert facts(root) == before


def test_what_is_not_put_back_is_an_event(
    root: Root, ledger_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str, dict[str, str]]] = []
    monkeypatch.setattr(helper, "say", lambda kind, words, fields: told.append((kind.name, words, fields)))
    limit = root.promote_rate_limit
    before = limit.read_text().strip()
    Ledger(ledger_path).set(limit, "0")
    limit.write_text("99\n")
    assert helper.restore_command(ledger_path, tmp_path / "doors.json") == helper.Exit.OK
    words = f"{limit}: left at 99, which somebody else has set (it was {before})"
    assert told == [("setting-left", words, {"TIERD_SETTING": str(limit)})]


def test_demotion_that_was_on_stays_on(root: Root, ledger_path: Path) -> None:
    root.demotion_enabled.write_text("true\n")
    apply_settings(root, Ledger(ledger_path))
    root.demotion_enabled.write_text("false\n")  # as the daemon may through its door
    Ledger(ledger_path).restore_all()
    assert read_setting(root.demotion_enabled) == "true"


def test_after_a_crash_the_tiering_is_ours(root: Root, ledger_path: Path) -> None:
    before = facts(root)
    apply_settings(root, Ledger(ledger_path))
    begin(root, Ledger(ledger_path))
    settings, missing = apply_settings(root, Ledger(ledger_path))
    assert (settings, missing) == (Settings.APPLIED, ())
    Ledger(ledger_path).restore_all()
    assert facts(root) == before


def test_one_tier_changes_nothing(root: Root, ledger_path: Path) -> None:
    (root.memory_tiers / "memory_tier22/nodelist").write_text("\n")
    before = facts(root)
    assert apply_settings(root, Ledger(ledger_path)) == (Settings.NOT_NEEDED, ())
    assert facts(root) == before and not ledger_path.exists()


def test_a_full_run_is_told_and_keeps_the_daemon_from_nothing(
    root: Root, ledger_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It starts, and says that it only looks, rather than not at all."""
    before, report_path = facts(root), ledger_path.with_name("doors.json")
    report_path.parent.mkdir()
    helper.write_report(report_path, Report(("lru_gen",), Settings.APPLIED))

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(helper.doors_module, "open_doors", lambda root, written_down: ({}, ()))
    monkeypatch.setattr(helper, "write_report", fail)
    monkeypatch.setattr("tierd.kernel.settings.write_whole", fail)
    assert helper.open_command(root, ledger_path, report_path) == 0
    said = capsys.readouterr().err
    assert "missing: kernel settings (" in said and "the daemon does not hear what is open" in said
    (missing,) = read_missing(report_path)
    assert "only looks" in missing.loss
    assert facts(root) == before


def test_a_topology_that_cannot_be_read_changes_nothing_and_is_named(
    root: Root, ledger_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.nodes / "node1/meminfo").write_text("odd\n")
    before, report_path = facts(root), ledger_path.with_name("doors.json")
    monkeypatch.setattr(helper.doors_module, "open_doors", lambda root, written_down: ({}, ()))
    helper.open_command(root, ledger_path, report_path)
    report = read_report(report_path)
    assert report.settings is Settings.FAILED and "no MemTotal line" in report.missing[0].feature
    assert facts(root) == before


def test_a_topology_that_cannot_be_read_for_a_moment_is_read_again(
    root: Root, ledger_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = root.nodes / "node1/meminfo"
    whole = meminfo.read_text()
    meminfo.write_text("")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            meminfo.write_text(whole)

    monkeypatch.setattr(time, "sleep", sleep)
    assert apply_settings(root, Ledger(ledger_path)) == (Settings.APPLIED, ())
    assert len(slept) == 3


def test_settings_are_put_back_when_the_slow_tier_is_gone_at_a_restart(
    root: Root, ledger_path: Path
) -> None:
    apply_settings(root, Ledger(ledger_path))
    begin(root, Ledger(ledger_path))
    (root.memory_tiers / "memory_tier22/nodelist").unlink()
    assert apply_settings(root, Ledger(ledger_path))[0] is Settings.NOT_NEEDED
    assert read_setting(root.numa_balancing) == "0" and not ledger_path.exists()


def test_a_kernel_without_balancing_is_named(root: Root, ledger_path: Path) -> None:
    root.numa_balancing.unlink()
    root.promote_rate_limit.unlink()
    settings, missing = apply_settings(root, Ledger(ledger_path))
    assert settings is Settings.APPLIED
    assert [m.remedy for m in missing] == ["boot a kernel built with CONFIG_NUMA_BALANCING"]
    assert begin(root, Ledger(ledger_path)) is None, "named once"


def test_whoever_turns_the_tiering_on_before_the_daemon_is_ready_keeps_it(
    root: Root, ledger_path: Path
) -> None:
    apply_settings(root, Ledger(ledger_path))
    root.numa_balancing.write_text("2\n")
    missing = begin(root, Ledger(ledger_path))
    assert missing and missing.feature == f"{helper.TIERING_CONFLICT} (kernel.numa_balancing is 2)"
    assert "kernel.numa_balancing=0" in missing.remedy
    Ledger(ledger_path).restore_all()
    assert read_setting(root.numa_balancing) == "2"


@pytest.mark.parametrize("settings", [s for s in Settings if s is not Settings.APPLIED])
def test_without_the_other_settings_nothing_begins(
    root: Root, ledger_path: Path, settings: Settings
) -> None:
    report_path = ledger_path.with_name("doors.json")
    helper.write_report(report_path, Report(settings=settings))
    assert helper.begin_command(root, ledger_path, report_path) == 0
    assert read_setting(root.numa_balancing) == "0"


def test_a_mode_that_cannot_be_set_is_named(
    root: Root, ledger_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_path = ledger_path.with_name("doors.json")
    helper.write_report(report_path, Report(settings=Settings.APPLIED))

    def refuse(ledger: Ledger, path: Path, value: str) -> None:
        raise DeniedError(f"{path}: not permitted")

    monkeypatch.setattr(Ledger, "set", refuse)
    assert helper.begin_command(root, ledger_path, report_path) == 0
    (missing,) = read_report(report_path).missing
    assert "not permitted" in missing.feature and "hint faults" in missing.loss


@pytest.mark.parametrize("trouble", ["write", "trust", "report"])
def test_a_begin_that_fails_is_named_and_does_not_fail_the_unit(
    root: Root,
    ledger_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: str,
) -> None:
    report_path = ledger_path.with_name("doors.json")
    apply_settings(root, Ledger(ledger_path))
    helper.write_report(report_path, Report(settings=Settings.APPLIED))

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if trouble == "trust":
        ledger_path.chmod(0o666)
    else:
        monkeypatch.setattr(Ledger, "set", fail)
    if trouble == "report":
        monkeypatch.setattr(helper, "write_report", fail)
    assert helper.begin_command(root, ledger_path, report_path) == 0
    assert "missing: kernel.numa_balancing (" in capsys.readouterr().err
    if trouble != "report":
        (missing,) = read_report(report_path).missing
        assert missing.feature.startswith("kernel.numa_balancing (")


@pytest.mark.parametrize("text", [None, "", "{}", '{"doors": [], "settings": "odd", "missing": []}', "[]"])
def test_a_report_that_cannot_be_read_is_a_missing_feature(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "doors.json"
    if text is not None:
        path.write_text(text)
    (missing,) = read_missing(path)
    assert str(path) in missing.feature and "tierd.service" in missing.remedy


def test_show_names_old_and_new_values(
    root: Root, ledger_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apply_settings(root, Ledger(ledger_path))
    begin(root, Ledger(ledger_path))
    assert helper.show_command(ledger_path, ledger_path.with_name("doors.json")) == 0
    assert f"{root.numa_balancing}: was 0, set to 2, now 2" in capsys.readouterr().out


def test_show_says_when_tierd_does_not_run(ledger_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert helper.show_command(ledger_path, ledger_path.with_name("doors.json")) == 0
    assert capsys.readouterr().out == "no kernel setting is changed\ntierd.service is not running\n"


def test_the_helper_imports_nothing_heavy() -> None:
    heavy = "('numpy', 'gi', 'yaml', 'psutil')"
    code = f"import sys, tierd.service.helper; print(*(m for m in {heavy} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_an_ordinary_user_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    # as from a terminal that systemd has started
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert helper.main(["open"]) == helper.Exit.NOT_ROOT
    assert capsys.readouterr().err == "tierd-helper: open must run as root; tierd.service does so\n"


def test_the_report_is_json_that_others_can_read(tmp_path: Path) -> None:
    helper.write_report(tmp_path / "doors.json", Report(("perf.0",), Settings.APPLIED, ()))
    assert json.loads((tmp_path / "doors.json").read_text()) == {
        "doors": ["perf.0"],
        "settings": "applied",
        "missing": [],
    }
