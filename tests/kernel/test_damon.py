"""DAMON: who uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.fixtures import fail_reading
from tierd.kernel.damon import MODULES, damon_trouble
from tierd.kernel.paths import Root


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
