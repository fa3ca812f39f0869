"""Carrying out a plan on a recorded machine whose tools work, lie, and die at every point."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.fixtures.provisioned import ISET, Machine
from tierd.core.policy import ProvisionMode, ProvisionRequest
from tierd.core.provision import Verdict
from tierd.errors import DeniedError, TierdError
from tierd.kernel import intents
from tierd.kernel.intents import Intents
from tierd.kernel.paths import Root
from tierd.service import recovery
from tierd.service.conversion import ConversionError, Converter

GIB = 1 << 30
REQUEST = ProvisionRequest("pmem0", ISET, GIB, ProvisionMode.APPLY)
CREATE = (
    "ndctl create-namespace -r region0 -s 1207959552 -m devdax -M mem -a 2M -n tierd:pmem0 --no-autolabel"
)
FINISH = "ndctl create-namespace -e namespace0.0 -f -m devdax -M mem -a 2M -n tierd:pmem0 --no-autolabel"
CONVERT = "daxctl reconfigure-device -m system-ram -N -f dax0.0"
BACK = "daxctl reconfigure-device -m devdax -f dax0.0"


class Bench:
    """A converter on a machine, with what it reported."""

    def __init__(self, directory: Path, state: str = "free") -> None:
        self.machine = Machine(directory, state)
        random = self.machine.root.proc / "sys/kernel/random/boot_id"
        assert random.exists()
        self.record = directory / "state/conversions.jsonl"
        self.reports: list[tuple[str, str]] = []
        self.now = 0.0

    @property
    def converter(self) -> Converter:
        machine = self.machine
        return Converter(
            machine.root,
            machine.tools,
            Intents(self.record, machine.root),
            self._report,
            self._clock,
            self._sleep,
        )

    def _report(self, kind: str, words: str, fields: Mapping[str, str]) -> None:
        self.reports.append((kind, words))

    def _clock(self) -> float:
        return self.now

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_free_capacity_becomes_memory_and_a_second_run_runs_nothing(bench: Bench) -> None:
    plan = bench.converter.run(REQUEST)
    assert plan.verdict is Verdict.DONE
    assert bench.machine.acts() == [CREATE, CONVERT]
    assert bench.machine.policy() == "online"
    assert [kind for kind, _ in bench.reports] == ["begun", "step-done", "begun", "step-done"]
    lines = len(bench.records())
    assert bench.converter.run(REQUEST).verdict is Verdict.DONE
    assert bench.machine.acts() == [CREATE, CONVERT]
    assert len(bench.records()) == lines == 4


def test_every_act_is_recorded_before_it_is_done_with_absolute_paths(bench: Bench) -> None:
    bench.machine.stub(
        "ndctl",
        f'[ "$1" = list ] && exec cat ../ndctl.json\ncp {bench.record} ../seen; exec "$SWITCH" devdax',
    )
    bench.converter.run(REQUEST)
    seen = json.loads((bench.machine.directory / "seen").read_text())
    assert (seen["record"], seen["action"]) == ("intent", "create-namespace")
    assert seen["acts"] == [f"{bench.machine.bin}/{CREATE}"]
    saved = [record["saved"] for record in bench.records() if record["record"] == "intent"]
    assert saved == [{}, {"devices/system/memory/auto_online_blocks": "online"}]


def test_the_policy_is_what_is_needed_while_daxctl_runs(bench: Bench) -> None:
    policy = bench.machine.root.memory_blocks / "auto_online_blocks"
    bench.machine.stub("daxctl", f'cp {policy} ../policy-then; exec "$SWITCH" system-ram')
    bench.converter.run(REQUEST)
    assert (bench.machine.directory / "policy-then").read_text() == "online_movable"
    assert bench.machine.policy() == "online"


@pytest.mark.parametrize("policy", ["offline", "online", "online_kernel", "online_movable"])
def test_every_policy_is_put_back(bench: Bench, policy: str) -> None:
    bench.machine.write("sys/devices/system/memory/auto_online_blocks", f"{policy}\n")
    assert bench.converter.run(REQUEST).verdict is Verdict.DONE
    assert bench.machine.policy() == policy


def test_after_a_reboot_only_daxctl_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "devdax")
    assert bench.converter.run(REQUEST).verdict is Verdict.DONE
    assert bench.machine.acts() == [CONVERT]


def test_a_refusal_runs_and_records_nothing(bench: Bench) -> None:
    plan = bench.converter.run(replace(REQUEST, iset_id=1))
    assert plan.verdict is Verdict.REFUSED
    assert bench.machine.acts() == []
    assert not bench.record.exists()


LIES = {
    "silent success": "exit 0",
    "failure": "echo Device or resource busy >&2; exit 240",
    "killed": "kill -9 $$",
    "garbage": "head -c 1000 /dev/urandom; exit 0",
    "too much": "exec yes",
}


@pytest.mark.parametrize("lie", LIES)
def test_an_ndctl_that_did_nothing_is_not_believed(bench: Bench, lie: str) -> None:
    bench.machine.stub("ndctl", f'[ "$1" = list ] && exec cat ../ndctl.json\n{LIES[lie]}')
    with pytest.raises(ConversionError, match="pmem0: "):
        bench.converter.run(REQUEST)
    assert bench.machine.acts() == [CREATE]
    assert bench.records()[-1]["outcome"] == "failed"
    assert bench.machine.policy() == "online"


@pytest.mark.parametrize("lie", LIES)
def test_a_daxctl_that_did_nothing_is_not_believed(bench: Bench, lie: str) -> None:
    bench.machine.stub("daxctl", LIES[lie])
    with pytest.raises(ConversionError, match="pmem0: "):
        bench.converter.run(REQUEST)
    assert bench.machine.acts() == [CREATE, CONVERT]
    assert bench.records()[-1]["outcome"] == "failed"
    assert bench.machine.policy() == "online"
    bench.machine.stub("daxctl", 'exec "$SWITCH" system-ram')
    assert bench.converter.run(REQUEST).verdict is Verdict.DONE


def test_a_daxctl_that_fails_and_did_it_all_the_same_is_done(bench: Bench) -> None:
    bench.machine.stub("daxctl", '"$SWITCH" system-ram; echo reconfigured 0 devices >&2; exit 1')
    assert bench.converter.run(REQUEST).verdict is Verdict.DONE


@pytest.mark.parametrize("listing", ["", "[]", "not json", '{"regions": [{"dev": 1}]}'])
def test_a_listing_that_is_none_creates_nothing(bench: Bench, listing: str) -> None:
    bench.machine.stub("ndctl", f"[ \"$1\" = list ] && echo '{listing}'")
    try:
        assert bench.converter.run(REQUEST).verdict is Verdict.REFUSED
    except TierdError:
        pass
    assert bench.machine.acts() == []


def wrong_zone(bench: Bench) -> str:
    """A daxctl under which the blocks come online in ZONE_NORMAL, and which can undo that."""
    blocks = bench.machine.root.memory_blocks
    return (
        f'[ "$3" = devdax ] && exec "$SWITCH" devdax\n"$SWITCH" system-ram\n'
        f"for block in {blocks}/memory3? {blocks}/memory40; do echo Normal > $block/valid_zones; done"
    )


def test_memory_outside_the_movable_zone_is_rolled_back(bench: Bench) -> None:
    bench.machine.stub("daxctl", wrong_zone(bench))
    with pytest.raises(ConversionError, match="8 of 8 blocks came online outside ZONE_MOVABLE.*rolled back"):
        bench.converter.run(REQUEST)
    assert bench.machine.acts() == [CREATE, CONVERT, BACK]
    assert bench.machine.policy() == "online"
    assert bench.converter.look().regions[0].namespaces[0].dax is not None
    outcomes = [(r["action"], r["outcome"]) for r in bench.records() if r["record"] == "result"]
    assert outcomes == [("create-namespace", "done"), ("system-ram", "failed")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_what_went_wrong_is_rolled_back_and_told_on_a_full_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """From the intent on nothing can be written."""
    bench.machine.stub("daxctl", wrong_zone(bench))
    whole = 3

    def write(descriptor: int, content: bytes) -> None:
        if bench.record.read_bytes().count(b"\n") >= whole:
            raise OSError(code, os.strerror(code))
        os.write(descriptor, content)

    with monkeypatch.context() as full:
        full.setattr(intents, "write_all", write)
        with pytest.raises(DeniedError) as caught:
            bench.converter.run(REQUEST)
    said = str(caught.value)
    assert os.strerror(code) in said and "nothing is done" not in said
    assert "8 of 8 blocks came online outside ZONE_MOVABLE" in said and "rolled back" in said
    assert bench.machine.acts() == [CREATE, CONVERT, BACK]
    assert bench.machine.policy() == "online"
    assert len(bench.records()) == whole, "the intent stays open"
    bench.machine.stub("daxctl", 'exec "$SWITCH" system-ram')
    bench.converter.recover()
    assert bench.converter.run(REQUEST).verdict is Verdict.DONE


def test_a_step_that_succeeded_and_cannot_be_recorded_is_told_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(descriptor: int, content: bytes) -> None:
        if bench.record.read_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.write(descriptor, content)

    monkeypatch.setattr(intents, "write_all", write)
    with pytest.raises(DeniedError, match="not recorded: create-namespace done"):
        bench.converter.run(REQUEST)
    assert bench.machine.acts() == [CREATE]


def test_memory_that_comes_into_the_tier_of_dram_is_rolled_back(bench: Bench) -> None:
    tiers = bench.machine.root.memory_tiers
    bench.machine.stub(
        "daxctl",
        f'[ "$3" = devdax ] && exec "$SWITCH" devdax\n"$SWITCH" system-ram\n'
        f"rm -r {tiers}/memory_tier56; echo 0-1 > {tiers}/memory_tier4/nodelist",
    )
    with pytest.raises(ConversionError, match="memory_tier4 together with DRAM.*rolled back"):
        bench.converter.run(REQUEST)
    assert bench.machine.acts()[-1] == BACK


def test_what_stays_online_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.machine.stub("daxctl", wrong_zone(bench))
    monkeypatch.setattr("tierd.service.recovery.take_offline", lambda *_: (33, 34))
    with pytest.raises(ConversionError, match="2 blocks of dax0.0 are in use and stay online"):
        bench.converter.run(REQUEST)
    assert bench.machine.acts() == [CREATE, CONVERT]


class Killed(BaseException):
    """SIGKILL, as near as one gets within a process: nothing that handles failures sees it."""


def killed_in(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: int, after: bool) -> None:
    """Run until the tool's `call`-th act, and be killed before or after it."""
    seen = 0
    run = type(bench.machine.tools).run

    def dying(self: object, argv: tuple[str, ...], *, deadline: float = 60.0) -> object:
        nonlocal seen
        if argv[1] == "list":
            return run(bench.machine.tools, argv, deadline=deadline)
        seen += 1
        if seen == call and not after:
            raise Killed
        result = run(bench.machine.tools, argv, deadline=deadline)
        if seen == call:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(type(bench.machine.tools), "run", dying)
        # a killed process puts nothing back
        patch.setattr(Converter, "_put_back", lambda *_: False)
        with pytest.raises(Killed):
            bench.converter.run(REQUEST)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", [1, 2])
def test_a_run_that_was_killed_is_finished_by_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: int, after: bool
) -> None:
    killed_in(bench, monkeypatch, call, after)
    if call == 2:
        assert bench.machine.policy() == "online_movable"
    converter = bench.converter
    converter.recover()
    assert bench.machine.policy() == "online"
    assert converter.run(REQUEST).verdict is Verdict.DONE
    assert bench.machine.policy() == "online"
    assert bench.machine.acts() == [CREATE, CONVERT]
    assert Intents(bench.record, bench.machine.root).open_intents() == ()
    before = len(bench.records())
    converter.recover()
    assert len(bench.records()) == before


def test_settings_of_an_earlier_boot_are_not_put_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_in(bench, monkeypatch, 2, False)
    bench.machine.write("proc/sys/kernel/random/boot_id", "another\n")
    bench.converter.recover()
    assert bench.machine.policy() == "online_movable"


def test_a_policy_that_somebody_else_set_meanwhile_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_in(bench, monkeypatch, 2, False)
    bench.machine.write("sys/devices/system/memory/auto_online_blocks", "offline\n")
    bench.converter.recover()
    assert bench.machine.policy() == "offline"
    assert any("somebody else set" in words for _, words in bench.reports)


def test_the_wrong_zone_of_a_run_that_was_killed_is_rolled_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.machine.stub("daxctl", wrong_zone(bench))
    killed_in(bench, monkeypatch, 2, True)
    bench.converter.recover()
    assert bench.machine.acts()[-1] == BACK
    bench.machine.stub("daxctl", 'exec "$SWITCH" system-ram')
    assert bench.converter.run(REQUEST).verdict is Verdict.DONE


def test_a_node_without_kswapd_gets_it_by_a_block_that_comes_online(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel cannot start it while the task that onlines is being killed."""
    killed_in(bench, monkeypatch, 2, True)
    bench.machine.write("proc/50/comm", "kswapd0\n")
    bench.machine.write("proc/51/comm", "kcompactd0\n")
    bench.machine.write("proc/61/comm", "kcompactd1\n")
    written: list[tuple[str, str]] = []
    write = recovery.write_setting

    def onlining(root: Root, path: str, value: str) -> None:
        write(root, path, value)
        written.append((path, value))
        if path.endswith("memory40/state"):
            bench.machine.write("proc/60/comm", "kswapd1\n")

    monkeypatch.setattr(recovery, "write_setting", onlining)
    bench.converter.recover()
    assert ("devices/system/memory/memory40/state", "online_movable") in written
    assert "started kswapd1" in bench.reports[-1][1]


def test_a_namespace_that_ndctl_left_half_made_is_finished(bench: Bench) -> None:
    bench.machine.stub(
        "ndctl",
        '[ "$1" = list ] && exec cat ../ndctl.json\n'
        '[ "$2" = -r ] && { "$SWITCH" raw; kill -9 $$; }\n'
        'exec "$SWITCH" devdax',
    )
    with pytest.raises(ConversionError, match="raw"):
        bench.converter.run(REQUEST)
    assert bench.converter.run(REQUEST).verdict is Verdict.DONE
    assert bench.machine.acts() == [CREATE, FINISH, CONVERT]


def test_a_half_made_namespace_in_use_is_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.machine.stub("ndctl", '[ "$1" = list ] && exec cat ../ndctl.json\n"$SWITCH" raw; kill -9 $$')
    with pytest.raises(ConversionError):
        bench.converter.run(REQUEST)
    (bench.machine.root.nd_devices / "namespace0.0/block/pmem0").mkdir(parents=True)
    opened = os.open

    def busy(path: str, flags: int, *rest: object, **more: object) -> int:
        if str(path).endswith("dev/pmem0"):
            assert flags & os.O_EXCL
            raise OSError(16, "Device or resource busy", str(path))
        return opened(path, flags, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(ConversionError, match="in use, and left alone: the kernel holds pmem0"):
        bench.converter.run(REQUEST)
    assert bench.machine.acts() == [CREATE]


# The program around it.
