"""Growing and shrinking on a simulated region, with tools and kills at every point."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kernel.fixtures.region import BLOCK, GIB, ISET, SimulatedRegion
from tierd.core.inventory import MemoryBlock
from tierd.core.policy import ProvisionMode, ProvisionRequest
from tierd.core.provision import Verdict
from tierd.errors import TierdError
from tierd.kernel import memory_blocks
from tierd.kernel.intents import Intents
from tierd.kernel.paths import Root
from tierd.service import draining
from tierd.service.conversion import ConversionError, Converter


def ask(blocks: int, **more: object) -> ProvisionRequest:
    return ProvisionRequest("pmem0", ISET, blocks * BLOCK, ProvisionMode.APPLY, **more)  # type: ignore[arg-type]


class Bench:
    """A converter on a simulated region, with what it reported."""

    def __init__(self, directory: Path) -> None:
        self.machine = SimulatedRegion(directory).begin()
        self.record = directory / "state/conversions.jsonl"
        self.reports: list[tuple[str, str]] = []

    @property
    def converter(self) -> Converter:
        machine = self.machine
        return Converter(
            machine.root,
            machine.tools,
            Intents(self.record, machine.root),
            self._report,
            sleep=lambda _: None,
            drain_deadline=5.0,
        )

    def _report(self, kind: str, words: str, fields: Mapping[str, str]) -> None:
        self.reports.append((kind, words))

    def run(self, blocks: int) -> Verdict:
        converter = self.converter
        converter.recover()
        found = converter.run(ask(blocks)).verdict
        self.machine.draw_nodes()
        return found

    def outcomes(self) -> list[tuple[str, str]]:
        records = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [(r["action"], r["outcome"]) for r in records if r["record"] == "result"]

    def labels(self) -> list[str]:
        return [entry["label"] for entry in self.machine.load()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_it_grows_and_shrinks_and_grows_again(bench: Bench) -> None:
    machine = bench.machine
    assert bench.run(4) is Verdict.DONE
    assert bench.run(9) is Verdict.DONE
    assert machine.acts() == [
        *("create tierd:pmem0 640", "system-ram dax0.0"),
        *("create tierd:pmem0+2 768", "system-ram dax0.1"),
    ]
    assert len(machine.online()) == 9 and machine.policy() == "online"
    machine.calls.write_text("")
    assert bench.run(5) is Verdict.DONE
    assert machine.acts() == ["devdax dax0.0", "destroy namespace0.0"]
    assert len(machine.online()) == 5 and bench.labels() == ["tierd:pmem0+2"]
    # a persistent namespace can be made of what was given back, and stays out of what comes after
    assert machine.create(640 << 20, "data", "fsdax") == 0
    assert machine.extents()[0][0] == 4 * GIB + (640 + 768 << 20)
    assert bench.run(8) is Verdict.DONE
    assert len(machine.online()) == 8
    assert bench.labels() == ["tierd:pmem0+2", "data", "tierd:pmem0"]
    assert bench.run(8) is Verdict.DONE
    assert bench.run(0) is Verdict.DONE
    assert bench.labels() == ["data"] and machine.online() == [] and machine.policy() == "online"


def test_draining_is_told_block_by_block_and_recorded_first(bench: Bench) -> None:
    bench.run(3)
    bench.reports.clear()
    bench.run(0)
    told = [words for kind, words in bench.reports if kind == "draining"]
    assert told == [f"pmem0: {n} of 3 blocks of dax0.0 are empty and offline" for n in range(4)]
    assert bench.outcomes()[-3:] == [(a, "done") for a in ("offline-blocks", "devdax", "destroy-namespace")]
    assert Intents(bench.record, bench.machine.root).made() == frozenset()


def stuck(monkeypatch: pytest.MonkeyPatch, *numbers: int, error: BaseException | None = None) -> None:
    """Blocks that cannot be emptied: the write fails, or is interrupted."""
    write = memory_blocks.write_setting

    def refusing(root: Root, path: str, value: str) -> None:
        if value == "offline" and any(f"memory{n}/" in path for n in numbers):
            raise error or TierdError(f"{path}: cannot write offline: Device or resource busy")
        write(root, path, value)

    monkeypatch.setattr(memory_blocks, "write_setting", refusing)
    monkeypatch.setattr(memory_blocks, "OFFLINE_PAUSE", 0.0)


def test_one_block_that_stays_brings_the_others_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(4)
    with monkeypatch.context() as patch:
        stuck(patch, 34)
        with pytest.raises(
            ConversionError, match=r"1 blocks of dax0\.0 could not be emptied in 5 s.*online again"
        ):
            bench.run(0)
    assert bench.machine.online() == [33, 34, 35, 36]
    assert bench.machine.acts()[2:] == []
    assert bench.outcomes()[-1] == ("offline-blocks", "failed")
    assert bench.run(4) is Verdict.DONE
    assert bench.run(0) is Verdict.DONE


class Stopped(BaseException):
    """SIGTERM, as tierd-convert raises it."""


def test_a_stop_while_draining_brings_back_what_was_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(4)
    with monkeypatch.context() as patch:
        stuck(patch, 34, error=Stopped())
        with pytest.raises(Stopped):
            bench.run(0)
    assert bench.machine.online() == [33, 34, 35, 36]
    states = {p.read_text() for p in bench.machine.root.memory_blocks.glob("memory*/state")}
    assert states == {"online_movable", "online\n"}
    assert bench.run(0) is Verdict.DONE


def test_what_comes_after_a_stop_may_be_something_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while draining: nothing brings the blocks back; then the policy is the old one again."""
    bench.run(4)
    with monkeypatch.context() as patch:
        stuck(patch, 34, error=Stopped())
        patch.setattr(draining, "_bring_back", lambda *_: ())
        with pytest.raises(Stopped):
            bench.run(0)
    assert bench.machine.online() == [33, 34]
    assert bench.run(4) is Verdict.DONE
    assert bench.machine.online() == [33, 34, 35, 36]


class Killed(BaseException):
    """SIGKILL: nothing that handles failures sees it."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(1, 7))
@pytest.mark.parametrize("then", [0, 8, 12])
def test_killed_at_any_call_of_a_tool(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: int, after: bool, then: int
) -> None:
    """8 blocks to 5: a smaller slice is made, and the large one given back. Then any wish is carried out."""
    bench.run(8)
    machine, run, seen = bench.machine, type(bench.machine.tools).run, 0

    def dying(self: object, argv: tuple[str, ...], *, deadline: float = 60.0) -> object:
        nonlocal seen
        act = argv[1] != "list"
        seen += act
        if act and seen == call and not after:
            raise Killed
        result = run(machine.tools, argv, deadline=deadline)
        if act and seen == call:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(type(machine.tools), "run", dying)
        patch.setattr(Converter, "_put_back", lambda *_: False)
        if call <= 4:
            with pytest.raises(Killed):
                bench.run(5)
        else:
            bench.run(5)
    assert bench.run(then) is Verdict.DONE
    assert len(machine.online()) == then
    assert machine.policy() == "online"
    assert Intents(bench.record, machine.root).open_intents() == ()


def use(bench: Bench, what: str) -> None:
    root = bench.machine.root.path
    directory = root / "proc/77"
    for name in ("fd", "ns"):
        (directory / name).mkdir(parents=True)
    (directory / "comm").write_text("db\n")
    (directory / "mountinfo").write_text("")
    mapped = "7f00-7f01 rw-s 0 00:06 1 /dev/dax0.0\n" if what == "mapped" else ""
    (directory / "maps").write_text(mapped)
    if what == "open":
        (directory / "fd/3").symlink_to("/dev/dax0.0")


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_device_in_use_is_not_given_back(bench: Bench, how: str) -> None:
    bench.run(4)
    use(bench, how)
    with pytest.raises(ConversionError, match=f"in use, and left alone: process 77 .db. has it {how}"):
        bench.run(0)
    assert "destroy" not in " ".join(bench.machine.acts())
    assert bench.labels() == ["tierd:pmem0"]
    # the intent is written after the last look, so nothing was begun
    assert Intents(bench.record, bench.machine.root).condemned() == frozenset()


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_device_in_use_does_not_become_memory(bench: Bench, how: str) -> None:
    """As it is after a reboot, and somebody was faster: daxctl would end what maps it."""
    bench.run(4)
    (entry,) = bench.machine.load()
    bench.machine.save([{**entry, "driver": "device_dax"}])
    bench.machine.draw()
    bench.machine.calls.write_text("")
    use(bench, how)
    with pytest.raises(ConversionError, match=f"in use, and left alone: process 77 .db. has it {how}"):
        bench.run(4)
    assert bench.machine.acts() == [] and bench.machine.policy() == "online"


def test_a_namespace_that_became_another_is_not_given_back(bench: Bench) -> None:
    bench.run(4)
    look = Converter.look

    def swapped(self: Converter) -> object:
        found = look(self)
        if "devdax dax0.0" in bench.machine.acts():  # what is to go is all that is left to do
            name = "sys/bus/nd/devices/namespace0.0/uuid"
            bench.machine.write(name, "00000000-dead-4000-8000-000000000000")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Converter, "look", swapped)
        with pytest.raises(ConversionError, match="names have changed meanwhile"):
            bench.run(0)
    assert "destroy" not in " ".join(bench.machine.acts())


LIES = {
    "silent success": "exit 0",
    "failure": "echo Device or resource busy >&2; exit 240",
    "killed": "kill -9 $$",
    "garbage": "head -c 1000 /dev/urandom",
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize(("tool", "word"), [("daxctl", "devdax"), ("ndctl", "destroy-namespace")])
def test_a_tool_that_did_nothing_is_not_believed(bench: Bench, lie: str, tool: str, word: str) -> None:
    bench.run(4)
    path = bench.machine.bin / tool
    real = path.read_text()
    path.write_text(
        f'#!/bin/sh\ncase " $* " in *" {word} "*) {LIES[lie]};exit;; esac\n{real.partition(chr(10))[2]}'
    )
    with pytest.raises(ConversionError, match="has not left the kernel|is still there"):
        bench.run(0)
    path.write_text(real)
    assert bench.run(0) is Verdict.DONE
    assert bench.machine.load() == []


def test_no_room_for_what_is_in_use_runs_nothing(bench: Bench) -> None:
    bench.run(30)
    bench.machine.calls.write_text("")
    bench.machine.draw_nodes(used=3 * GIB)
    converter = bench.converter
    found = converter.run(ask(2))
    assert found.verdict is Verdict.REFUSED and [r.kind for r in found.refusals] == ["room"]
    assert bench.machine.acts() == [] and len(bench.machine.online()) == 30


def test_another_slice_of_the_same_label_stops_everything(bench: Bench) -> None:
    bench.run(4)
    bench.machine.create(640 << 20, "tierd:pmem0")
    bench.machine.calls.write_text("")
    assert bench.run(8) is Verdict.REFUSED
    assert bench.run(0) is Verdict.REFUSED
    assert bench.machine.acts() == [] and len(bench.machine.online()) == 4


def test_a_reboot_brings_back_every_slice(bench: Bench) -> None:
    bench.run(4)
    bench.run(9)
    namespaces = bench.machine.load()
    for entry in namespaces:
        entry["driver"] = "device_dax"
    bench.machine.save(namespaces)
    bench.machine.draw()
    bench.machine.write("proc/sys/kernel/random/boot_id", "two")
    bench.machine.calls.write_text("")
    assert bench.machine.online() == []
    assert bench.run(9) is Verdict.DONE
    assert bench.machine.acts() == ["system-ram dax0.0", "system-ram dax0.1"]
    assert len(bench.machine.online()) == 9


def test_the_deadline_ends_a_drain(bench: Bench) -> None:
    """The kernel's write does not return; the alarm ends it, and the blocks come back."""
    bench.run(3)
    fifo = bench.machine.root.memory_blocks / "memory34/state"
    fifo.unlink()
    os.mkfifo(fifo)
    three = tuple(MemoryBlock(number, True, "Movable", 1) for number in (33, 34, 35))
    stayed, lost = draining.drain(bench.machine.root, three, 0.5, lambda *_: None)
    assert (stayed, lost) == ((34, 33), ())
    assert (bench.machine.root.memory_blocks / "memory35/state").read_text() == "online_movable"


def test_the_deadline_grows_with_what_is_to_be_emptied() -> None:
    assert draining.deadline_of(GIB) == draining.deadline_of(100 * GIB) == 300.0
    assert draining.deadline_of(1024 * GIB) == 2048.0
