"""The lines for journalctl of tierd(8), MONITORING, find what they are said to find."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.service.test_bus_manual import plain
from tests.service.test_files import EVENT_TYPES, ROOT, fields_in_source
from tierd.service.events import Event, Priority
from tierd.service.journal import entry

PAGE = ROOT / "man/tierd.8"
KINDS = {kind.name: kind for kind in EVENT_TYPES}
WRITER = shutil.which("systemd-journal-remote", path=f"{os.environ['PATH']}:/usr/lib/systemd:/lib/systemd")
TREATED = {"TIERD_EVENT", "TIERD_REPEATED"}
"""Fields that tierd.service.journal adds."""


def section(text: str | None = None) -> str:
    text = PAGE.read_text() if text is None else text
    return text.split("\n.SH MONITORING\n")[1].split("\n.SH ")[0] + "\n"


def lines(text: str | None = None) -> list[list[str]]:
    """The words of each line for journalctl."""
    blocks = re.findall(r"^\.EX\n(.*?)^\.EE\n", section(text), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in plain(block).splitlines()]


def matches(words: list[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (word.partition("=") for word in words) if name.isupper()]


def names(words: list[str]) -> set[str]:
    """The fields that a line asks for, or prints."""
    printed = [word.partition("=")[2].split(",") for word in words if word.startswith("--output-fields=")]
    return {name for name, _ in matches(words)} | {name for found in printed for name in found}


def faults(text: str) -> list[str]:
    """What the lines name that is not there."""
    known = fields_in_source() | {"MESSAGE_ID"}
    found = [f"field {name}" for words in lines(text) for name in sorted(names(words) - known)]
    for words in lines(text):
        assert words[0] == "journalctl"
        found += [f"kind {v}" for name, v in matches(words) if name == "TIERD_EVENT" and v not in KINDS]
    return found


def test_the_lines_name_kinds_and_fields_that_there_are() -> None:
    assert len(lines()) >= 15
    assert faults(PAGE.read_text()) == []
    assert TREATED <= fields_in_source()
    text = section()
    assert re.search(rf"MESSAGE_ID={KINDS['promise-broken'].message_id}\b", text)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("TIERD_EVENT=holding", "TIERD_EVENT=hold", "kind hold"),
        ("TIERD_CLASS=gold", "TIERD_KLASS=gold", "field TIERD_KLASS"),
        ("=TIERD_PROBLEMS", "=TIERD_PROBLEM", "field TIERD_PROBLEM"),
    ],
)
def test_a_line_that_finds_nothing_is_seen(old: str, new: str, fault: str) -> None:
    assert faults(PAGE.read_text().replace(old, new)) == [fault]


def test_the_table_has_all_that_somebody_should_look_at() -> None:
    rows = re.findall(r"^([a-z-]+) +([0-9a-f]{32})  (\w+)$", plain(section()), re.MULTILINE)
    expected = [kind for kind in EVENT_TYPES if kind.priority <= Priority.WARNING]
    words = {Priority.CRITICAL: "crit", Priority.ERROR: "err", Priority.WARNING: "warning"}
    assert sorted(rows) == sorted((kind.name, kind.message_id, words[kind.priority]) for kind in expected)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with an entry of each kind, as tierd writes it, and one of a stranger."""
    path = tmp_path_factory.mktemp("journal") / "x.journal"
    every = {name: "1" for name in fields_in_source() if name not in TREATED}
    fields = {**every, "TIERD_CLASS": "gold", "TIERD_REQUEST": "pmem0"}
    entries = [entry(Event(kind, "it happened", fields=fields)) for kind in EVENT_TYPES]
    entries.append({**entries[0], "SYSLOG_IDENTIFIER": "stranger", "PRIORITY": "2"})
    now = int(time.time() * 1e6)
    export = "\n".join(
        "".join(
            f"{name}={value}\n"
            for name, value in {"__REALTIME_TIMESTAMP": str(now + number), **found}.items()
        )
        for number, found in enumerate(entries)
    )
    command = [str(WRITER), "--split-mode=none", f"--output={path}", "-"]
    done = subprocess.run(command, input=export + "\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def expected(words: list[str]) -> set[str]:
    """The kinds that a line should find: by priority, and by its matches, where several values of a field
    are alternatives."""
    found = set(KINDS)
    if "-p" in words:
        level = Priority[words[words.index("-p") + 1].upper()]
        found &= {kind.name for kind in EVENT_TYPES if kind.priority <= level}
    if asked := {value for name, value in matches(words) if name == "TIERD_EVENT"}:
        found &= asked
    return found


@pytest.mark.skipif(
    WRITER is None, reason="systemd-journal-remote is not installed: nothing writes a journal"
)
@pytest.mark.skipif(shutil.which("journalctl") is None, reason="journalctl is not installed")
@pytest.mark.parametrize("words", lines(), ids=" ".join)
def test_journalctl_finds_just_that(words: list[str], journal: Path) -> None:
    given = [word for word in words if word != "-f"]
    command = [given[0], "--file", str(journal), "--no-pager", "-q", *given[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shown = names(words) - {name for name, _ in matches(words)}
    if shown:
        assert all(shown <= set(json.loads(row)) for row in done.stdout.splitlines())
    else:
        assert "it happened" in done.stdout
    again = subprocess.run(
        [*command, "-o", "json", "--output-fields=TIERD_EVENT"], capture_output=True, text=True, check=True
    )
    rows = [json.loads(row) for row in again.stdout.splitlines()]
    assert sorted(row["TIERD_EVENT"] for row in rows) == sorted(expected(words))
