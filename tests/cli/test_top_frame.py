"""A frame of `tierctl top` as text: wide, narrow, low, without colour, without Unicode, without a daemon."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.cli.render import Style
from tierd.cli.top_frame import Sight, Size, bar, footer, frame

GIB = 1 << 30
TIERS = [
    {"name": "memory_tier4", "kind": "dram", "nodes": [0]}
    | {"total_bytes": 2 * GIB, "free_bytes": GIB // 2, "used_bytes": 3 * GIB // 2},
    {"name": "memory_tier56", "kind": "slow", "nodes": [1]}
    | {"total_bytes": 4 * GIB, "free_bytes": 3 * GIB, "used_bytes": GIB},
]
CLASSES = [
    {"name": "gold", "promise": "guaranteed", "dram_bytes": GIB, "slow_bytes": 8192}
    | {"least_bytes": 2 * GIB, "most_bytes": 2 * GIB, "broken": "class gold lacks 1.0 GiB"},
    {"name": "silver", "promise": "min 10%", "dram_bytes": GIB, "slow_bytes": 0}
    | {"least_bytes": GIB, "most_bytes": GIB, "broken": ""},
    {"name": "default", "promise": "", "dram_bytes": GIB, "slow_bytes": GIB}
    | {"least_bytes": 0, "most_bytes": GIB, "broken": ""},
]
STEP = {
    "action": "promote",
    "subject": "/system.slice/db.service",
    "pages": 1024,
    "source_node": 1,
    "target_node": 0,
    "reason": "hot: 12 accesses a second",
}
FACTS: dict[str, Any] = {
    "version": "0.1.0",
    "state": "converging",
    "reason": "",
    "source": "hint-faults",
    "source_reason": "page-exact",
    "hosted_processes": 3,
    "hosted_cgroups": 2,
    "placed_dram_bytes": GIB,
    "placed_slow_bytes": GIB,
    "bytes_per_second": 12e6,
    "counters": {"promoted_pages": 105472, "demoted_pages": 512, "refused_pages": 1},
    "tiers": TIERS,
    "classes": CLASSES,
}
NOW = Sight(FACTS, [STEP] * 6, 12.0, "14:03:12")
BEFORE = replace(NOW, facts={**FACTS, "counters": {"promoted_pages": 105472 - 4096}}, at=10.0)
UNICODE = Style(unicode=True)
KEYS = footer(1.0, paused=False)


def test_80_columns_and_20_lines() -> None:
    plain = replace(NOW, facts={**FACTS, "classes": CLASSES[:2]})
    assert frame(plain, BEFORE, Size(80, 20), UNICODE, KEYS) == [
        "● tierd 0.1.0: converging                                               14:03:12",
        "   Source: hint-faults",
        "  Placing: 3 processes in 2 cgroups: 1.0 GiB in DRAM, 1.0 GiB in slow memory ...",
        "   Moving: 11 MiB/s; since the last look up 8.0 MiB/s, down 1.0 MiB/s",
        "    Moved: 412 MiB promoted, 2.0 MiB demoted, 4.0 KiB refused",
        "",
        "TIER           KIND                              USE%     USED     FREE    TOTAL",
        "memory_tier4   dram  [██████████████████      ]   75%  1.5 GiB  512 MiB  2.0 GiB",
        "memory_tier56  slow  [██████                  ]   25%  1.0 GiB  3.0 GiB  4.0 GiB",
        "",
        "CLASS   PROMISE     KEPT     DRAM     SLOW  DRAM%    LEAST     MOST",
        "gold    guaranteed  no    1.0 GiB  8.0 KiB   100%  2.0 GiB  2.0 GiB",
        "silver  min 10%     yes   1.0 GiB      0 B   100%  1.0 GiB  1.0 GiB",
        "",
        "Plan: 6 steps: promote 24 MiB",
        "promote 4.0 MiB, node 1 to node 0, /system.slice/db.service",
        "    because hot: 12 accesses a second",
        "  and 5 more",
        "",
        "q quits  space pauses  +/- every 1 s",
    ]


def test_200_columns_have_room_for_reasons_and_whole_sentences() -> None:
    lines = frame(NOW, BEFORE, Size(200, 40), UNICODE, KEYS)
    assert len(lines) == 40 and len(lines[0]) == 200
    assert lines[2].endswith("1.0 GiB in slow memory (50% in DRAM)")
    assert lines[7] == (f"memory_tier4   dram  [{'█' * 73}▌{' ' * 24}]   75%  1.5 GiB  512 MiB  2.0 GiB")
    step = "promote 4.0 MiB, node 1 to node 0, /system.slice/db.service  because hot: 12 accesses a second"
    assert lines.count(step) == 6
    assert "default  -           -     1.0 GiB  1.0 GiB    50%      0 B  1.0 GiB" in lines
    assert not any("more" in line for line in lines)


def test_what_does_not_fit_is_counted() -> None:
    many = [{**CLASSES[2], "name": f"class{number}"} for number in range(12)]
    lines = frame(replace(NOW, facts={**FACTS, "classes": many}), None, Size(80, 24), UNICODE, KEYS)
    assert len(lines) == 24
    shown = sum(line.startswith("class") for line in lines)
    assert f"  and {12 - shown} more" in lines and shown == 6
    assert "Plan: 6 steps: promote 24 MiB" in lines and "  and 5 more" in lines


@given(st.integers(0, 230), st.integers(0, 60), st.booleans(), st.booleans())
def test_a_frame_fits_its_terminal(columns: int, rows: int, unicode: bool, answered: bool) -> None:
    sight = replace(NOW, state="" if answered else "no answer", problem="" if answered else "x" * 300)
    lines = frame(sight, BEFORE, Size(columns, rows), Style(unicode=unicode), KEYS)
    assert len(lines) <= rows and all(len(line) <= columns for line in lines)


@pytest.mark.parametrize("rows", [3, 10, 24])
def test_the_keys_stand_on_the_last_row(rows: int) -> None:
    lines = frame(NOW, None, Size(80, rows), UNICODE, KEYS)
    assert len(lines) == rows and lines[-1] == KEYS
    assert footer(0.5, paused=True) == "q quits  paused: space goes on  +/- every 0.5 s"


def test_all_of_it_is_printed_where_nothing_is_cut() -> None:
    lines = frame(NOW, None, Size(80, None), UNICODE)
    assert lines.count("    because hot: 12 accesses a second") == 6
    assert "           (50% in DRAM)" in lines and lines[-1] == "    because hot: 12 accesses a second"


def test_colour_takes_no_room() -> None:
    coloured = frame(NOW, BEFORE, Size(80, 20), Style(unicode=True, colour=True), KEYS)
    plain = frame(NOW, BEFORE, Size(80, 20), UNICODE, KEYS)
    assert [re.sub("\x1b\\[[0-9]*m", "", line) for line in coloured] == plain
    assert coloured[0].startswith("\x1b[32m●\x1b[0m tierd 0.1.0: \x1b[32mconverging\x1b[0m")
    (gold,) = [line for line in coloured if "gold" in line]
    assert gold.startswith("\x1b[33m"), "a promise that is not kept is yellow"
    assert not any("\x1b" in line for line in plain)


def test_wide_characters_count_twice_and_marks_not_at_all() -> None:
    step = {**STEP, "subject": "/数据库" + "e\u0301" * 20, "reason": ""}
    (line,) = [x for x in frame(replace(NOW, plan=[step]), None, Size(45, 30), UNICODE) if "数据" in x]
    assert line == "promote 4.0 MiB, node 1 to node 0, /数据库e\u0301e\u0301e\u0301"


def test_only_ascii_where_nothing_else_is_shown() -> None:
    step = {**STEP, "subject": "/überall"}
    lines = frame(replace(NOW, plan=[step], hint="wähle"), None, Size(100, 30), Style(), KEYS)
    assert all(line.isascii() for line in lines)
    assert any("/\\xfcberall  because" in line for line in lines)
    assert lines[0].startswith("* tierd") and "[###" in lines[7] and "---]" in lines[7]


def test_foreign_text_moves_no_cursor() -> None:
    nasty = "evil\x1b[2J\n"
    facts = {**FACTS, "state": nasty, "reason": nasty, "version": nasty, "source": nasty}
    facts |= {"tiers": [{**TIERS[0], "name": nasty}], "classes": [{**CLASSES[0], "name": nasty}]}
    sight = replace(NOW, facts=facts, plan=[{**STEP, "subject": nasty, "reason": nasty, "action": nasty}])
    for shown in (sight, replace(sight, state="no answer", problem=nasty, hint=nasty)):
        text = "".join(frame(shown, None, Size(200, 40), UNICODE))
        assert "\x1b" not in text and "\n" not in text and "evil\\x1b[2J\\n" in text


@pytest.mark.parametrize(
    ("before", "rates"),
    [
        (None, ""),
        (BEFORE, "; since the last look up 8.0 MiB/s, down 1.0 MiB/s"),
        (replace(BEFORE, at=12.0), ""),
        (replace(BEFORE, facts={"counters": {"promoted_pages": 10**9}}), ""),
    ],
    ids=["first", "next", "at once", "started again"],
)
def test_rates(before: Sight | None, rates: str) -> None:
    assert f"   Moving: 11 MiB/s{rates}" in frame(NOW, before, Size(80, 20), UNICODE)


def test_a_daemon_that_is_gone() -> None:
    down = Sight(state="not running", hint="systemctl start tierd")
    assert frame(down, None, Size(80, 24), UNICODE) == [
        "● tierd: not running",
        "      Try: systemctl start tierd",
    ]
    gone = replace(NOW, state="no answer", problem="tierd did not answer in time")
    lines = frame(gone, BEFORE, Size(80, 24), UNICODE)
    assert lines[:3] == [
        "● tierd: no answer",
        "   Reason: tierd did not answer in time",
        "    As of: 14:03:12, when it last answered",
    ]
    assert any("memory_tier56" in line for line in lines), "what was seen last is still shown"
    assert not any("Moving" in line for line in lines), "and nothing moves as far as anybody knows"


def test_a_machine_without_tiers_or_a_plan() -> None:
    lines = frame(Sight({"state": "starting"}), None, Size(80, 24), UNICODE)
    assert "no memory tiers known yet" in lines and "Plan: nothing to do" in lines


@pytest.mark.parametrize(
    ("part", "unicode", "drawn"),
    [
        (0, True, "[        ]"),
        (1, True, "[▏       ]"),
        (7, True, "[▉       ]"),
        (8, True, "[█       ]"),
        (64, True, "[████████]"),
        (99, True, "[████████]"),
        (33, False, "[####----]"),
    ],
)
def test_bars(part: int, unicode: bool, drawn: str) -> None:
    assert bar(part, 64, 10, Style(unicode=unicode)) == drawn
    assert bar(part, 0, 10, Style(unicode=True)) == "[        ]"
