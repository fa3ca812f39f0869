"""`tierctl drain` on a simulated region: shown, agreed to, carried out by the unit, found safe, undone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.kernel.fixtures.region import ISET, SimulatedRegion
from tierd.cli import drain, main
from tierd.config.loader import parse
from tierd.core.drain import hindrances, plan_drain, regions_of
from tierd.core.policy import Policy, ProvisionRequest
from tierd.errors import ConfigError, GoneError, TierdError
from tierd.kernel.drained import mark_drained, read_drained
from tierd.kernel.intents import Intents
from tierd.kernel.picture import take_picture
from tierd.kernel.tools import ToolResult, Tools
from tierd.service import drain as service
from tierd.service.conversion import Converter

TEXT = """\
version: 1
provision:
  - {{name: pmem0, region: {{iset_id: "{iset:#x}"}}, size: 512MiB, mode: apply}}
  - {{name: gone, region: {{iset_id: "0x77"}}, size: all, mode: apply}}
"""
UNIT = f"tierd-drain@{ISET:#x}.service"


class Bench:
    """The command on a simulated machine, whose systemctl does what the units do."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = SimulatedRegion(directory / "machine").begin()
        self.record = directory / "state/conversions.jsonl"
        self.units: list[str] = []
        self.answers = {"is-enabled": 1, "is-active": 0}
        self.result = "success"
        self.policy: Policy | ConfigError = parse(TEXT.format(iset=ISET).encode(), "here")
        run = Tools.run

        def running(tools: Tools, argv: tuple[str, ...], *, deadline: float = 60.0) -> ToolResult:
            if argv[0] != "systemctl":
                return run(tools, argv, deadline=deadline)
            return ToolResult(argv, *self.systemctl(argv[1:]))

        def load(path: Path) -> Policy:
            if isinstance(self.policy, ConfigError):
                raise self.policy
            return self.policy

        monkeypatch.setattr(Tools, "run", running)
        monkeypatch.setattr(drain, "Root", lambda: self.machine.root)
        monkeypatch.setattr(drain, "Tools", lambda: self.machine.tools)
        monkeypatch.setattr(drain, "DEFAULT_PATH", self.record)
        monkeypatch.setattr(drain, "POLL_SECONDS", 0.0)
        monkeypatch.setattr(drain, "load", load)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        self.convert()

    @property
    def converter(self) -> Converter:
        machine = self.machine
        return Converter(machine.root, machine.tools, Intents(self.record, machine.root), lambda *_: None)

    def convert(self) -> None:
        assert isinstance(self.policy, Policy)
        self.converter.run(self.policy.provision[0])
        self.machine.draw_nodes()

    def systemctl(self, argv: tuple[str, ...]) -> tuple[int, bytes, str]:
        if argv[0] == "show":
            if argv[1] == "-P":
                return 0, f"{self.result}\n".encode(), ""
            return 0, b"ActiveState=inactive\nStatusText=4 of 4 blocks of dax0.0\n", ""
        if argv[0] in self.answers:
            return self.answers[argv[0]], b"", ""
        self.units.append(f"{argv[0]} {argv[-1]}")
        if argv[-1] == UNIT and self.result == "success":
            (mark,) = read_drained(self.record.parent)
            service.empty(self.converter, mark)
            self.machine.draw_nodes()
        elif argv[0] == "reload-or-restart":
            self.convert()
        return 0, b"", ""

    def marked(self) -> list[int]:
        return [mark.iset_id for mark in read_drained(self.record.parent)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def run(*words: str) -> int:
    return main.main(["drain", *words])


def test_a_dimm_is_drained_and_comes_back(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nmem0", "--yes") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"region0 (iset_id {ISET:#x}), of which the policy makes pmem0:\n")
    assert "drain 4 memory blocks of namespace0.0, 512MiB" in said
    assert "  4 of 4 blocks of dax0.0\n" in said
    assert "region0 (nmem0) is drained: safe to remove\n" in said
    assert bench.units == [f"start {UNIT}"]
    assert bench.machine.online() == [] and bench.marked() == [ISET]

    assert run() == 0
    assert "safe to remove" in capsys.readouterr().out
    assert run("--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["drained"]
    assert (entry["region"], entry["dimms"], entry["requests"]) == ("region0", ["nmem0"], ["pmem0"])
    assert entry["safe"] is True and entry["reasons"] == [] and entry["since"].endswith("Z")

    assert run("--undo", "pmem0") == 0
    assert "pmem0: done\nit is not drained any more\n" in capsys.readouterr().out
    assert bench.units[1:] == ["reload-or-restart tierd-convert@pmem0.service"]
    assert len(bench.machine.online()) == 4 and bench.marked() == []
    assert run("--undo", "pmem0") == 0 and run() == 0
    assert "nothing is drained" in capsys.readouterr().out


def test_without_consent_nothing_is_marked(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("region0") == 1
    said = capsys.readouterr()
    assert "drain 4 memory blocks" in said.out and "nothing was changed" in said.err
    assert run("region0", "--json") == 1
    said = capsys.readouterr()
    assert said.out == "" and "drain 4 memory blocks" in said.err
    assert bench.units == [] and bench.marked() == []


def test_a_unit_that_fails_is_not_safe(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.result = "exit-code"
    assert run("dax0.0", "--yes", "--deadline", "9") == 1
    assert f"{UNIT} failed" in capsys.readouterr().err
    # as after `kubectl drain`: it stays marked, so that nothing more of it becomes memory
    assert [mark.deadline for mark in read_drained(bench.record.parent)] == [9.0]
    assert run() == 1
    assert "not safe to remove\n  dax0.0 is memory: 4 blocks of it online" in capsys.readouterr().out
    assert bench.units == [f"start {UNIT}"]


def process(bench: Bench, mountinfo: str = "", maps: str = "") -> None:
    directory = bench.machine.root.proc / "4242"
    for name in ("fd", "ns"):
        (directory / name).mkdir(parents=True)
    for name, content in {"comm": "postgres\n", "maps": maps, "mountinfo": mountinfo}.items():
        (directory / name).write_text(content)
    (directory / "ns/mnt").symlink_to("mnt:[1]")


def test_what_is_mapped_and_closed_is_not_safe(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.machine.create(640 << 20, "db", "devdax")
    process(bench, maps="7f0000000000-7f0000200000 rw-s 00000000 00:06 1 /dev/dax0.1\n")
    assert run("nmem0", "--yes") == 1
    said = capsys.readouterr().out
    assert "region0 (nmem0) is to be drained: not safe to remove\n" in said
    assert "namespace0.1 is in use: process 4242 (postgres) has it mapped\n" in said
    assert bench.units == [f"start {UNIT}"] and bench.machine.online() == []


def test_what_is_mounted_is_not_safe(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.machine.create(640 << 20, "data", "fsdax")
    bench.machine.write("sys/bus/nd/devices/namespace0.1/block/pmem0.1/x", "")
    process(bench, mountinfo="36 35 0:41 / /srv rw - btrfs /dev/pmem0.1 rw\n")
    assert run("nmem0", "--yes") == 1
    assert "namespace0.1 is in use: mounted on /srv" in capsys.readouterr().out


def test_what_cannot_be_told_is_not_safe(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    process(bench, maps="7f0000000000-7f0000200000 rw-s 00000000 00:06 1 /srv/disk\n")
    assert run("nmem0", "--yes") == 1
    assert "namespace0.0: who uses it cannot be told: " in capsys.readouterr().out
    picture = take_picture(bench.machine.root, bench.machine.tools, bench.record)
    assert picture.inventory is not None
    assert hindrances(picture.inventory.regions[0], {}) == (
        "namespace0.0: who uses it cannot be told: it was not looked at",
    )


def test_an_interrupt_stops_the_unit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    bench.result = "exit-code"
    monkeypatch.setattr(drain, "sleep", interrupt)
    monkeypatch.setattr(bench, "systemctl", waiting(bench))
    assert run("region0", "--yes") == 1
    assert "stopped: what was being emptied is online again" in capsys.readouterr().err
    assert bench.units == [f"start {UNIT}", f"stop {UNIT}"]


def waiting(bench: Bench) -> object:
    inner = bench.systemctl

    def systemctl(argv: tuple[str, ...]) -> tuple[int, bytes, str]:
        if argv[0] == "show":
            return 0, b"ActiveState=activating\nJob=7\n", ""
        return inner(argv)

    return systemctl


def test_a_request_that_nobody_started_is_not_started(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pmem0", "--yes") == 0
    bench.answers["is-active"] = 3
    assert run("--undo", "nmem0") == 0
    assert "`systemctl enable --now tierd-convert@pmem0.service`" in capsys.readouterr().out
    assert bench.units == [f"start {UNIT}"] and bench.machine.online() == []


def test_a_region_that_was_removed_is_shown_and_undone(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    mark_drained(bench.record.parent, frozenset({0x77}), None)
    assert run() == 0
    assert "0x77 is drained (since 2" in capsys.readouterr().out
    assert run("gone", "--yes") == 1
    assert "no region has iset_id 0x77" in capsys.readouterr().err
    assert run("--undo", "0x77") == 0 and bench.marked() == []


def test_a_bad_policy_does_not_keep_a_device(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.policy = ConfigError(("tierd.yaml:1:1: bad",))
    assert run("pmem0") == 78
    assert run("nmem0", "--yes") == 0
    assert bench.machine.online() == []


def test_only_root(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("nmem0", "--yes") == 4 and bench.marked() == []


@pytest.mark.parametrize("text", ["0", "-1", "soon", "9999", "nan"])
def test_a_deadline_is_seconds(bench: Bench, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("nmem0", f"--deadline={text}")
    assert "expected seconds" in capsys.readouterr().err


def test_every_name_of_a_device_stands_for_its_region(bench: Bench) -> None:
    picture = take_picture(bench.machine.root, bench.machine.tools, bench.record)
    assert picture.inventory is not None
    here = ProvisionRequest("pmem0", ISET, None)
    for name in ("nmem0", "region0", "namespace0.0", "dax0.0", "pmem0", f"{ISET:#x}"):
        assert regions_of(picture, [here], name) == {ISET}, name
    with pytest.raises(GoneError, match="no request, DIMM, region, namespace or dax device named nmem7"):
        regions_of(picture, [here], "nmem7")
    with pytest.raises(GoneError, match="0xnothing is no iset_id"):
        regions_of(picture, [here], "0xnothing")
    with pytest.raises(TierdError, match="a request of another region, and a device"):
        regions_of(picture, [ProvisionRequest("nmem0", 5, None)], "nmem0")
    assert plan_drain(picture.inventory, picture.inventory.regions[0]).leaving == 512 << 20
