"""The write-ahead record: what it holds after every kind of end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel.test_files import room_for
from tierd.core.inventory import Span, Taken
from tierd.errors import DeniedError, MalformedError
from tierd.kernel.intents import Intent, Intents, Value
from tierd.kernel.paths import Root

SIZE = 1152 << 20


@pytest.fixture
def record(tmp_path: Path) -> Intents:
    return made_in(tmp_path)


def made_in(directory: Path, boot: str = "one") -> Intents:
    path = directory / "root/proc/sys/kernel/random"
    path.mkdir(parents=True, exist_ok=True)
    (path / "boot_id").write_text(f"{boot}\n")
    return Intents(directory / "state/conversions.jsonl", Root(directory / "root"))


def begin(record: Intents, action: str, uuid: str | None = None) -> Intent:
    return record.begin("pmem0", action, ("do it",), {"size": SIZE, "uuid": uuid}, {"policy": "online"})


def test_an_intent_stays_open_until_it_is_concluded(record: Intents, tmp_path: Path) -> None:
    assert record.open_intents() == ()
    intent = begin(record, "system-ram")
    assert made_in(tmp_path).open_intents() == (intent,)
    assert intent.boot == "one" and intent.saved == {"policy": "online"} and intent.acts == ("do it",)
    record.conclude(intent, "done", "it is done", {})
    assert made_in(tmp_path).open_intents() == ()


def test_the_file_is_roots_alone(record: Intents, tmp_path: Path) -> None:
    begin(record, "system-ram")
    assert (tmp_path / "state/conversions.jsonl").stat().st_mode & 0o777 == 0o600


def test_an_intent_that_is_not_written_whole_is_none(record: Intents, tmp_path: Path) -> None:
    path = tmp_path / "state/conversions.jsonl"
    intent = begin(record, "create-namespace")
    with (
        room_for(path.stat().st_size + 100),
        pytest.raises(DeniedError, match="nothing is done that cannot"),
    ):
        begin(record, "system-ram")
    assert record.open_intents() == (intent,)


def test_a_line_that_was_cut_short_is_passed_over_and_not_continued(record: Intents, tmp_path: Path) -> None:
    path = tmp_path / "state/conversions.jsonl"
    intent = begin(record, "create-namespace")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert record.open_intents() == (intent,)
    record.conclude(intent, "done", "", {"uuid": "u"})
    assert record.open_intents() == ()
    lines = path.read_text().splitlines()
    assert len(lines) == 3 and json.loads(lines[2])["outcome"] == "done"


@given(st.integers(0, 400))
def test_a_record_cut_anywhere_is_read(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    directory = tmp_path_factory.mktemp("cut")
    record = made_in(directory)
    begin(record, "create-namespace")
    path = directory / "state/conversions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    assert len(record.open_intents()) == (1 if cut >= len(whole) - 1 else 0)


def test_what_was_begun_to_be_made(record: Intents) -> None:
    assert record.unfinished() == record.made() == frozenset()
    intent = begin(record, "create-namespace")
    assert record.unfinished() == {("pmem0", SIZE)}
    record.conclude(intent, "failed", "killed", {})
    assert record.unfinished() == {("pmem0", SIZE)}
    record.conclude(begin(record, "size-namespace"), "done", "", {})
    assert record.unfinished() == {("pmem0", SIZE)}
    record.conclude(begin(record, "finish-namespace"), "done", "", {"uuid": "u-1"})
    assert record.unfinished() == frozenset()
    assert record.made() == {("pmem0", "u-1")}


def test_what_goes_on_with_a_namespace_proves_that_it_is_made(record: Intents) -> None:
    begin(record, "create-namespace")
    begin(record, "system-ram", "u-2")
    assert record.unfinished() == frozenset()
    assert record.made() == {("pmem0", "u-2")}
    begin(record, "create-namespace")
    assert record.made() == frozenset()


def test_the_boot_tells_which_settings_are_gone(record: Intents, tmp_path: Path) -> None:
    begin(record, "system-ram")
    later = made_in(tmp_path, boot="two")
    assert later.boot == "two"
    assert later.open_intents()[0].boot == "one"


def test_a_place_that_cannot_be_written_stops_everything(tmp_path: Path) -> None:
    record = made_in(tmp_path)
    (tmp_path / "state").write_text("a file where a directory is to be")
    with pytest.raises(DeniedError, match="nothing is done that cannot be recorded"):
        begin(record, "system-ram")


def test_a_link_in_the_place_of_the_record_is_not_followed(record: Intents, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/conversions.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeniedError):
        begin(record, "system-ram")
    assert not (tmp_path / "elsewhere").exists()


def test_what_was_begun_to_be_given_back(record: Intents) -> None:
    def give_back(label_uuid: str) -> Intent:
        facts: dict[str, str | int | None | list[str]] = {"uuid": "u-1", "label_uuid": label_uuid}
        return record.begin("pmem0", "destroy-namespace", (), facts, {})

    record.conclude(begin(record, "create-namespace"), "done", "", {"uuid": "u-1"})
    assert record.condemned() == frozenset()
    record.conclude(give_back("l-1"), "failed", "killed", {})
    assert record.condemned() == {("pmem0", "l-1")}
    assert record.made() == {("pmem0", "u-1")}
    record.conclude(give_back("l-1"), "interrupted", "", {})
    assert record.condemned() == {("pmem0", "l-1")}
    record.conclude(give_back("l-1"), "done", "", {})
    assert record.condemned() == record.made() == frozenset()
    give_back("l-2")
    begin(record, "create-namespace")
    assert record.condemned() == frozenset()


def test_what_was_begun_to_be_given_up_with_consent(record: Intents) -> None:
    facts: dict[str, Value] = {
        **{"taken_uuid": "u-1", "taken_label_uuid": "l-1", "iset_id": "0x10", "size": SIZE, "memory": 1},
        **{"found": "ext4", "data_start": 2, "data_size": 3, "kept": "u-1-abcd"},
    }
    assert record.taken() == ()
    failed = record.begin("pmem0", "take-namespace", ("do it",), facts, {})
    expected = Taken("pmem0", "u-1", "l-1", 16, SIZE, 1, "ext4", Span(2, 3), "u-1-abcd", done=False)
    assert record.taken() == (expected,)
    record.conclude(failed, "failed", "it is still there", {})
    assert record.taken() == (expected,), "what was kept serves the next run"
    again = record.begin("pmem0", "take-namespace", ("do it",), {**facts, "kept": "u-1-ef"}, {})
    record.conclude(again, "interrupted", "stopped", {})
    assert record.taken() == (replace(expected, kept="u-1-ef"),)
    last = record.begin("pmem0", "take-namespace", ("do it",), facts, {})
    record.conclude(last, "done", "it is gone", {})
    assert record.taken() == (replace(expected, done=True),)
    assert record.made() == record.unfinished() == record.condemned() == frozenset()


@pytest.mark.parametrize("wrong", [{"size": "many"}, {"iset_id": 5}, {"iset_id": "r0"}, {"memory": None}])
def test_facts_of_the_wrong_shape_stop_everything(record: Intents, wrong: dict[str, Value]) -> None:
    facts: dict[str, Value] = {
        **{"taken_uuid": "u-1", "taken_label_uuid": "l-1", "iset_id": "0x10", "size": SIZE, "memory": 1},
        **{"found": "ext4", "data_start": 2, "data_size": 3, "kept": "u-1-abcd"},
    }
    record.begin("pmem0", "take-namespace", ("do it",), {**facts, **wrong}, {})
    with pytest.raises(MalformedError, match="facts have the wrong shape"):
        record.taken()
