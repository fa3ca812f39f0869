"""A region appears, on a simulated machine: taken up when the policy says so, reported otherwise."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.fixtures.region import ISET, SIZE, SimulatedRegion
from tests.service.conftest import ROOT, DaemonProgram, wait_for
from tests.service.test_boot import settings
from tierd.config.loader import parse
from tierd.core.policy import Policy
from tierd.errors import ConfigError
from tierd.kernel import intents
from tierd.kernel.drained import mark_drained
from tierd.kernel.inventory import take_inventory
from tierd.kernel.paths import Root
from tierd.kernel.regions import read_regions
from tierd.kernel.tools import ToolResult, Tools
from tierd.service import hotplug
from tierd.service.conversion import Converter
from tierd.service.devices import DeviceWatch

UNIT = "tierd-convert@pmem0.service"


class Plug:
    """The program, its policy, and what it asks of systemd."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = SimulatedRegion(directory / "machine").begin()
        self.state = directory / "state"
        self.monkeypatch = monkeypatch
        self.calls: list[str] = []
        self.enabled, self.active, self.works = True, "inactive", True
        run = Tools.run

        def running(tools: Tools, argv: tuple[str, ...], *, deadline: float = 60.0) -> ToolResult:
            if argv[0] != "systemctl":
                return run(tools, argv, deadline=deadline)
            self.calls.append(" ".join(argv[1:]))
            answer = {
                "is-enabled": (0 if self.enabled else 1, b"", ""),
                "show": (0, f"{self.active}\n".encode(), ""),
                "reload-or-restart": (0 if self.works else 5, b"", "" if self.works else "Unit not found."),
            }[argv[1]]
            return ToolResult(argv, *answer)

        monkeypatch.setattr(Tools, "run", running)
        monkeypatch.setattr(hotplug, "Root", lambda: self.machine.root)
        monkeypatch.setattr(hotplug, "Tools", lambda: self.machine.tools)
        monkeypatch.setattr(hotplug, "SETTLE_DEADLINE", 0.0)
        monkeypatch.setattr(intents, "DEFAULT_PATH", self.state / "conversions.jsonl")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        self.ask()

    def ask(self, iset: int = ISET, mode: str = "apply") -> None:
        request = f"{{name: pmem0, region: {{iset_id: '{iset:#x}'}}, size: 512MiB, mode: {mode}}}"
        policy = parse(f"version: 1\nprovision:\n  - {request}\n".encode(), "here")
        self.monkeypatch.setattr(hotplug.tierd.config, "load", lambda _: policy)

    def ask_for(self, uuid: str) -> None:
        request = f"{{name: pmem0, namespace: {{uuid: {uuid}}}, consent: destroy, mode: apply}}"
        policy = parse(f"version: 1\nprovision:\n  - {request}\n".encode(), "here")
        self.monkeypatch.setattr(hotplug.tierd.config, "load", lambda _: policy)


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plug:
    return Plug(tmp_path, monkeypatch)


def appear(capfd: pytest.CaptureFixture[str], name: str = "region0", code: int = 0) -> str:
    assert hotplug.main([name]) == code
    said = capfd.readouterr().err
    assert len(said.splitlines()) <= 1, said
    return said


def test_what_is_enabled_is_taken_up(plug: Plug, capfd: pytest.CaptureFixture[str]) -> None:
    for plug.active in ("inactive", "failed", "active"):
        said = appear(capfd)
        assert "region0: 4GiB of persistent memory, 4GiB free; request pmem0 takes it up" in said
        assert plug.calls.pop() == f"reload-or-restart --no-block {UNIT}"
    # one that waits for it already is left alone
    for plug.active in ("activating", "reloading"):
        assert "takes it up" in appear(capfd)
        assert plug.calls[-1].startswith("show")
    assert plug.machine.acts() == [], "only the unit acts"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unclaimed", f'no request of the policy names it (iset_id: "{ISET:#x}")'),
        ("plan", "request pmem0 would use it, and says `mode: plan`"),
        ("disabled", f"request pmem0 would use it: `systemctl enable --now {UNIT}` lets it"),
        ("drained", "request pmem0 is refused: region0 is drained"),
        ("read-only", "request pmem0 is refused: region0 is read-only"),
        ("labels", "tierd would not use it: region0 has no labels"),
    ],
)
def test_everything_else_is_reported(
    plug: Plug, case: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if case in ("unclaimed", "labels"):
        plug.ask(iset=5)
    if case == "plan":
        plug.ask(mode="plan")
    if case == "drained":
        mark_drained(plug.state, frozenset({ISET}), None)
    if case == "read-only":
        plug.machine.write("sys/bus/nd/devices/region0/read_only", "1")
    if case == "labels":
        plug.machine.write("sys/bus/nd/devices/region0/nstype", "4")
    plug.enabled = case != "disabled"
    assert words in appear(capfd)
    assert not [call for call in plug.calls if call.startswith("reload-or-restart")]


def test_what_a_namespace_holds_is_for_its_unit_to_find_out(
    plug: Plug, capfd: pytest.CaptureFixture[str]
) -> None:
    plug.machine.create(512 << 20, "store", "raw")
    record = intents.Intents(intents.DEFAULT_PATH, plug.machine.root)
    (namespace,) = take_inventory(plug.machine.root, plug.machine.tools, record).regions[0].namespaces
    assert namespace.uuid is not None
    plug.ask_for("8459ba59-89bc-4a92-8717-7ee89e284fea")
    assert "no request of the policy names it" in appear(capfd)
    plug.ask_for(namespace.uuid)
    assert "request pmem0 takes it up" in appear(capfd)
    assert plug.calls[-1] == f"reload-or-restart --no-block {UNIT}"


def test_requests_for_cxl_memory_are_no_concern_of_a_region(
    plug: Plug, capfd: pytest.CaptureFixture[str]
) -> None:
    request = "{name: cxl0, cxl: {serials: ['0x1']}, size: all, mode: apply}"
    policy = parse(f"version: 1\nprovision:\n  - {request}\n".encode(), "here")
    plug.monkeypatch.setattr(hotplug.tierd.config, "load", lambda _: policy)
    assert "no request of the policy names it" in appear(capfd)
    assert plug.calls == []


def test_what_is_there_already_is_not_started_again(plug: Plug, capfd: pytest.CaptureFixture[str]) -> None:
    record = intents.Intents(intents.DEFAULT_PATH, plug.machine.root)
    policy = hotplug.tierd.config.load(Path())
    Converter(plug.machine.root, plug.machine.tools, record, lambda *_: None).run(policy.provision[0])
    plug.machine.draw_nodes()
    assert "request pmem0 has what it asks for" in appear(capfd)
    assert plug.calls == []


def test_one_that_has_gone_again_is_no_failure(plug: Plug, capfd: pytest.CaptureFixture[str]) -> None:
    assert appear(capfd, "region7") == ""


def test_failures_are_one_line(plug: Plug, capfd: pytest.CaptureFixture[str]) -> None:
    plug.works = False
    assert "request pmem0 cannot be started: Unit not found." in appear(capfd)

    def fail(error: Exception) -> None:
        def load(_: Path) -> Policy:
            raise error

        plug.monkeypatch.setattr(hotplug.tierd.config, "load", load)

    fail(ConfigError(("tierd.yaml:1:1: bad", "and more")))
    assert "the policy cannot be used: tierd.yaml:1:1: bad" in appear(capfd, code=78)
    fail(RuntimeError("no"))
    assert "internal error: RuntimeError: no" in appear(capfd, code=1)
    plug.monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root" in appear(capfd, code=77)


def test_the_rule_starts_one_unit_for_each_region() -> None:
    lines = (ROOT / "systemd/90-tierd.rules").read_text(encoding="utf-8").splitlines()
    (rule,) = [line for line in lines if line and not line.startswith("#")]
    assert 'ACTION=="add", SUBSYSTEM=="nd", KERNEL=="region[0-9]*"' in rule
    assert 'ENV{SYSTEMD_WANTS}+="tierd-hotplug@%k.service"' in rule and "RUN" not in rule
    unit = settings("tierd-hotplug@.service")
    assert unit["Type"] == ["oneshot"] and "RemainAfterExit" not in unit
    # it may look, and start what acts; it cannot write a kernel setting
    assert unit["ProtectKernelTunables"] == ["yes"] and unit["ProtectKernelModules"] == ["yes"]


def test_everybody_may_see_the_regions(tmp_path: Path) -> None:
    machine = SimulatedRegion(tmp_path).begin()
    (found,) = read_regions(machine.root)
    assert (found.name, found.iset_id, found.size, found.available) == ("region0", None, SIZE, SIZE)
    machine.write("sys/bus/nd/devices/region0/set_cookie", f"{ISET:#x}")
    machine.write("sys/bus/nd/devices/region1/size", "busy")
    (found,) = read_regions(machine.root)
    assert found.iset_id == ISET
    machine.write("sys/bus/nd/devices/region0/nstype", "4")
    assert read_regions(machine.root)[0].iset_id is None
    assert read_regions(Root(tmp_path / "nothing")) == ()


def test_the_watch_tells_changes_only() -> None:
    looks = iter([(), ("a",), ("a",), ("b",), ("b",)])
    told: list[tuple[str, ...]] = []
    failed = threading.Event()
    watch = DeviceWatch(lambda: next(looks), told.append, lambda error: failed.set(), seconds=0.0)
    watch.start()
    assert failed.wait(5)
    assert told == [("a",), ("b",)]


@pytest.mark.service
def test_the_daemon_shows_them_and_follows_the_policy(
    start_daemon: Callable[..., DaemonProgram],
) -> None:
    daemon = start_daemon("--new-region").on_bus()
    wait_for(lambda: daemon.properties()["Notices"] == ["region9 is new, place"], "the notices")
    daemon.policy.write_text("version: 1\nengine:\n  mode: observe\n")
    daemon.call("Reload")
    wait_for(lambda: daemon.properties()["Notices"] == ["region9 is new, observe"], "the next look")
