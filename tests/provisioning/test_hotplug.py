"""A region appears, on a simulated machine: taken up when the policy says so, reported otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel.fixtures.region import ISET, SIZE, SimulatedRegion
from tests.kernel.fixtures.simulated_cxl import GIB, SimulatedCxl
from tests.service.conftest import ROOT
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
from tierd.service.cxl_conversion import CxlConverter

UNIT = "tierd-convert@pmem0.service"


class Plug:
    """The program, its policy, and what it asks of systemd."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = SimulatedRegion(directory / "machine").begin()
        self.cxl = SimulatedCxl(directory / "cxl").begin()
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

    def ask_cxl(self, *serials: int, mode: str = "apply") -> None:
        """On the machine with CXL memory."""
        listed = ", ".join(f"'{serial:#x}'" for serial in serials)
        request = f"{{name: cxl0, cxl: {{serials: [{listed}]}}, size: all, mode: {mode}}}"
        policy = parse(f"version: 1\nprovision:\n  - {request}\n".encode(), "here")
        self.monkeypatch.setattr(hotplug.tierd.config, "load", lambda _: policy)
        self.monkeypatch.setattr(hotplug, "Root", lambda: self.cxl.root)
        self.monkeypatch.setattr(hotplug, "Tools", lambda: self.cxl.tools)

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


def test_a_cxl_device_is_taken_up_as_a_region_is(plug: Plug, capfd: pytest.CaptureFixture[str]) -> None:
    plug.ask_cxl(0x1234, 0x1235)
    for device in ("mem0", "mem1"):
        said = appear(capfd, device)
        assert f"{device}: 1GiB of volatile CXL memory, 1GiB free; request cxl0 takes it up" in said
        assert plug.calls.pop() == "reload-or-restart --no-block tierd-convert@cxl0.service"
    plug.active = "activating"
    assert "takes it up" in appear(capfd, "mem0")
    assert plug.calls[-1].startswith("show") and plug.cxl.acts() == []


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unclaimed", 'no request of the policy names it (serial: "0x1234")'),
        ("persistent", "tierd would not use it: not enough volatile capacity in mem0"),
        ("plan", "request cxl0 would use it, and says `mode: plan`"),
        (
            "disabled",
            "request cxl0 would use it: `systemctl enable --now tierd-convert@cxl0.service` lets it",
        ),
        ("partner", "request cxl0 is refused: no CXL memory device has serial 0x9"),
        ("unsettled", "request cxl0 is refused: mem0 has no endpoint"),
        ("made", "mem0: 1GiB of volatile CXL memory, 0B free; request cxl0 has what it asks for"),
    ],
)
def test_of_every_other_cxl_device_there_is_one_line(
    plug: Plug, case: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    plug.ask_cxl(0x1234, mode="plan" if case == "plan" else "apply")
    plug.enabled = case != "disabled"
    devices = plug.cxl.root.cxl_devices
    if case in ("unclaimed", "persistent"):
        plug.ask_cxl(0x1235)
    if case == "persistent":
        (devices / "mem0/ram/size").write_text("0x0\n")
    if case == "partner":
        plug.ask_cxl(0x1234, 0x9)
    if case == "unsettled":
        (devices / "endpoint2").unlink()
    if case == "made":
        record = intents.Intents(intents.DEFAULT_PATH, plug.cxl.root)
        (request,) = hotplug.tierd.config.load(Path()).cxl
        CxlConverter(plug.cxl.root, plug.cxl.tools, record, lambda *_: None).run_cxl(request)
    assert words in appear(capfd, "mem0")
    assert not [call for call in plug.calls if call.startswith("reload-or-restart")]


def test_a_cxl_device_is_waited_for_until_its_region_is_there(
    plug: Plug, capfd: pytest.CaptureFixture[str]
) -> None:
    """Early in the boot a region that the firmware made has no driver yet."""
    plug.ask_cxl(0x1234)
    plug.monkeypatch.setattr(hotplug, "SETTLE_DEADLINE", 60.0)
    region = {"size": GIB, "ways": 1, "committed": True, "driver": "", "targets": [["mem0", 0]]}
    plug.cxl.save({"regions": {"region0": region}, "vice": ""})
    plug.cxl.draw()

    def come(_: float) -> None:
        plug.cxl.save({"regions": {"region0": {**region, "driver": "kmem"}}, "vice": ""})
        plug.cxl.add_memory(GIB, "Movable")
        plug.cxl.draw()

    plug.monkeypatch.setattr(hotplug.time, "sleep", come)
    assert "request cxl0 has what it asks for" in appear(capfd, "mem0")
    plug.monkeypatch.setattr(hotplug, "SETTLE_DEADLINE", 0.0)
    plug.monkeypatch.setattr(hotplug.time, "sleep", lambda _: None)
    assert appear(capfd, "mem7") == "", "gone again"


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


def test_the_rules_start_one_unit_for_each_device() -> None:
    lines = (ROOT / "systemd/90-tierd.rules").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    matches = ['SUBSYSTEM=="nd", KERNEL=="region[0-9]*"', 'SUBSYSTEM=="cxl", KERNEL=="mem[0-9]*"']
    wants = 'TAG+="systemd", ENV{SYSTEMD_WANTS}+="tierd-hotplug@%k.service"'
    assert rules == [f'ACTION=="add", {match}, {wants}' for match in matches]
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
