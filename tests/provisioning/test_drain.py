"""Draining a region on a simulated machine, by the program that the unit runs; what stays drained, and what
does not become memory meanwhile."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.kernel.fixtures.region import BLOCK, ISET
from tests.provisioning.test_shares import Bench, stuck
from tests.service.conftest import ROOT
from tests.service.test_boot import settings
from tierd.core.drain import plan_drain
from tierd.core.provision import Verdict
from tierd.kernel import intents
from tierd.kernel.drained import NAME, forget_drained, mark_drained, read_drained
from tierd.kernel.inventory import take_inventory
from tierd.service import convert, drain, one_shot

NAMED = f"{ISET:#x}"


class Drain(Bench):
    """The bench of the shares, with a policy and the two programs on it."""

    def mark(self, deadline: float | None = 5.0) -> None:
        mark_drained(self.record.parent, frozenset({ISET}), deadline)

    def drain(self, name: str = NAMED) -> int:
        code = drain.main([name])
        self.machine.draw_nodes()
        return code


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drain:
    bench = Drain(tmp_path / "machine")
    machine = bench.machine
    policy = tmp_path / "tierd.yaml"
    policy.write_text(
        "version: 1\nprovision:\n"
        f'  - {{name: pmem0, region: {{iset_id: "{ISET:#x}"}}, size: 512MiB, mode: apply}}\n'
    )
    parsed = convert.tierd.config.loader.parse(policy.read_bytes(), str(policy))
    monkeypatch.setattr(convert.tierd.config, "load", lambda _: parsed)
    for module in (convert, drain):
        monkeypatch.setattr(module, "Root", lambda: machine.root)
        monkeypatch.setattr(module, "Tools", lambda: machine.tools)
        monkeypatch.setattr(module, "LOCK", tmp_path / "convert.lock")
    monkeypatch.setattr(intents, "DEFAULT_PATH", bench.record)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return bench


def test_it_is_emptied_and_stays_so(bench: Drain, capfd: pytest.CaptureFixture[str]) -> None:
    machine = bench.machine
    bench.run(4)
    before = [entry["raw_uuid"] for entry in machine.load()]
    bench.mark()
    assert bench.drain() == 0
    said = capfd.readouterr().err
    assert "4 of 4 blocks of dax0.0 are empty and offline" in said
    assert "nothing of region0 is memory; safe to remove" in said
    assert machine.online() == []
    # the namespace is there as it was
    assert [entry["raw_uuid"] for entry in machine.load()] == before
    assert machine.acts()[2:] == ["devdax dax0.0"]
    assert bench.outcomes()[-2:] == [("offline-blocks", "done"), ("devdax", "done")]

    # neither a boot nor a reload brings it back, and neither is a failure
    assert convert.main(["pmem0"]) == 0
    assert "region0 is drained, and stays so" in capfd.readouterr().err
    assert machine.online() == [] and machine.acts()[3:] == []
    # a second time there is nothing to do
    assert bench.drain() == 0 and machine.acts()[3:] == []

    forget_drained(bench.record.parent, frozenset({ISET}))
    assert convert.main(["pmem0"]) == 0
    assert len(machine.online()) == 4 and machine.acts()[3:] == ["system-ram dax0.0"]
    assert [entry["raw_uuid"] for entry in machine.load()] == before


def test_what_is_mapped_and_closed_is_not_safe(bench: Drain, capfd: pytest.CaptureFixture[str]) -> None:
    machine = bench.machine
    bench.run(4)
    machine.create(640 << 20, "db", "devdax")
    process = machine.root.proc / "4242"
    for name in ("fd", "ns"):
        (process / name).mkdir(parents=True)
    line = "7f0000000000-7f0000200000 rw-s 00000000 00:06 1 /dev/dax0.1\n"
    for name, content in {"comm": "postgres\n", "maps": line, "mountinfo": ""}.items():
        (process / name).write_text(content)
    (process / "ns/mnt").symlink_to("mnt:[1]")
    bench.mark()
    assert bench.drain() == 0 and machine.online() == []
    said = capfd.readouterr().err
    assert "not safe to remove: namespace0.1 is in use: process 4242 (postgres) has it mapped" in said


def test_every_slice_goes_whoever_made_it(bench: Drain) -> None:
    machine = bench.machine
    bench.run(3)
    bench.run(6)
    assert machine.create(640 << 20, "by hand", "devdax") == 2
    machine.write("sys/devices/system/memory/auto_online_blocks", "online_movable")
    assert machine.daxctl(["reconfigure-device", "-m", "system-ram", "-N", "-f", "dax0.2"]) == 0
    machine.draw_nodes()
    assert len(machine.online()) > 6
    bench.mark()
    assert bench.drain() == 0
    assert machine.online() == [] and len(machine.load()) == 3
    # what tierd did not make has not become its own by being drained
    made = intents.Intents(bench.record, machine.root).made()
    assert {name for name, _ in made} == {"pmem0", "pmem0+2"}


def test_what_cannot_be_emptied_is_online_again_and_the_mark_stays(
    bench: Drain, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.run(4)
    bench.mark(deadline=7.0)
    with monkeypatch.context() as patch:
        stuck(patch, 34)
        assert bench.drain() == one_shot.Exit.FAILED
    assert "could not be emptied in 7 s" in capfd.readouterr().err
    assert bench.machine.online() == [33, 34, 35, 36]
    assert [mark.iset_id for mark in read_drained(bench.record.parent)] == [ISET]
    # and a request changes nothing of it meanwhile
    assert convert.main(["pmem0"]) == 0
    assert bench.machine.online() == [33, 34, 35, 36]
    assert bench.drain() == 0 and bench.machine.online() == []


def test_a_stop_leaves_all_online(bench: Drain, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(4)
    bench.mark()
    with monkeypatch.context() as patch:
        stuck(patch, 33, error=one_shot.Stopped())
        assert bench.drain() == one_shot.Exit.FAILED
    assert bench.machine.online() == [33, 34, 35, 36]
    assert bench.drain() == 0 and bench.machine.online() == []


def test_it_refuses_what_has_no_place(bench: Drain, capfd: pytest.CaptureFixture[str]) -> None:
    machine = bench.machine
    bench.run(4)
    machine.draw_nodes(used=4 * BLOCK)
    machine.write(
        "sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:  800000 kB\nNode 0 MemFree:  1000 kB"
    )
    bench.mark()
    code = drain.main([NAMED])
    assert code == one_shot.Exit.REFUSED
    assert "would have no place" in capfd.readouterr().err
    assert len(machine.online()) == 4


def test_nothing_is_drained_that_nobody_marked(bench: Drain, capfd: pytest.CaptureFixture[str]) -> None:
    bench.run(4)
    assert bench.drain() == one_shot.Exit.FAILED
    assert bench.drain("0x1") == one_shot.Exit.FAILED
    assert "is not marked as drained" in capfd.readouterr().err
    assert len(bench.machine.online()) == 4


def test_memory_outside_the_movable_zone_is_refused(bench: Drain) -> None:
    machine = bench.machine
    bench.run(4)
    (machine.root.memory_blocks / "memory33/valid_zones").write_text("Normal\n")
    inventory = take_inventory(machine.root, machine.tools, intents.Intents(bench.record, machine.root))
    plan = plan_drain(inventory, inventory.regions[0])
    assert plan.verdict is Verdict.REFUSED and [r.kind for r in plan.refusals] == ["zone"]
    assert plan.leaving == 4 * BLOCK


def test_the_marks_are_kept_whole(tmp_path: Path) -> None:
    mark_drained(tmp_path, frozenset({7, 8}), None)
    first = read_drained(tmp_path)
    mark_drained(tmp_path, frozenset({8}), 60.0)
    again = read_drained(tmp_path)
    assert [(m.iset_id, m.deadline) for m in again] == [(7, None), (8, 60.0)]
    assert again[1].since == first[1].since
    assert (tmp_path / NAME).stat().st_mode & 0o7777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME]
    forget_drained(tmp_path, frozenset({7, 8}))
    assert read_drained(tmp_path) == () and json.loads((tmp_path / NAME).read_text()) == {"regions": []}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"regions": [{"iset_id": 7}]}', '{"regions": [3]}'])
def test_marks_that_cannot_be_read_stop_everything(text: str, bench: Drain) -> None:
    bench.run(4)
    (bench.record.parent / NAME).write_text(text)
    assert bench.drain() == one_shot.Exit.FAILED
    assert convert.main(["pmem0"]) == one_shot.Exit.FAILED
    assert len(bench.machine.online()) == 4


def test_the_unit_has_the_sandbox_of_the_other() -> None:
    def service(name: str) -> list[str]:
        text = (ROOT / "systemd" / name).read_text(encoding="utf-8")
        body = text.partition("[Service]")[2].partition("[Install]")[0]
        own = ("ExecStart=", "ExecReload=", "RemainAfterExit=", "NotifyAccess=", "#")
        return [line for line in body.splitlines() if not line.startswith(own)]

    assert service("tierd-drain@.service")[:-1] == service("tierd-convert@.service")[:-2]
    unit = settings("tierd-drain@.service")
    assert "tierd.service.drain" in unit["ExecStart"] and "RemainAfterExit" not in unit
