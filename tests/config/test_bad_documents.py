"""How the problems of a policy are told: all of them, in order, at their place, on one line each."""

from __future__ import annotations

import pytest

from tests.config.wrong import problems
from tierd.config.loader import parse
from tierd.errors import ConfigError


def test_all_problems_at_once_in_the_order_of_the_text() -> None:
    told = problems(
        "version: 3\n"
        "provision:\n  - {name: a, region: region0, size: 5}\n"
        "engine:\n  round: 010\n  rond: 1s\n  mode: place\n  mode: place\n"
        "processes:\n  include: [{unit: a}]\n"
    )
    assert [line.split(": ")[0] for line in told] == [
        "t.yaml:1:10",
        "t.yaml:3:23",
        "t.yaml:3:38",
        "t.yaml:5:10",
        "t.yaml:6:3",
        "t.yaml:8:3",
        "t.yaml:10:20",
    ]


def test_columns_count_characters_not_bytes() -> None:
    assert problems('version: 1\nengine: {"ä": 1, mode: on}\n')[1].startswith("t.yaml:2:24: ")


def test_windows_line_ends_count_once() -> None:
    assert problems("version: 1\r\nengine:\r\n  mode: on\r\n")[0].startswith("t.yaml:3:9: engine.mode: ")


def test_bytes_that_are_not_utf8_have_a_place() -> None:
    assert problems(b"version: 1\n# caf\xe9\n") == [
        "t.yaml:2:6: top level: the byte 0xe9 is not UTF-8; save the file as UTF-8"
    ]
    assert problems("version: 1\n".encode("utf-16")) == [
        "t.yaml:1:1: top level: the file is UTF-16; save it as UTF-8"
    ]


def test_every_control_character_is_told() -> None:
    assert [line[:11] for line in problems("a: \x01\nb: \x7f\n")] == ["t.yaml:1:4:", "t.yaml:2:4:"]


def test_more_problems_than_anybody_reads_are_cut() -> None:
    told = problems("version: 1\n" + "".join(f"key{i}: 1\n" for i in range(150)))
    assert len(told) == 101
    assert told[99].startswith("t.yaml:101:1: key99: ")
    assert told[100] == "t.yaml: more than 100 problems; the rest is not shown"


def test_hostile_names_stay_on_their_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(b'version: 1\n"\\e[31m\\n": 1\n', "a\nb.yaml")
    assert caught.value.problems[0].startswith("a\\nb.yaml:2:1: \\x1b[31m\\n: there is no such key")
