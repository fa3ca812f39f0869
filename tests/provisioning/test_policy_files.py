"""The units that make memory go by the policy of all its files, and by consent in one place."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.config.drop_ins import Tree
from tests.kernel.fixtures.region import SimulatedRegion
from tierd.config.loader import DEFAULT_PATH
from tierd.errors import DeniedError
from tierd.service import convert

UUID = "3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1"
OLD = f"version: 1\nprovision:\n  - {{name: old, namespace: {{uuid: {UUID}}}, consent: {{destroy: ext4}}}}\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path)
    tree.use(monkeypatch)
    tree.write("lib/tierd.yaml", "version: 1\n")
    tree.write("etc/conf.d/50-memory.yaml", OLD)
    return tree


def test_a_request_in_a_drop_in_is_found(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert convert.main(["old"]) == convert.Exit.DENIED
    assert convert.main(["other"]) == convert.Exit.CONFIG
    main = tree.root / "lib/tierd.yaml"
    said = f"{main} and 1 drop-in: no provision request is named other; there is old"
    assert said in capfd.readouterr().err
    bad = tree.write("lib/conf.d/60-bad.yaml", "version: 1\nengine: {mode: fast}\n")
    assert convert.main(["old"]) == convert.Exit.CONFIG
    assert f"{bad}:2:16: engine.mode: " in capfd.readouterr().err


def test_consent_lies_in_etc_whichever_file_asks(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = []

    def wait(*given: object) -> None:
        beside.append(given[4])
        raise DeniedError("enough is known")

    machine = SimulatedRegion(tree.root / "machine").begin()
    monkeypatch.setattr(convert, "Root", lambda: machine.root)
    monkeypatch.setattr(convert.intents, "DEFAULT_PATH", tree.root / "conversions.jsonl")
    monkeypatch.setattr(convert, "_wait", wait)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    draft = tree.write("draft/policy.yaml", OLD)
    assert convert.main(["old", "--plan"]) == convert.main(["old", "--plan", "--policy", str(draft)]) == 77
    assert beside == ["/etc/tierd/tierd.yaml", str(draft)] and str(DEFAULT_PATH) == beside[0]


def test_nobody_goes_by_the_main_file_alone() -> None:
    """A program that did would pass its own tests, and go by another policy than the rest."""
    alone = re.compile(r"\bload(_chosen)?\((\w+\.)*(DEFAULT|POLICY)_PATH")
    assert alone.search("tierd.config.load(tierd.config.DEFAULT_PATH)") and alone.search("load(POLICY_PATH)")
    sources = (Path(__file__).parents[2] / "tierd").rglob("*.py")
    assert [path.name for path in sources if alone.search(path.read_text())] == []
