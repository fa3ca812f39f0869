"""tierd-convert with an ndctl and a daxctl that lie: what each says and does, and what must never come of
it.

A lie is a shell script in the tool's place, run as tierd runs tools; whatever it leaves alone does what the
simulated region does. Beside tierd's share the region holds two namespaces of others: `prod`, a file system,
and `other`, a dax device that is somebody else's memory. What is judged is the region and the arguments that
the tools were given, not what tierd says.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from tests.kernel.fixtures.region import BLOCK, ISET, MIB, SimulatedRegion
from tests.provisioning.lies import Lie
from tierd.core.inventory import SYSTEM_RAM_DRIVER
from tierd.kernel import intents, memory_blocks, tools
from tierd.kernel.tools import ToolResult, Tools
from tierd.service import conversion, convert, one_shot
from tierd.service.events import Event

OURS = "tierd:pmem0"
WANTED = {"new": (0, 4), "more": (4, 9), "less": (8, 5), "none": (4, 0)}
"""Blocks that are memory before, and that are asked for, by the scenario's name."""
DEADLINE = 0.7
"""Seconds for a tool, in place of a minute or two."""


@dataclass(frozen=True)
class Outcome:
    """What came of a lie. code: the exit status of the run that was lied to. wrong: actions and claims that
    are wrong, in words. crashed: whether anything but a sentence came out."""

    code: int
    said: str
    wrong: tuple[str, ...]
    crashed: bool
    seconds: float


@dataclass(frozen=True)
class LyingTools(Tools):
    """The tools as tierd is given them."""

    machine: SimulatedRegion = field(kw_only=True)
    lie: Lie = field(kw_only=True)
    wrong: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def run(self, argv: tuple[str, ...], *, deadline: float = 60.0) -> ToolResult:
        word = _word(argv)
        self.seen.append(word)
        if word not in ("list", "settle"):
            self.wrong.extend(wrong_act(self.machine, argv))
        if word != self.lie.on or self.seen.count(word) <= self.lie.after:
            return self.truly(argv)
        if self.lie.does is not None:
            self.lie.does(self.machine, argv)
        stub = self.machine.bin / argv[0]
        truth = stub.read_text()
        if word == "list":
            (self.machine.bin / "listing").write_bytes(self.lie.listing(self.machine.listing()))
        stub.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\ncd "{self.machine.bin}"\n{self.lie.script}\n')
        try:
            return super().run(argv, deadline=min(deadline, DEADLINE))
        finally:
            stub.write_text(truth)

    def truly(self, argv: tuple[str, ...]) -> ToolResult:
        """What an honest tool does and says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            act = {"ndctl": self.machine.ndctl, "daxctl": self.machine.daxctl, "udevadm": lambda _: 0}[
                argv[0]
            ]
            code = act(list(argv[1:]))
        return ToolResult(argv, code, said.getvalue().encode(), "")


def _word(argv: tuple[str, ...]) -> str:
    return argv[3] if argv[1] == "reconfigure-device" else argv[1]


def wrong_act(machine: SimulatedRegion, argv: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with an act, by the region's own state."""
    text = " ".join(argv)
    labels = {f"namespace0.{n['id']}": str(n["label"]) for n in machine.load()}
    labels |= {f"dax0.{n['id']}": str(n["label"]) for n in machine.load()}
    if argv[1] == "create-namespace" and "-r" in argv:
        label, size = argv[argv.index("-n") + 1], int(argv[argv.index("-s") + 1])
        if argv[argv.index("-r") + 1] != "region0" or not label.startswith(OURS):
            yield f"{text}: for somebody else"
        if "-f" in argv or "--no-autolabel" not in argv or size > 16 * BLOCK:
            yield f"{text}: not as it is to be made"
        return
    target = argv[argv.index("-e") + 1] if "-e" in argv else argv[-1]
    if not labels.get(target, "").startswith(OURS):
        yield f"{text}: {target} is labelled {labels.get(target)}"


def _others(machine: SimulatedRegion) -> list[dict[str, Any]]:
    return [n for n in machine.load() if n["label"] in ("prod", "other")]


def _other_blocks(machine: SimulatedRegion) -> list[str]:
    """State and zone of each block of the memory that is somebody else's."""
    found = []
    for entry in _others(machine):
        if entry["driver"] == SYSTEM_RAM_DRIVER:
            for number in _numbers(entry):
                directory = machine.root.memory_blocks / f"memory{number}"
                found += [(directory / name).read_text().strip() for name in ("state", "valid_zones")]
    return found


def _numbers(entry: dict[str, Any]) -> range:
    return range(-(-(entry["start"] + 2 * MIB) // BLOCK), (entry["start"] + entry["size"]) // BLOCK)


def ours(machine: SimulatedRegion) -> list[str]:
    """Zones of the online blocks of tierd's share; ``device`` for a slice that is not memory."""
    found = []
    for entry in machine.load():
        if entry["label"].startswith(OURS):
            if entry["mode"] != "devdax" or entry["driver"] != SYSTEM_RAM_DRIVER:
                found.append("device")
                continue
            for number in _numbers(entry):
                directory = machine.root.memory_blocks / f"memory{number}"
                if directory.exists() and (directory / "state").read_text().strip() != "offline":
                    found.append((directory / "valid_zones").read_text().strip())
    return found


def convert_once(machine: SimulatedRegion, given: Tools, blocks: int) -> tuple[int, str, str]:
    """tierd-convert from its command line on; its exit status, its events, and what it wrote."""
    size = f"{blocks * BLOCK // MIB}MiB" if blocks else "none"
    policy = machine.directory / "tierd.yaml"
    policy.write_text(
        f"version: 1\nprovision: [{{name: pmem0, region: {{iset_id: '{ISET:#x}'}}, size: {size}, mode:"
        " apply}]\n"
    )
    policy.chmod(0o600)
    events: list[Event] = []
    wrote = io.StringIO()
    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (convert, "Root", lambda: machine.root),
            (convert, "Tools", lambda: given),
            (convert, "LOCK", machine.directory / "lock"),
            (one_shot, "default_sink", lambda: events.append),
            (intents, "DEFAULT_PATH", machine.directory / "state/conversions.jsonl"),
            (os, "geteuid", lambda: 0),
            (conversion, "DRIVER_DEADLINE", 0.3),
            (memory_blocks, "OFFLINE_PAUSE", 0.0),
            (tools, "_GRACE", 0.3),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(contextlib.redirect_stdout(wrote))
        stack.enter_context(contextlib.redirect_stderr(wrote))
        code = convert.main(["pmem0", "--policy", str(policy), "--wait", "0.1", "--drain", "2"])
    machine.draw_nodes()
    return code, "\n".join(event.message for event in events), wrote.getvalue()


def try_lie(directory: Path, lie: Lie) -> Outcome:
    """Prepare a region below `directory`, run tierd-convert with the lie, judge, and run it again with tools
    that tell the truth."""
    machine = SimulatedRegion(directory).begin()
    machine.create(512 * MIB, "prod", "fsdax")
    machine.write("sys/devices/system/memory/auto_online_blocks", "online_movable")
    truth = LyingTools((machine.bin,), machine=machine, lie=Lie("none", "nothing", "new"))
    machine.create(640 * MIB, "other")
    machine.daxctl(["reconfigure-device", "-m", "system-ram", "-N", "-f", "dax0.1"])
    machine.write("sys/devices/system/memory/auto_online_blocks", "online")
    before, wanted = WANTED[lie.scenario]
    if before:
        code, said, _ = convert_once(machine, truth, before)
        assert code == 0, said
    others, blocks = _others(machine), _other_blocks(machine)
    lying = LyingTools((machine.bin,), machine=machine, lie=lie)
    began = time.monotonic()
    code, said, wrote = convert_once(machine, lying, wanted)
    seconds = time.monotonic() - began
    assert lie.on in lying.seen, f"{lie.name}: nothing asked for {lie.on}"
    wrong = list(lying.wrong)
    zones = ours(machine)
    if code == 0 and zones != ["Movable"] * wanted:
        wrong.append(f"exit status 0 for {zones}, and {wanted} blocks are asked for")
    if set(zones) - {"Movable", "device"}:
        wrong.append(f"blocks are left online in {set(zones)}")
    if _others(machine) != others or _other_blocks(machine) != blocks:
        wrong.append(f"what others have is changed: {_others(machine)}")
    if machine.policy() != "online":
        wrong.append(f"auto_online_blocks is left as {machine.policy()}")
    if not said.strip():
        wrong.append("nothing is said")
    again, said_again, wrote_again = convert_once(machine, truth, wanted)
    if lie.heals and (again != 0 or ours(machine) != ["Movable"] * wanted):
        wrong.append(f"not got over: exit status {again}, {ours(machine)}: {said_again}")
    if _others(machine) != others or truth.wrong:
        wrong.append(f"what others have is changed by the next run: {truth.wrong}")
    crashed = any("internal error" in text or "Traceback" in text for text in (said, said_again))
    crashed = crashed or "Traceback" in wrote + wrote_again
    return Outcome(code, said, tuple(wrong), crashed, seconds)
