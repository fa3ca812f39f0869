"""Service classes of a policy in order: where they stand, what is odd about them, and the example."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.config.test_hostile_documents import outcome
from tierd.config import classes, shape
from tierd.config.check import check
from tierd.config.edit import with_size
from tierd.config.loader import parse
from tierd.config.users import user_ids
from tierd.core.admission import admit
from tierd.core.assignment import ClassAssigner
from tierd.core.classes import DramBound, DramShare
from tierd.core.policy import GIB, MIB, EngineMode, Policy

CONF = Path(__file__).parents[2] / "conf"

ODD = """\
version: 1
classes:
  - name: gold
    match:
      - unit: gold.slice
      - {user: alice}
      - user: root
    dram: guaranteed
  - name: silver
    match: [{unit: gold.slice}, {user: 0}, {cgroup: "*"}]
  - {name: bronze, match: [{command: a}, {user: alice}]}
"""


@pytest.fixture(autouse=True)
def users(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Who there is, whatever machine this is."""
    there = {"root": 0, "bob": 1001}
    monkeypatch.setattr(classes, "user_ids", lambda names: {n: there[n] for n in set(names) if n in there})
    return there


def read(text: str) -> Policy:
    return parse(text.encode(), "t.yaml")


def test_values_know_where_they_stand() -> None:
    gold, silver, _, rest = read(ODD).classes
    assert (gold.place.line, gold.place.column, gold.place.path) == (3, 5, "classes[0]")
    assert (gold.dram.place.line, gold.dram.place.path) == (8, "classes[0].dram")
    assert [(r.place.line, r.place.column) for r in gold.match] == [(5, 9), (6, 9), (7, 9)]
    assert silver.match[2].place.path == "classes[1].match[2]"
    assert (rest.name, rest.place.line) == ("default", 0)


def test_a_place_is_that_of_the_document_when_default_does_not_stand_last() -> None:
    text = "version: 1\nclasses:\n  - {name: default, priority: 1}\n  - {name: a, match: [{user: 0}]}\n"
    first, rest = read(text).classes
    assert (first.place.path, rest.place.path) == ("classes[1]", "classes[0]")
    assert rest.priority == 1


@pytest.mark.parametrize(
    "glob", ["123456789012345", "[abcdefgh]23456789012345", "*[!]x]*34567890?2345*", "*" * 20, "a/b", "[a"]
)
def test_a_name_of_15_bytes_can_be_matched(glob: str) -> None:
    text = f'version: 1\nclasses:\n  - {{name: a, match: [{{command: "{glob}"}}]}}\n'
    assert read(text).classes[0].match[0].command == glob


def test_what_is_odd_is_told_with_both_places() -> None:
    assert read(ODD).warnings == (
        "t.yaml:6:16: classes[0].match[1].user: warning: there is no user `alice` now; the rule matches"
        " once there is one",
        "t.yaml:10:20: classes[1].match[0].unit: warning: this rule never matches: the same is at line 5,"
        " column 15 (classes[0].match[0]), and the first one decides; remove one of them",
        "t.yaml:10:40: classes[1].match[1].user: warning: this rule never matches: the same is at line 7,"
        " column 15 (classes[0].match[2]), and the first one decides; remove one of them",
        "t.yaml:10:53: classes[1].match[2].cgroup: warning: this rule matches every process, so that none"
        " after it ever does; put it last, or leave the rest to the class default",
        "t.yaml:11:49: classes[2].match[1].user: warning: there is no user `alice` now; the rule matches"
        " once there is one",
        "t.yaml:11:49: classes[2].match[1].user: warning: this rule never matches: the same is at line 6,"
        " column 16 (classes[0].match[1]), and the first one decides; remove one of them",
    )


@pytest.mark.parametrize(
    "rules",
    [
        "[{unit: a.slice}], [{unit: b.slice}]",
        "[{user: bob}, {user: root}], [{user: 7}]",
        '[{cgroup: "*a"}], [{command: "*a"}]',
        '[{unit: a.slice}], [{cgroup: "*"}]',
        '[{command: "*"}]',
    ],
)
def test_what_is_in_order_has_no_warnings(rules: str) -> None:
    entries = yaml.safe_load(f"[{rules}]")
    document = {"version": 1, "classes": [{"name": f"c{i}", "match": m} for i, m in enumerate(entries)]}
    assert read(yaml.safe_dump(document)).warnings == ()


@pytest.mark.parametrize("glob", ['cgroup: "*"', 'cgroup: "/*"', 'command: "*"'])
def test_a_rule_that_leaves_nothing_to_those_after_it(glob: str) -> None:
    first, second = f"{{name: a, match: [{{{glob}}}]}}", "{name: b, match: [{user: 0}]}"
    (warning,) = read(f"version: 1\nclasses:\n  - {first}\n  - {second}\n").warnings
    assert "this rule matches every process" in warning


def test_warnings_keep_no_policy_from_being_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(ODD)
    assert check(path) == 0
    out, err = capsys.readouterr()
    assert out == f"{path}: OK, 6 warnings\n"
    assert len(err.splitlines()) == 6
    assert all(": warning: " in line for line in err.splitlines())


def test_a_bad_policy_is_told_without_warnings() -> None:
    told = outcome(f"{ODD}engine: {{mode: go}}\n".encode())
    assert isinstance(told, tuple)
    assert len(told) == 1


def test_what_is_odd_makes_no_other_policy() -> None:
    shifted = read("# a line more\n" + ODD)
    policy = read(ODD)
    assert shifted.warnings != policy.warnings
    assert shifted.classes == policy.classes


def test_a_size_before_the_classes_can_be_changed() -> None:
    entry = '{name: p, region: {iset_id: "0x1"}, size: 1GiB}'
    text = f"{{version: 1, provision: [{entry}], classes: [{{name: a, match: [{{user: alice}}]}}]}}"
    changed, request = with_size(text.encode(), "p", "all but 64GiB", "t.yaml")
    assert request.all_but == 64 * GIB
    assert read(changed.decode()).classes == read(text).classes


def test_users_who_exist_have_numbers() -> None:
    root = pwd.getpwuid(0).pw_name
    assert user_ids([root, root, "no-such-user-here"]) == {root: 0}
    assert user_ids([]) == {}


def test_a_name_service_that_fails_knows_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(pwd, "getpwnam", fail)
    assert user_ids(["root"]) == {}


def test_the_example_of_a_provider() -> None:
    policy = parse((CONF / "examples/three-classes.yaml").read_bytes(), "three-classes.yaml")
    assert policy.engine.mode is EngineMode.PLACE
    assert policy.warnings == ()
    assert [(c.name, c.dram, c.priority, c.bandwidth) for c in policy.classes] == [
        ("gold", DramShare(guaranteed=True), 0, None),
        ("silver", DramShare(minimum=DramBound(per_cent=30.0)), 10, None),
        ("bronze", DramShare(maximum=DramBound(per_cent=10.0)), 0, 64 * MIB),
        ("default", DramShare(), 0, None),
    ]
    assigner = ClassAssigner(policy.classes)
    for name in ("gold", "silver", "bronze"):
        cgroup = f"/{name}.slice/{name}-customers.slice/machine-qemu\\x2d7.scope/libvirt/emulator"
        assert policy.processes.selects(cgroup)
        assert assigner.find(cgroup, 64055, "qemu-system-x86").service_class.name == name
    assert not policy.processes.selects("/system.slice/ssh.service")
    memory = dict.fromkeys(("gold", "silver", "bronze"), 10 * GIB)
    assert not admit(policy.classes, memory, dram=14 * GIB, floor=GIB).excess
    assert (
        "classes[1].dram: the classes are promised"
        in admit(policy.classes, memory, dram=12 * GIB, floor=GIB).problems("three-classes.yaml")[0]
    )


def test_every_class_policy_needs_no_more_than_the_schema_tells_editors() -> None:
    """The condition on `match` is our own code here, and that of the schema in an editor."""
    editor = Draft202012Validator(shape.schema())
    rule = [{"unit": "a.slice"}]
    good: list[dict[str, Any]] = [
        {"name": "default"},
        {"name": "default", "dram": {"max": "1GiB"}},
        {"name": "a", "match": rule, "dram": "guaranteed"},
        {"name": "a", "match": [{"user": 5}, {"user": "x"}], "dram": {"min": "30%"}, "priority": -1000},
    ]
    bad: list[dict[str, Any]] = [
        {"name": "a"},
        {"match": rule},
        {"name": "a", "match": []},
        {"name": "a", "match": [{}]},
        {"name": "default", "match": rule},
        {"name": "default", "dram": "guaranteed"},
        {"name": "a", "match": rule, "dram": "all"},
        {"name": "a", "match": rule, "dram": {"min": "30"}},
        {"name": "a", "match": rule, "priority": 1001},
    ]
    for entries, accepted in ((good, True), (bad, False)):
        for entry in entries:
            document = {"version": 1, "classes": [entry]}
            assert editor.is_valid(document) is accepted, entry
            assert isinstance(outcome(yaml.safe_dump(document).encode()), Policy) is accepted, entry


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["a", "b", "default", "A", 5, None, ["a"]]),
    "match": st.none()
    | st.lists(
        st.dictionaries(
            st.sampled_from(["unit", "cgroup", "user", "command", "x"]),
            st.sampled_from(["a.slice", "/a/*", "*", "root", "alice", 0, -1, None, True, [], {}]),
            max_size=2,
        ),
        max_size=3,
    ),
    "dram": st.sampled_from(["guaranteed", "30%", 5, None, [], {"guaranteed": 1}])
    | st.dictionaries(
        st.sampled_from(["min", "max", "guaranteed", "x"]),
        st.sampled_from(["10%", "30%", "1GiB", "0B", 5, None, [], {}]),
        max_size=3,
    ),
    "priority": st.sampled_from([0, -1000, 1001, "a", None, True, 1.5]),
    "bandwidth": st.sampled_from(["1MiB/s", "1B/s", 5, None]),
}
ENTRIES = st.fixed_dictionaries({}, optional=VALUES) | st.sampled_from([None, "a", []])


@given(st.lists(ENTRIES, max_size=4))
def test_any_classes_are_a_policy_or_problems(entries: list[Any]) -> None:
    found = outcome(yaml.safe_dump({"version": 1, "classes": entries}).encode())
    if isinstance(found, Policy):
        names = [service_class.name for service_class in found.classes]
        assert names[-1] == "default"
        assert len(set(names)) == len(names)
        assert all(bool(c.match) == (c.name != "default") for c in found.classes)
        assert sorted(names) == sorted({"default", *(entry["name"] for entry in entries)})
