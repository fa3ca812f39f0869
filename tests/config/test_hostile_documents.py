"""Whatever the bytes: a policy or a ConfigError, soon, and never anything else."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tierd.config import source
from tierd.config.loader import parse
from tierd.core.policy import Policy
from tierd.errors import ConfigError


def outcome(content: bytes) -> Policy | tuple[str, ...]:
    """The policy or the problems, each of them one printable line with a place."""
    try:
        return parse(content, "t.yaml")
    except ConfigError as error:
        assert error.problems
        for line in error.problems:
            assert line.isprintable()
            assert line.startswith("t.yaml:")
            assert len(line) < 2000
        return error.problems


WORDS = """\
version: 1|engine:|processes:|provision:|  mode: place|  include:|    - |- |? |: |{|}|[|]|,|"|'|\\|\\U|\\x|&a
*a|!!|!|!<|%|%YAML 1.1|%TAG ! a|---|...|#|>|>2|-|010|1:2|0x|.nan|~|=|<<|é|😀|@|`|\\ud800
12345678901234567890123|iset_id: |region: |name: a|size: all|unit: |cgroup: |2001-01-01| |  |classes:
match: |user: |dram: """
FRAGMENTS = st.sampled_from(
    [*WORDS.replace("\n", "|").split("|"), "\n", "\n  ", "\r\n", "\r", "\t", "\0", "|", "|-"]
)


@settings(max_examples=400, deadline=2000)
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"\xff\xfe")
@example(b"%YAML 1." + b"9" * 5000)
@example(b'"\\UFFFFFFFF"')
@example(b"!%ff%fe a")
@example(b"!<%> a")
@example(b"[" * 3000)
@example(b"- " * 3000)
@example(b"? " * 3000)
@example(b"a: " + b"9" * 10000)
def test_any_bytes(content: bytes) -> None:
    outcome(content)


@settings(max_examples=400, deadline=2000)
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    outcome(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=800, deadline=2000)
@given(st.lists(FRAGMENTS, max_size=40))
def test_any_pieces_of_yaml(pieces: list[str]) -> None:
    outcome("".join(pieces).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
KEYS = [
    "include",
    "exclude",
    "unit",
    "cgroup",
    "mode",
    "round",
    "bandwidth",
    "name",
    "region",
    "iset_id",
    "size",
    "match",
    "user",
    "command",
    "dram",
    "min",
    "max",
    "priority",
]


def shaped(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)


@settings(max_examples=600, deadline=2000)
@given(
    st.fixed_dictionaries(
        {"version": st.just(1)},
        optional={
            key: st.recursive(JSON, shaped, max_leaves=10)
            for key in ("processes", "engine", "classes", "provision")
        },
    )
)
def test_any_value_under_known_keys(data: dict[str, object]) -> None:
    import yaml

    outcome(yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass"))
    outcome(yaml.safe_dump(data, default_flow_style=True).encode())


FULL = source.MAXIMUM_SIZE

LONGEST = 2.0
"""Seconds of the processor. The promise is 0.5; what is looked for is work that grows faster than the
document, which takes minutes, and a test machine may be three times as slow as a server."""
HEAVY = {
    "keys": "".join(f"k{i}: 1\n" for i in range(40000)),
    "lists-in-lists": "[" * FULL,
    "mappings-in-mappings": "{a: " * (FULL // 4),
    "entries-in-entries": "- " * (FULL // 2),
    "long-list": "a: [" + "1," * (FULL // 2 - 10) + "]",
    "comment": "#" * FULL,
    "comments": "# a\n" * (FULL // 4),
    "word": "a" * FULL,
    "words": "a: " + "b " * (FULL // 2 - 5),
    "empty-lines": "\n" * FULL,
    "block": "a: |\n" + " b\n" * (FULL // 3 - 3),
    "number": "a: " + "1" * (FULL - 5),
    "base-60": "a: " + "1:1" * (FULL // 3 - 5),
    "colons": ":" * FULL,
    "anchors": "&a " * (FULL // 3),
    "aliases": "a: &a [1]\nb: [" + "*a," * (FULL // 3 - 20) + "]",
    "laughs": "a: &a [x,x]\n" + "".join(f"b{i}: &b{i} [*a,*a,*a,*a,*a,*a,*a,*a]\n" for i in range(50)),
    "control": "\x01" * FULL,
    "requests": "version: 1\nprovision: [" + "{size: all, region: {iset_id: 5}}," * 7000 + "]",
    "classes": "version: 1\nclasses: ["
    + "{name: A, match: [{user: -1}], dram: {min: 2%, max: 1%}}," * 4000
    + "]",
    "rules": "version: 1\nprocesses: {include: [" + "{unti: a}," * 900 + "]}",
    "long-keys": ("x" * 1000 + ": 1\n") * 260,
}


@pytest.mark.parametrize("name", HEAVY)
def test_the_heaviest_documents_are_refused_soon(name: str) -> None:
    outcome(b"version: 1")  # imports
    content = HEAVY[name].encode()[:FULL]
    # Processor time: the promise is about the work, and others may be using the machine.
    start = time.process_time()
    result = outcome(content)
    assert time.process_time() - start < LONGEST
    assert not isinstance(result, Policy)


def test_the_largest_useful_policy_loads_soon() -> None:
    rules = ",".join(f'{{cgroup: "/system.slice/service-{i}*"}}' for i in range(256))
    requests = "".join(f"  - {{name: p{i}, region: {{iset_id: {i + 1}}}, size: all}}\n" for i in range(64))
    classes = "".join(
        f"  - {{name: c{i}, match: [{{user: u{i}}}, {{unit: u{i}.slice}}]}}\n" for i in range(64)
    )
    processes = f"processes: {{include: [{rules}], exclude: [{rules}]}}\n"
    text = f"version: 1\n{processes}classes:\n{classes}provision:\n{requests}"
    start = time.process_time()
    policy = outcome(text.encode())
    assert time.process_time() - start < LONGEST
    assert isinstance(policy, Policy)
    assert len(policy.processes.exclude) == 256
    assert len(policy.provision) == 64
    assert len(policy.classes) == 65
