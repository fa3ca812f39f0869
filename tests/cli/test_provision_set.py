"""`tierctl provision set` on a simulated region, with a policy of its own."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from tests.kernel.fixtures.region import ISET, SimulatedRegion
from tests.kernel.test_files import room_for
from tierd.cli import main, provision, provision_apply, provision_set, requests
from tierd.config import files
from tierd.config.loader import parse
from tierd.kernel.intents import Intents
from tierd.kernel.tools import ToolResult, Tools
from tierd.service.conversion import Converter

TEXT = f"""\
version: 1
provision:
  - name: pmem0     # ours
    region: {{iset_id: "{ISET:#x}"}}
    size: 1GiB
    mode: apply
"""


class Bench:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = SimulatedRegion(directory).begin()
        self.policy = directory / "tierd.yaml"
        self.policy.write_text(TEXT)
        self.policy.chmod(0o640)
        self.record = directory / "state/conversions.jsonl"
        self.units: list[str] = []
        self.works = True
        run = Tools.run

        def running(tools: Tools, argv: tuple[str, ...], *, deadline: float = 60.0) -> ToolResult:
            if argv[0] != "systemctl":
                return run(tools, argv, deadline=deadline)
            assert argv[1] == "reload-or-restart"
            self.units.append(argv[2])
            if self.works:
                self.carry_out()
            return ToolResult(argv, 0, b"", "")

        monkeypatch.setattr(Tools, "run", running)
        for module in (provision, provision_apply, provision_set):
            monkeypatch.setattr(module, "Root", lambda: self.machine.root)
            monkeypatch.setattr(module, "Tools", lambda: self.machine.tools)
        monkeypatch.setattr(provision, "DEFAULT_PATH", self.record)
        monkeypatch.setattr(requests, "DEFAULT_PATH", self.policy)
        monkeypatch.setattr(files, "DIRECTORIES", (directory, directory / "run", directory / "lib"))
        monkeypatch.setattr(os, "geteuid", lambda: 0)

    def carry_out(self) -> None:
        record = Intents(self.record, self.machine.root)
        converter = Converter(self.machine.root, self.machine.tools, record, lambda *_: None)
        (request,) = parse(self.policy.read_bytes(), "here").provision
        converter.run(request)
        self.machine.draw_nodes()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    if os.getuid() != 0:
        pytest.skip("the policy's owner is checked")
    parent = tmp_path
    while parent != Path("/"):
        if parent.stat().st_mode & 0o022 and not parent.stat().st_mode & 0o1000:
            pytest.skip(f"{parent} is not safe")
        parent = parent.parent
    return Bench(tmp_path, monkeypatch)


def run(*words: str) -> int:
    return main.main(["provision", "set", *words])


def test_it_grows_and_shrinks_and_changes_one_value(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("pmem0", "2GiB", "--yes") == 0
    assert bench.policy.read_text() == TEXT.replace("1GiB", "2GiB")
    assert bench.policy.stat().st_mode & 0o7777 == 0o640
    assert bench.units == ["tierd-convert@pmem0.service"]
    assert len(bench.machine.online()) == 16
    assert "becomes 2GiB in 16 blocks" in capsys.readouterr().out
    assert run("pmem0", "all but 3GiB", "--yes") == 0
    assert "size: all but 3GiB\n" in bench.policy.read_text()
    assert len(bench.machine.online()) == 7
    assert run("pmem0", "none", "--yes") == 0
    assert bench.machine.online() == [] and bench.machine.load() == []
    assert sorted(path.name for path in bench.policy.parent.glob(".tierd*")) == []


def test_without_consent_it_only_shows(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pmem0", "2GiB") == 1
    said = capsys.readouterr()
    assert "ndctl create-namespace" in said.out and "nothing was changed" in said.err
    assert bench.policy.read_text() == TEXT and bench.units == [] and bench.machine.acts() == []


@pytest.mark.parametrize(("answer", "units"), [("y\n", 1), ("\n", 0), ("no\n", 0), ("", 0)])
def test_it_asks_on_a_terminal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: str, units: int
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert run("pmem0", "2GiB") == (0 if units else 1)
    assert len(bench.units) == units
    assert (bench.policy.read_text() == TEXT) is (units == 0)


def test_a_refusal_writes_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pmem0", "64GiB", "--yes") == 1
    assert "not enough free capacity" in capsys.readouterr().out
    assert bench.policy.read_text() == TEXT and bench.units == []


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("other", "2GiB"), 5, "no request named other"),
        (("pmem0", "2"), 2, "SIZE `2` is a bare number"),
        (("pmem0", "1GB"), 2, "SIZE `1GB` is not a size; write 1GiB (the policy is unchanged)"),
        (("pmem0", "64MiB"), 2, "SIZE `64MiB` is less than the minimum"),
    ],
)
def test_what_cannot_be_meant(
    bench: Bench, words: tuple[str, ...], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, "--yes") == status
    assert says in capsys.readouterr().err
    assert bench.policy.read_text() == TEXT


def test_a_unit_that_did_not_do_it_is_not_believed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.works = False
    assert run("pmem0", "2GiB", "--yes") == 1
    assert "journalctl -u tierd-convert@pmem0.service" in capsys.readouterr().err


def test_with_mode_plan_nothing_is_run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.policy.write_text(TEXT.replace("apply", "plan"))
    assert run("pmem0", "2GiB", "--yes") == 0
    assert "nothing is run while it says `mode: plan`" in capsys.readouterr().out
    assert bench.units == [] and "2GiB" in bench.policy.read_text()


def test_a_policy_that_changed_meanwhile_stays(bench: Bench) -> None:
    with pytest.raises(provision_set.ChangedError):
        provision_set.write_policy(bench.policy, b"what it was", b"what it would be")
    assert bench.policy.read_text() == TEXT
    assert list(bench.policy.parent.glob(".tierd*")) == []


def test_a_policy_is_replaced_whole_or_not_at_all(bench: Bench) -> None:
    long = TEXT + "# a comment\n" * 400
    with room_for(4096), pytest.raises(OSError):
        provision_set.write_policy(bench.policy, TEXT.encode(), long.encode())
    assert bench.policy.read_text() == TEXT
    assert list(bench.policy.parent.glob(".tierd*")) == []
    provision_set.write_policy(bench.policy, TEXT.encode(), long.encode())
    assert bench.policy.read_text() == long


def drop_in(bench: Bench, name: str, text: str) -> Path:
    path = bench.policy.parent / "conf.d" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_it_writes_the_file_in_which_the_request_stands(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "carry_out", lambda: None)
    early = drop_in(bench, "10-memory.yaml", TEXT)
    path = drop_in(bench, "50-memory.yaml", TEXT.replace("apply", "plan"))
    other = drop_in(bench, "60-engine.yaml", "version: 1\nengine: {round: 2s}\n")
    assert run("pmem0", "2GiB", "--yes") == 0
    assert path.read_text() == TEXT.replace("apply", "plan").replace("1GiB", "2GiB")
    assert bench.policy.read_text() == early.read_text() == TEXT and "2s" in other.read_text()
    assert f"{path} is changed" in capsys.readouterr().out
    assert run("other", "2GiB", "--yes") == 5
    assert f"{path} has no request named other" in capsys.readouterr().err


def test_a_bad_drop_in_keeps_the_policy_from_being_changed(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = drop_in(bench, "60-engine.yaml", "version: 1\nengine: {round: 2}\n")
    assert run("pmem0", "2GiB", "--yes") == 78
    assert f"{bad}:2:17: engine.round: " in capsys.readouterr().err
    assert bench.policy.read_text() == TEXT and bench.units == []


def test_only_root_may(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("pmem0", "2GiB", "--yes") == 4
    assert bench.policy.read_text() == TEXT
