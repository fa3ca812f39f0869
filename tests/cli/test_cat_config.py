"""`tierctl cat-config`: the whole policy, and where each setting stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.config.drop_ins import Tree
from tierd.cli import main
from tierd.config import load
from tierd.config.loader import parse

MAIN = """\
version: 1
processes:
  include:
    - {cgroup: "*"}
  exclude: [{unit: ssh.service}, {unit: cron.service}]
engine:
  mode: observe
  round: 2s   # slow
classes: []
provision:
  - name: pmem0
    region: {iset_id: "0x9f2c51e3a4b0d678"}
    size: all but 64GiB
"""
SHOWN = """\
# {root}/etc/tierd.yaml
# {root}/lib/tierd.yaml: masked by {root}/etc/tierd.yaml
# {root}/etc/conf.d/10-off.yaml: says nothing
# {root}/lib/conf.d/10-off.yaml: masked by {root}/etc/conf.d/10-off.yaml, which says nothing
# {root}/lib/conf.d/20-gold.yaml
# {root}/run/conf.d/30-place.yaml
# {root}/lib/conf.d/30-place.yaml: masked by {root}/run/conf.d/30-place.yaml

version: 1  # {root}/etc/tierd.yaml:1
processes:  # {root}/etc/tierd.yaml:3
  include:
    - {{cgroup: "*"}}
  exclude:
    - {{unit: ssh.service}}
    - {{unit: cron.service}}
engine:
  mode: place  # {root}/run/conf.d/30-place.yaml:2, replaces {root}/etc/tierd.yaml:7
  round: 2s  # {root}/etc/tierd.yaml:8
classes:  # {root}/lib/conf.d/20-gold.yaml:2, replaces {root}/etc/tierd.yaml:9
  - name: gold
    match:
      - {{unit: gold.slice}}
      - {{user: "batch"}}
    dram:
      min: 10%
      max: 1GiB
provision:  # {root}/etc/tierd.yaml:10
  - name: pmem0
    region:
      iset_id: "0x9f2c51e3a4b0d678"
    size: all but 64GiB
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path)
    tree.use(monkeypatch)
    tree.write("etc/tierd.yaml", MAIN)
    tree.write("lib/tierd.yaml", "version: 1\n")
    tree.write("etc/conf.d/10-off.yaml", "")
    tree.write("lib/conf.d/10-off.yaml", "version: 1\nengine: {round: 9s}\n")
    gold = "{name: gold, match: [{unit: gold.slice}, {user: batch}], dram: {min: 10%, max: 1GiB}}"
    tree.write("lib/conf.d/20-gold.yaml", f"version: 1\nclasses: [{gold}]\n")
    tree.write("run/conf.d/30-place.yaml", "version: 1\nengine: {mode: place}\n")
    tree.write("lib/conf.d/30-place.yaml", "version: 1\nengine: {mode: place, round: 9s}\n")
    return tree


def test_it_shows_files_settings_and_where_they_stand(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["cat-config"]) == 0
    shown = capsys.readouterr().out
    assert shown == SHOWN.format(root=tree.root).replace('"batch"', "batch")
    policy, again = load(None), parse(shown.encode(), "shown")
    assert (again.engine, again.processes, again.requests) == (
        policy.engine,
        policy.processes,
        policy.requests,
    )
    assert again.classes == policy.classes


def test_a_block_that_replaces_another_says_so_for_each_setting(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tree.write("etc/conf.d/40-all.yaml", "version: 1\nengine:\n  mode: observe\n  round: 3s\n")
    assert main.main(["cat-config"]) == 0
    shown = capsys.readouterr().out
    place = tree.root / "run/conf.d/30-place.yaml"
    assert f"\n  mode: observe  # {path}:3, replaces {place}:2, {tree.root}/etc/tierd.yaml:7\n" in shown
    assert f"\n  round: 3s  # {path}:4, replaces {tree.root}/etc/tierd.yaml:8\n" in shown


def test_programs_get_the_same(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["cat-config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.replace(f"{tree.root}/", ""))
    assert shown["policy"]["engine"] == {"mode": "place", "round": "2s"}
    assert shown["origins"]["engine.mode"] == {
        "file": "run/conf.d/30-place.yaml",
        "line": 2,
        "column": 10,
        "replaces": [{"file": "etc/tierd.yaml", "line": 7, "column": 3}],
    }
    assert shown["files"][:4] == [
        {"path": "etc/tierd.yaml", "role": "main"},
        {"path": "lib/tierd.yaml", "role": "masked", "masked_by": "etc/tierd.yaml"},
        {"path": "etc/conf.d/10-off.yaml", "role": "empty"},
        {"path": "lib/conf.d/10-off.yaml", "role": "masked", "masked_by": "etc/conf.d/10-off.yaml"},
    ]
    assert shown["digest"] == load(None).digest


def test_a_bad_policy_is_told_and_not_shown(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tree.write("run/conf.d/30-place.yaml", "version: 1\nengine: {mode: fast}\n")
    assert main.main(["cat-config"]) == 78
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"{bad}:2:16: engine.mode: ")


def test_a_file_name_cannot_write_lines_of_its_own(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.write("etc/conf.d/x\nprovision: []\x1b.yaml", "version: 1\nengine: {cooldown: 9s}\n")
    assert main.main(["cat-config"]) == 0
    shown = capsys.readouterr().out
    assert "x\\nprovision: []\\x1b.yaml" in shown and "\x1b" not in shown
    assert parse(shown.encode(), "shown").engine.cooldown == 9
