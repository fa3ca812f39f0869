"""The ledger of kernel settings, on a tree of plain files."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path

import pytest

from tierd.errors import DeniedError, GoneError, MalformedError, TierdError
from tierd.kernel import settings
from tierd.kernel.settings import Ledger, Outcome, read_setting


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, value in {
        "balancing": "1\n",
        "limit": "65536\n",
        "demotion": "false\n",
        "scan": "1000\n",
    }.items():
        (tmp_path / name).write_text(value)
    return tmp_path


def reopened(tree: Path) -> Ledger:
    return Ledger(tree / "run/settings.json")


def values(tree: Path) -> dict[str, str]:
    return {name: read_setting(tree / name) for name in ("balancing", "limit", "demotion", "scan")}


def test_everything_is_put_back_in_reverse_order(tree: Path) -> None:
    before, ledger = values(tree), reopened(tree)
    ledger.set(tree / "limit", "0")
    ledger.set(tree / "balancing", "3")
    ledger.remember(tree / "scan")
    (tree / "scan").write_text("100\n")
    assert values(tree) == {"balancing": "3", "limit": "0", "demotion": "false", "scan": "100"}

    results = ledger.restore_all()

    assert values(tree) == before
    assert [Path(r.path).name for r in results] == ["scan", "balancing", "limit"]
    assert {r.outcome for r in results} == {Outcome.RESTORED}
    assert not ledger.path.exists()
    assert ledger.restore_all() == ()


def test_the_record_is_on_disk_before_the_kernel_is_touched(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, seen = reopened(tree), []
    real = settings.write_setting

    def spy(path: Path, value: str) -> None:
        seen.append(json.loads(ledger.path.read_text())["settings"])
        real(path, value)

    monkeypatch.setattr(settings, "write_setting", spy)
    ledger.set(tree / "balancing", "3")
    assert seen == [[{"path": str(tree / "balancing"), "before": "1", "value": "3", "settled": False}]]
    assert json.loads(ledger.path.read_text())["settings"][0]["settled"] is True


def test_a_value_it_already_has_is_neither_written_nor_recorded(tree: Path) -> None:
    ledger = reopened(tree)
    ledger.set(tree / "demotion", "false")
    assert ledger.records == () and not ledger.path.exists()


def test_original_values_survive_a_crash_and_a_second_start(tree: Path) -> None:
    before = values(tree)
    first = reopened(tree)
    first.set(tree / "balancing", "2")
    first.set(tree / "limit", "0")
    second = reopened(tree)
    assert second.holds(tree / "balancing") and not second.holds(tree / "demotion")
    second.set(tree / "balancing", "3")
    second.set(tree / "limit", "0")
    second.restore_all()
    assert values(tree) == before


def test_a_third_value_is_left_alone_and_named(tree: Path) -> None:
    ledger = reopened(tree)
    ledger.set(tree / "limit", "0")
    (tree / "limit").write_text("100\n")
    (result,) = ledger.restore_all()
    assert result.outcome is Outcome.FOREIGN and read_setting(tree / "limit") == "100"
    assert str(result) == f"{tree / 'limit'}: left at 100, which somebody else has set (it was 65536)"
    assert not ledger.path.exists()


def test_setting_again_over_a_third_value_puts_the_third_back(tree: Path) -> None:
    ledger = reopened(tree)
    ledger.set(tree / "limit", "0")
    (tree / "limit").write_text("100\n")
    ledger.set(tree / "limit", "0")
    ledger.restore_all()
    assert read_setting(tree / "limit") == "100"


def test_missing_settings_are_gone_not_fatal(tree: Path) -> None:
    ledger = reopened(tree)
    with pytest.raises(GoneError, match="does not exist"):
        ledger.set(tree / "absent", "1")
    with pytest.raises(GoneError):
        ledger.remember(tree / "absent")
    assert ledger.records == ()
    ledger.set(tree / "balancing", "2")
    ledger.set(tree / "demotion", "true")
    (tree / "demotion").unlink()
    outcomes = {Path(r.path).name: r.outcome for r in ledger.restore_all()}
    assert outcomes == {"demotion": Outcome.GONE, "balancing": Outcome.RESTORED}


def test_what_the_kernel_refuses_is_not_recorded(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = reopened(tree)
    monkeypatch.setattr(settings, "write_setting", lambda path, value: None)
    with pytest.raises(TierdError, match="took 2 and still reads 1"):
        ledger.set(tree / "balancing", "2")
    assert ledger.records == () and not ledger.path.exists()


def test_a_failed_restore_stays_in_the_ledger_for_the_next_try(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = reopened(tree)
    ledger.set(tree / "balancing", "2")
    ledger.set(tree / "limit", "0")
    with monkeypatch.context() as patch:

        def refuse(path: Path, value: str) -> None:
            if path.name == "balancing":
                raise DeniedError(f"{path} may not be set")
            path.write_text(value)

        patch.setattr(settings, "write_setting", refuse)
        outcomes = {Path(r.path).name: r.outcome for r in ledger.restore_all()}
    assert outcomes == {"balancing": Outcome.FAILED, "limit": Outcome.RESTORED}
    assert [r.outcome for r in reopened(tree).restore_all()] == [Outcome.RESTORED]
    assert read_setting(tree / "balancing") == "1"


def test_the_kernel_may_print_a_value_otherwise(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "lru").write_text("0x0000\n")
    monkeypatch.setattr(
        settings, "write_setting", lambda path, value: path.write_text({"y": "0x0003"}.get(value, value))
    )
    ledger = reopened(tree)
    ledger.set(tree / "lru", "y")
    assert ledger.records[0].value == "0x0003"
    assert reopened(tree).restore_all()[0].outcome is Outcome.RESTORED
    assert read_setting(tree / "lru") == "0x0000"


def test_a_part_is_put_back_and_the_rest_stays(tree: Path) -> None:
    (tree / "part").mkdir()
    (tree / "part/one").write_text("1\n")
    ledger = reopened(tree)
    ledger.set(tree / "limit", "0")
    ledger.set(tree / "part/one", "2")
    assert [result.path for result in ledger.restore_all(tree / "part")] == [str(tree / "part/one")]
    assert read_setting(tree / "part/one") == "1" and read_setting(tree / "limit") == "0"
    assert [Path(record.path).name for record in reopened(tree).records] == ["limit"]
    assert ledger.restore_all(tree / "part") == ()


@pytest.mark.parametrize("attempts", [3, 1 << 30])
def test_a_busy_setting_is_tried_again_for_a_while(
    tree: Path, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    calls: list[int] = []
    write, now = os.write, [0.0]

    def busy(descriptor: int, data: bytes) -> int:
        calls.append(descriptor)
        if len(calls) <= attempts:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return write(descriptor, data)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(settings.os, "write", busy)
    monkeypatch.setattr(settings.time, "sleep", sleep)
    monkeypatch.setattr(settings.time, "monotonic", lambda: now[0])
    if attempts == 3:
        settings.write_setting(tree / "limit", "7")
        assert read_setting(tree / "limit") == "7" and len(calls) == 4
    else:
        with pytest.raises(TierdError, match="busy"):
            settings.write_setting(tree / "limit", "7")
        assert 10 < len(calls) < 40


class Killed(BaseException):
    """A kill, at the next instant that matters."""


@pytest.mark.parametrize("seed", range(60))
def test_a_kill_at_any_instant_loses_no_original_value(
    tree: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Every step that touches the disk or the kernel may be the last one; the next start restores all."""
    chance = random.Random(seed)
    before = values(tree)
    write, rename, fsync = settings.write_setting, Path.rename, os.fsync
    left = 0

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    for _ in range(3):
        left = chance.randrange(30)
        with monkeypatch.context() as patch:
            patch.setattr(settings, "write_setting", lambda p, v: (step(), write(p, v), step()))
            patch.setattr(Path, "rename", lambda p, t: (step(), rename(p, t), step()))
            patch.setattr(os, "fsync", lambda d: (step(), fsync(d)))
            try:
                ledger = reopened(tree)
                ledger.remember(tree / "scan")
                ledger.set(tree / "limit", "0")
                ledger.set(tree / "demotion", "true")
                ledger.set(tree / "balancing", str(chance.choice((2, 3))))
                (tree / "scan").write_text("10\n")
                if chance.random() < 0.5:
                    ledger.restore_all()
            except Killed:
                pass
    reopened(tree).restore_all()
    assert values(tree) == before
    assert not (tree / "run/settings.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"version": 2, "settings": []}',
        '{"version": 1, "settings": [{"path": "/x"}]}',
        '{"version": 1, "settings": [{"path": 1, "before": "1", "value": null, "settled": false}]}',
        '{"version": 1, "settings": [{"path": "/x", "before": "1", "value": 7, "settled": false}]}',
        "[" * 100000,
    ],
)
def test_a_damaged_ledger_is_named(tree: Path, text: str) -> None:
    path = tree / "settings.json"
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(MalformedError, match="is not a ledger of kernel settings"):
        Ledger(path)


def test_a_ledger_that_others_could_write_is_refused(tree: Path) -> None:
    ledger = reopened(tree)
    ledger.set(tree / "balancing", "2")
    assert ledger.path.stat().st_mode & 0o777 == 0o644
    ledger.path.chmod(0o666)
    with pytest.raises(DeniedError, match="only we can write"):
        reopened(tree)
    ledger.path.chmod(0o644)
    (tree / "link").symlink_to(ledger.path)
    with pytest.raises(DeniedError, match="cannot be opened"):
        Ledger(tree / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_ledger_of_another_user_is_refused(tree: Path) -> None:
    ledger = reopened(tree)
    ledger.set(tree / "balancing", "2")
    os.chown(ledger.path, 12345, 12345)
    with pytest.raises(DeniedError):
        reopened(tree)


def test_the_chosen_word_of_a_choice(tree: Path) -> None:
    (tree / "defrag").write_text("always defer [madvise] never\n")
    assert read_setting(tree / "defrag") == "madvise"
