"""`tierctl history`: entries from a real journal and a stand-in, as tables and JSON."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_tierctl import tierctl
from tests.service.test_files import EVENT_TYPES
from tierd.cli import history, journal_entries
from tierd.cli.journal_entries import DeniedJournalError, Entry, newest, open_journal
from tierd.cli.main import main
from tierd.cli.render import Style

RECORDED = Path(__file__).with_name("journal")
"""Written by journald of systemd 252: seven messages of root, and one of user 1000 as tierd's."""

NOON = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    for packed in RECORDED.glob("*.xz"):
        (tmp_path / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
    return tmp_path


def read(directory: Path) -> Any:
    from systemd import journal

    return journal.Reader(path=str(directory), converters=journal_entries.CONVERTERS)


def test_a_real_journal_is_read(recorded: Path) -> None:
    found, older = newest(read(recorded), most=None)
    assert [(entry.event, entry.message, entry.priority) for entry in found] == [
        ("started", "tierd 0.1.0 started", 6),
        ("state-changed", "converging (was starting): looking", 6),
        ("moved", "promoted 412 MiB, demoted 0 B in 30 s", 6),
        ("policy-rejected", "policy refused", 3),
        ("promise-broken", "class \\xff lacks 512 MiB", 4),
    ]
    assert not older
    assert found[2].fields == {
        "TIERD_EVENT": "moved",
        "TIERD_PROMOTED_PAGES": "105472",
        "TIERD_DEMOTED_PAGES": "0",
    }
    assert found[3].fields["TIERD_PROBLEMS"] == "tierd.yaml:3:1: engin: unknown key\ntierd.yaml:4:1: x"
    assert found[4].fields["TIERD_CLASS"] == "gold\\xff", "bytes that are no text"
    assert found[0].time.astimezone(UTC) == datetime(2026, 11, 30, 13, 49, 31, 51348, tzinfo=UTC)


def test_the_newest_of_a_real_journal(recorded: Path) -> None:
    found, older = newest(read(recorded), most=2)
    assert [entry.event for entry in found] == ["policy-rejected", "promise-broken"] and older
    assert newest(read(recorded), most=5)[1] is False, "there is no sixth"
    since = found[0].time
    later, older = newest(read(recorded), most=5, since=since)
    assert later == found and not older
    assert len(newest(read(recorded), most=5, since=since + timedelta(microseconds=1))[0]) == 1


def test_events_of_a_real_journal(recorded: Path) -> None:
    found, _ = newest(read(recorded), most=None, events=("moved", "started"))
    assert [entry.event for entry in found] == ["started", "moved"]
    with_user = newest(read(recorded), most=None, events=("moved",), users=(0, 1000))[0]
    assert [entry.message for entry in with_user][1:] == ["forged"], "a user's word counts when asked for"


class Journal:
    """A stand-in for systemd.journal.Reader. Matches as sd_journal_add_match(3) says: of one field any, of
    several each, and each group by itself."""

    def __init__(self, *entries: Mapping[str, Any]) -> None:
        self._entries = list(entries)
        self._groups: list[dict[str, set[str]]] = [{}]
        self._place = 0

    def add_match(self, match: str) -> None:
        name, value = match.split("=", 1)
        self._groups[-1].setdefault(name, set()).add(value)

    def add_disjunction(self) -> None:
        self._groups.append({})

    def seek_tail(self) -> None:
        self._place = len(self._entries)

    def get_previous(self) -> Mapping[str, Any]:
        while self._place:
            self._place -= 1
            entry = self._entries[self._place]
            if any(
                group and all(str(entry.get(name)) in values for name, values in group.items())
                for group in self._groups
            ):
                return entry
        return {}


def logged(minute: int, event: str = "moved", **fields: Any) -> dict[str, Any]:
    return {
        "__REALTIME_TIMESTAMP": NOON + timedelta(minutes=minute),
        "_SYSTEMD_UNIT": "tierd.service",
        "TIERD_EVENT": event,
        "MESSAGE": f"message {minute}",
        "PRIORITY": 6,
        **fields,
    }


def test_the_unit_s_entries_count_whatever_their_identifier() -> None:
    by_root = {"_SYSTEMD_UNIT": "tierd-convert@x.service", "SYSLOG_IDENTIFIER": "tierd", "_UID": "0"}
    journal = Journal(
        logged(1, SYSLOG_IDENTIFIER="python3", _UID="998"),
        logged(2, "conversion-done", **by_root),
        logged(3, _SYSTEMD_UNIT="user@1000.service", SYSLOG_IDENTIFIER="tierd", _UID="1000"),
        logged(4, _SYSTEMD_UNIT="other.service"),
    )
    assert [entry.message for entry in newest(journal, most=None)[0]] == ["message 1", "message 2"]


@pytest.mark.parametrize("priority", ["x", b"\xff", [3, 4], ""])
def test_an_odd_entry_is_no_failure(priority: Any) -> None:
    odd = logged(1, PRIORITY=priority, MESSAGE=[b"one\xff", "two"], TIERD_NODES=["0", "1"])
    (entry,) = newest(Journal(odd), most=None)[0]
    assert (entry.priority, entry.message) == (6, "one\\xff\ntwo")
    assert entry.fields["TIERD_NODES"] == "0\n1"
    del odd["PRIORITY"], odd["MESSAGE"]
    (entry,) = newest(Journal(odd), most=None)[0]
    assert (entry.priority, entry.message) == (6, "")


def entries() -> list[Entry]:
    long = "holding (was steady): memory pressure is 61 % of the time, the limit is 40 %"
    return [
        Entry(NOON, "moved", "promoted 412 MiB\x1b[2J", 6, {"TIERD_EVENT": "moved"}),
        Entry(NOON + timedelta(seconds=1), "holding", long, 4, {"TIERD_EVENT": "holding"}),
        Entry(NOON + timedelta(seconds=2), "engine-failed", "the engine failed", 2, {}),
    ]


def test_the_table() -> None:
    assert history.text(entries(), Style(70)) == (
        "TIME                 EVENT          MESSAGE\n"
        "2026-11-30 12:00:00  moved          promoted 412 MiB\\x1b[2J\n"
        "2026-11-30 12:00:01  holding        holding (was steady): memory\n"
        "                                    pressure is 61 % of the time, the\n"
        "                                    limit is 40 %\n"
        "2026-11-30 12:00:02  engine-failed  the engine failed"
    )


def test_a_pipe_gets_an_entry_a_line() -> None:
    lines = history.text(entries(), Style(40), wrapped=False).split("\n")
    assert len(lines) == 4 and lines[2].endswith("the limit is 40 %")


def test_colours() -> None:
    legend, moved, *holding, failed = history.text(entries(), Style(70, colour=True)).split("\n")
    assert legend.startswith("\x1b[1m") and not moved.startswith("\x1b")
    assert all(line.startswith("\x1b[33m") and line.endswith("\x1b[0m") for line in holding)
    assert failed.startswith("\x1b[31m")


def test_the_document() -> None:
    (moved, *_) = history.document(entries())["entries"]
    assert moved == {
        "time": "2026-11-30T12:00:00.000000+00:00",
        "event": "moved",
        "priority": 6,
        "message": "promoted 412 MiB\x1b[2J",
        "fields": {"TIERD_EVENT": "moved"},
    }


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, journal: Journal | None = None) -> int:
    monkeypatch.setattr(journal_entries, "open_journal", lambda: journal or Journal())
    return main(["history", *arguments])


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stored = [logged(minute) for minute in range(60)]
    assert run(monkeypatch, journal=Journal(*stored)) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 51 and "message 10\n" in out and "message 9\n" not in out and err == ""
    assert run(monkeypatch, "-n", "all", "--json", journal=Journal(*stored)) == 0
    assert len(json.loads(capsys.readouterr().out)["entries"]) == 60
    assert run(monkeypatch, "--since", "@0", "--lines", "3", journal=Journal(*stored)) == 0
    out, err = capsys.readouterr()
    assert (
        out.count("\n") == 4 and err == "tierctl: the newest 3 are shown; -n all shows the older ones too\n"
    )
    kinds = Journal(logged(1), logged(2, "holding"), logged(3, "started"))
    assert run(monkeypatch, "--event", "moved", "--event", "started", "--json", journal=kinds) == 0
    found = json.loads(capsys.readouterr().out)["entries"]
    assert [entry["event"] for entry in found] == ["moved", "started"]
    assert run(monkeypatch, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"entries": []}


def test_nothing_is_said_to_be_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    assert capsys.readouterr().out == "The journal has no such entry of tierd.\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--since", "soon"), "tierctl: --since: `soon` is not a time; "),
        (("--since", "1 m\x1b"), "tierctl: --since: `1 m\\x1b` is not a time; "),
        (("-n", "0"), "tierctl: -n: `0` is not a number of entries; "),
        (("-n", "-3"), "tierctl: -n: `-3` is not a number of entries; "),
        (("-n", "²"), "tierctl: -n: `²` is not a number of entries; "),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], says: str) -> None:
    shown = tierctl("history", *arguments)
    assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (2, "", 1)
    assert shown.stderr.startswith(says)


def test_a_name_that_no_event_has_is_answered_with_those_there_are() -> None:
    shown = tierctl("history", "--event", "move")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "'move'" in shown.stderr and all(name in shown.stderr for name in history.EVENTS)


def test_the_events_are_those_that_tierd_writes() -> None:
    assert sorted(history.EVENTS) == sorted(kind.name for kind in EVENT_TYPES)


@pytest.mark.parametrize("closed", ["journal", "journal/machine", "journal/machine/system.journal"])
def test_no_permission_is_said(closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = tmp_path / "journal" / "machine"
    machine.mkdir(parents=True)
    (machine / "system.journal").touch()
    # root may read everything, and runs these tests too
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / closed and access(path, mode))
    with pytest.raises(DeniedJournalError) as denied:
        open_journal((tmp_path / "missing", tmp_path / "journal"))
    assert denied.value.status == 4 and "group systemd-journal" in denied.value.hint


def test_one_journal_that_may_be_read_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run", "var"):
        (tmp_path / name / "machine").mkdir(parents=True)
        (tmp_path / name / "machine/system.journal").touch()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "run" and access(path, mode))
    open_journal((tmp_path / "run", tmp_path / "var"))
    open_journal((tmp_path / "missing",))


def test_no_permission_is_one_line_and_status_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise DeniedJournalError

    monkeypatch.setattr(journal_entries, "open_journal", refuse)
    assert main(["history"]) == 4
    assert capsys.readouterr().err == (
        "tierctl: no permission to read the journal"
        " (run it as root, or as a member of the group systemd-journal)\n"
    )
