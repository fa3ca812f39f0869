"""What tierctl prints, from values."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.cli import render
from tierd.cli.main import _with_command
from tierd.cli.render import Style
from tierd.cli.terminal import style_for

PLAIN = Style()
FACTS = {
    "version": "0.1.0",
    "state": "holding",
    "reason": "memory pressure is 61 % of the time, the limit is 40 %",
    "source": "hint-faults",
    "source_reason": "page-exact",
    "policy_origin": "/etc/tierd/tierd.yaml",
    "policy_digest": "0123456789abcdef" * 4,
    "config_state": "current",
    "hosted_processes": 1,
    "hosted_cgroups": 1,
    "placed_dram_bytes": 3 << 30,
    "placed_slow_bytes": 1 << 30,
    "counters": {
        "promoted_pages": 256,
        "demoted_pages": 512,
        "refused_pages": 1,
        "deferred_pages": 0,
        "huge_pages_split": 472,
        "huge_pages_rebuilt": 1,
        "samples": 1000,
        "samples_lost": 7,
    },
    "tiers": [],
    "missing": [],
}


def test_a_held_daemon_says_why() -> None:
    assert render.status(FACTS, PLAIN) == (
        "* tierd 0.1.0: holding\n"
        "   Reason: memory pressure is 61 % of the time, the limit is 40 %\n"
        "  Placing: 1 process in 1 cgroup: 3.0 GiB in DRAM, 1.0 GiB in slow memory (75%\n"
        "           in DRAM)\n"
        "   Source: hint-faults (page-exact)\n"
        "    Moved: 1.0 MiB promoted, 2.0 MiB demoted, 4.0 KiB refused, 472 huge pages\n"
        "           split, 1 huge page rebuilt, 7 of 1000 samples lost\n"
        "   Policy: /etc/tierd/tierd.yaml (0123456789ab)\n"
        "\n"
        "no memory tiers known yet"
    )


def test_unknown_facts_and_none_at_all_are_shown_as_far_as_they_go() -> None:
    assert render.status({}, PLAIN).startswith("* tierd: unknown\n  Placing: no process\n   Source: none\n")
    assert "future" in render.status({**FACTS, "state": "future", "more": 1}, PLAIN)


@pytest.mark.parametrize(
    ("state", "colour"), [("steady", "32"), ("holding", "33"), ("degraded", "33"), ("starting", "33")]
)
def test_colour_says_whether_all_is_well(state: str, colour: str) -> None:
    first = render.status({**FACTS, "state": state}, Style(colour=True, unicode=True)).splitlines()[0]
    assert first == f"\x1b[{colour}m●\x1b[0m tierd 0.1.0: \x1b[{colour}m{state}\x1b[0m"


def test_colour_changes_no_letter() -> None:
    coloured = render.status(FACTS, Style(colour=True))
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == render.status(FACTS, PLAIN)


def test_missing_features_are_wrapped_as_a_list() -> None:
    text = render.status(
        {**FACTS, "missing": ["debugfs (closed by kernel lockdown): " + "word " * 20]}, PLAIN
    )
    *_, legend, first, second = text.splitlines()
    assert legend == "Missing:" and first.startswith("  - debugfs") and second.startswith("    word")


def test_offline_on_a_machine_without_slow_memory() -> None:
    dram = {
        "name": "memory_tier4",
        "kind": "dram",
        "nodes": [0],
        "total_bytes": 1 << 30,
        "used_bytes": 1 << 29,
    }
    assert render.offline([dram], PLAIN).splitlines()[-1] == (
        "No slow memory is online: nothing to place. See tierctl provision plan."
    )
    slow = {**dram, "name": "memory_tier22", "kind": "slow", "nodes": [1]}
    assert "No slow memory" not in render.offline([dram, slow], PLAIN)


def test_offline_without_numa() -> None:
    assert render.offline([], PLAIN) == (
        "no memory tiers: this kernel shows no NUMA nodes, so there is nothing for tierd to place"
    )


def test_an_empty_plan() -> None:
    assert render.plan([], PLAIN).startswith("Nothing to do")


def test_a_plan_sums_by_action() -> None:
    steps = [
        {
            "action": "demote",
            "subject": "/a",
            "pages": 256,
            "source_node": 0,
            "target_node": 1,
            "reason": "old",
        },
        {
            "action": "promote",
            "subject": "/a",
            "pages": 256,
            "source_node": 1,
            "target_node": 0,
            "reason": "hot",
        },
        {
            "action": "demote",
            "subject": "/b",
            "pages": 256,
            "source_node": 0,
            "target_node": 1,
            "reason": "old",
        },
        {"action": "hold", "subject": "/c", "pages": 0, "reason": "pressure"},
    ]
    lines = render.plan(steps, PLAIN).splitlines()
    assert lines[0] == "demote 1.0 MiB, node 0 to node 1, /a"
    assert lines[6:8] == ["hold /c", "    because pressure"]
    assert lines[-1] == "4 steps: demote 2.0 MiB, promote 1.0 MiB"


def test_names_from_the_bus_become_json_names_at_every_depth() -> None:
    assert render.plain(
        {"PlacedDramBytes": 1, "Tiers": [{"ReadLatencyNanoseconds": 80}], "State": "idle"}
    ) == {
        "placed_dram_bytes": 1,
        "tiers": [{"read_latency_nanoseconds": 80}],
        "state": "idle",
    }


@given(st.text())
def test_nothing_from_elsewhere_reaches_the_terminal_raw(text: str) -> None:
    facts = {**FACTS, "reason": text, "source": text, "missing": [text], "config_problems": [text]}
    assert all(line.isprintable() for line in render.status(facts, PLAIN).split("\n"))


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_prose_keeps_within_eighty_columns(text: str) -> None:
    words = " ".join(word[:40] for word in text.split())
    lines = render.status({**FACTS, "reason": words, "missing": [words]}, PLAIN).split("\n")
    assert max(map(len, lines)) <= 80


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_colour_only_on_a_terminal_that_wants_it() -> None:
    terminal = Terminal(io.BytesIO(), encoding="utf-8")
    assert style_for(terminal, {"TERM": "xterm"}).colour
    assert style_for(terminal, {"NO_COLOR": ""}).colour
    assert not style_for(terminal, {"NO_COLOR": "1"}).colour
    assert not style_for(terminal, {"TERM": "dumb"}).colour
    assert not style_for(io.TextIOWrapper(io.BytesIO(), encoding="ascii"), {}).colour


def test_beyond_ascii_only_where_stream_and_locale_have_it() -> None:
    utf8, ascii = Terminal(io.BytesIO(), encoding="utf-8"), Terminal(io.BytesIO(), encoding="ascii")
    assert style_for(utf8, {"LANG": "en_GB.UTF-8"}).unicode
    assert not style_for(ascii, {"LANG": "en_GB.UTF-8"}).unicode
    # Python writes UTF-8 in the locale C, too (PEP 538), and the terminal does not
    assert not style_for(utf8, {"LANG": "C", "LC_CTYPE": "C.UTF-8"}).unicode


@pytest.mark.parametrize(
    ("given_arguments", "meant"),
    [
        ([], ["status"]),
        (["--json"], ["status", "--json"]),
        (["plan"], ["plan"]),
        (["--version"], ["--version"]),
        (["-h"], ["-h"]),
    ],
)
def test_status_is_what_is_meant_without_a_command(given_arguments: list[str], meant: list[str]) -> None:
    assert _with_command(given_arguments) == meant
