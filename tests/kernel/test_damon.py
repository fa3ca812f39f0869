"""DAMON: who uses it, and tierd's own part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.fixtures import fail_reading
from tierd.errors import GoneError, TierdError
from tierd.kernel import damon
from tierd.kernel.damon import (
    MODULES,
    MONITORS,
    damon_trouble,
    give_back,
    in_service,
    monitor_doors,
    set_up_monitors,
)
from tierd.kernel.paths import Root
from tierd.kernel.settings import Ledger, Outcome


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path)
    for path, text in (
        (root.damon / "nr_kdamonds", "0\n"),
        *((root.modules / module / "parameters/enabled", "N\n") for module in MODULES),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return root


def test_nobody_uses_it(root: Root) -> None:
    assert damon_trouble(root) == ""


def test_a_kernel_without(tmp_path: Path) -> None:
    assert damon_trouble(Root(tmp_path)) == "this kernel has no DAMON"


@pytest.mark.parametrize("module", MODULES)
def test_modules_exclude_others(root: Root, module: str) -> None:
    (root.modules / module / "parameters/enabled").write_text("Y\n")
    assert damon_trouble(root) == f"in use by {module}"


@pytest.mark.parametrize(("number", "words"), [("1", "somebody's kdamond"), ("3", "somebody's 3 kdamonds")])
def test_a_tree_that_somebody_set_up_is_named(root: Root, number: str, words: str) -> None:
    (root.damon / "nr_kdamonds").write_text(f"{number}\n")
    (root.modules / "damon_stat/parameters/enabled").write_text("Y\n")
    before = {path: path.read_text() for path in root.path.rglob("*") if path.is_file()}
    assert damon_trouble(root) == f"in use by damon_stat and {words}"
    assert {path: path.read_text() for path in root.path.rglob("*") if path.is_file()} == before


def test_modules_that_a_kernel_lacks(root: Root) -> None:
    for module in MODULES:
        (root.modules / module / "parameters/enabled").unlink()
    assert damon_trouble(root) == ""


def test_what_cannot_be_read_counts_as_in_use(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_reading(monkeypatch, root.damon / "nr_kdamonds", 13)
    assert "permission denied" in damon_trouble(root)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "run/settings.json")


def plant(root: Root, count: int = MONITORS) -> None:
    """The files that the kernel makes with the number of monitors."""
    for number in range(count):
        for path, value in (*damon._settings(), ("state", "off"), ("contexts/0/targets/0/pid_target", "0")):
            file = root.damon / str(number) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("off\n" if value == "off" else "0\n")


def state(root: Root, number: int) -> Path:
    return root.damon / str(number) / "state"


def test_monitors_are_made_and_taken_away(root: Root, ledger: Ledger) -> None:
    plant(root)
    set_up_monitors(root, ledger)
    context = root.damon / "15/contexts/0"
    assert (root.damon / "nr_kdamonds").read_text() == "16\n"
    assert (context / "operations").read_text() == "vaddr\n"
    assert [
        (context / "monitoring_attrs" / path).read_text().strip()
        for path in ("intervals/sample_us", "intervals/aggr_us", "nr_regions/min", "nr_regions/max")
    ] == ["100000", "2000000", "100", "1000"]
    assert state(root, 15).read_text() == "off\n", "the daemon's to start"
    doors = monitor_doors(root)
    assert len(doors) == 2 * MONITORS and all(path.is_file() for path in doors.values())
    state(root, 3).write_text("on\n")
    again = Ledger(ledger.path)  # as after a crash
    assert [result.outcome for result in give_back(again)] == [Outcome.RESTORED]
    assert state(root, 3).read_text() == "off\n" and damon_trouble(root) == ""
    assert not ledger.path.exists()


def test_a_tree_that_somebody_made_since_is_left_alone(root: Root, ledger: Ledger) -> None:
    plant(root)
    set_up_monitors(root, ledger)
    (root.damon / "nr_kdamonds").write_text("1\n")
    state(root, 0).write_text("on\n")
    assert [result.outcome for result in give_back(ledger)] == [Outcome.FOREIGN]
    assert state(root, 0).read_text() == "on\n" and (root.damon / "nr_kdamonds").read_text() == "1\n"
    assert not ledger.records


def test_without_monitors_of_ours_nothing_is_written(root: Root, ledger: Ledger) -> None:
    plant(root, 1)
    (root.damon / "nr_kdamonds").write_text("1\n")
    state(root, 0).write_text("on\n")
    give_back(ledger)
    assert state(root, 0).read_text() == "on\n" and (root.damon / "nr_kdamonds").read_text() == "1\n"


def test_one_monitor_that_does_not_stop_keeps_no_other_running(
    root: Root, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(root)
    set_up_monitors(root, ledger)
    write = damon.write_setting

    def refuse(path: Path, value: str) -> None:
        if path == state(root, 3):
            raise TierdError("it has stopped by itself")
        write(path, value)

    monkeypatch.setattr(damon, "write_setting", refuse)
    for number in (3, 4):
        state(root, number).write_text("on\n")
    give_back(ledger)
    assert state(root, 4).read_text() == "off\n"


def test_in_service_once_a_monitor_has_been_told_of_a_process(root: Root, ledger: Ledger) -> None:
    plant(root)
    target = monitor_doors(root)["damon_target.4"]
    target.write_text("77\n")
    assert not in_service(ledger), "somebody else's"
    target.write_text("0\n")
    set_up_monitors(root, ledger)
    assert not in_service(ledger)
    target.write_text("77\n")
    assert in_service(Ledger(ledger.path))
    (root.damon / "nr_kdamonds").write_text("1\n")
    assert not in_service(ledger), "somebody else's by now"


def test_what_cannot_be_made_raises_and_can_be_given_back(root: Root, ledger: Ledger) -> None:
    plant(root)
    (root.damon / "7/contexts/0/operations").unlink()
    with pytest.raises(GoneError):
        set_up_monitors(root, ledger)
    give_back(ledger)
    assert damon_trouble(root) == ""
