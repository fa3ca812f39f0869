"""org.tierd1(5) has every member of the interface, error and action, and its examples work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from gi.repository import Gio

from tests.service.conftest import Bus, DaemonProgram, Program, wait_for
from tierd.service import tier_objects
from tierd.service.interface import BUS_NAME, INTERFACE
from tierd.service.log_control import OBJECT_PATH as LOG_CONTROL_PATH
from tierd.service.shown import introspection_xml

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "man/org.tierd1.5"
EXAMPLE = ROOT / "conf/examples/follow-tierd.py"
INTERFACES = [
    (found.name, found)
    for name in (BUS_NAME, tier_objects.INTERFACE)
    for found in Gio.DBusNodeInfo.new_for_xml(introspection_xml(name)).interfaces
    if found.name.startswith("org.tierd1.")
]


def plain(roff: str) -> str:
    """What a reader sees, without bold and italics."""
    text = re.sub(r"\\f[A-Z]|\\&", "", roff).replace("\\(dq", '"').replace("\\-", "-").replace("\\e", "\\")
    return re.sub(r"^\.[BI]R?I? ", "", text, flags=re.MULTILINE)


def section(name: str, text: str | None = None) -> str:
    text = PAGE.read_text() if text is None else text
    return text.split(f"\n.SH {name}\n")[1].split("\n.SH ")[0] + "\n"


def heads(interface: str, kind: str, text: str | None = None) -> dict[str, str]:
    """What stands at the head of each entry below ``.SS kind``, with the entry."""
    (below,) = section(interface, text).split(f".SS {kind}\n")[1:] or [""]
    entries = re.split(r"^\.TP\n", below.split("\n.SS ")[0], flags=re.MULTILINE)[1:]
    return {plain(entry).split("\n")[0]: plain(entry) for entry in entries}


def arguments(found: Any, direction: str = "") -> list[str]:
    return [f"{direction}{argument.signature} {argument.name}" for argument in found]


def members(interface: Any) -> dict[str, set[str]]:
    """The heads that the page should have."""
    return {
        "Properties": {f"{found.signature} {found.name}" for found in interface.properties},
        "Methods": {
            f"{m.name}({', '.join(arguments(m.in_args, 'in ') + arguments(m.out_args, 'out '))})"
            for m in interface.methods
        },
        "Signals": {f"{s.name}({', '.join(arguments(s.args))})" for s in interface.signals},
    }


@pytest.mark.parametrize(("name", "interface"), INTERFACES)
def test_every_member_has_an_entry_and_every_entry_is_a_member(name: str, interface: Any) -> None:
    for kind, expected in members(interface).items():
        assert set(heads(name, kind) if expected else ()) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (".B t PlacedDramBytes", ".B u PlacedDramBytes"),
        (".B Resume()", ".B Resumes()"),
        (".B PromiseChanged(s class, b kept, s words)", ".B PromiseChanged(s class, s words)"),
    ],
)
def test_a_member_that_is_told_wrong_is_seen(old: str, new: str) -> None:
    changed = PAGE.read_text().replace(old, new)
    assert changed != PAGE.read_text()
    told = {
        head for kind in ("Properties", "Methods", "Signals") for head in heads(INTERFACE, kind, changed)
    }
    assert told != set().union(*members(dict(INTERFACES)[INTERFACE]).values())


def test_what_is_not_announced_is_called_so() -> None:
    for name, interface in INTERFACES:
        entries = heads(name, "Properties") if interface.properties else {}
        for found in interface.properties:
            annotations = {note.key.rpartition(".")[2]: note.value for note in found.annotations or ()}
            says = entries[f"{found.signature} {found.name}"]
            emits = annotations.get("EmitsChangedSignal", "true")
            assert ("Not announced" in says) == (emits == "false"), found.name
            assert ("Constant." in says) == (emits == "const"), found.name


def test_every_object_error_and_action_is_there() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "tierd").rglob("*.py"))
    errors = set(re.findall(r"\borg\.tierd1\.Error\.\w+", sources))
    assert len(errors) >= 8
    assert set(re.findall(r"^\.B (org\.tierd1\.Error\.\w+)$", section("ERRORS"), re.MULTILINE)) == errors
    (listed,) = re.findall(r"org\.tierd1\.Error\.\{([\w,]+)\}", introspection_xml(BUS_NAME))
    assert {f"org.tierd1.Error.{name}" for name in listed.split(",")} == errors
    policy = ElementTree.parse(ROOT / "conf/dbus/org.tierd1.policy").getroot()
    actions = {action.attrib["id"] for action in policy.iter("action")}
    told = plain(section("POLKIT ACTIONS"))
    assert set(re.findall(r"^(org\.tierd1\.[\w-]+)$", told, re.MULTILINE)) == actions
    assert {"/org/tierd1", LOG_CONTROL_PATH} <= set(
        re.findall(r"^\.I (\S+)$", section("OBJECTS"), re.MULTILINE)
    )


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from keys(inner)


@pytest.mark.service
def test_every_key_that_the_daemon_sends_is_named(daemon: DaemonProgram) -> None:
    (step, *_) = wait_for(lambda: daemon.call("GetHistory", ("u", 60))[0], "a step of history")
    sent = set(
        keys(
            [
                daemon.properties(),
                dict.fromkeys(step),  # below these are names of tiers and classes
                daemon.call("GetPlan"),
                daemon.call("Explain", ("u", os.getpid())),
                daemon.call("ListProcesses", ("a{sv}", {}), ("u", 10)),
                daemon.call("GetHeat", ("u", os.getpid()), ("u", 10)),
            ]
        )
    )
    assert len(sent) > 40
    assert {key for key in sent if not re.search(rf"\b{key}\b", plain(PAGE.read_text()))} == set()


def commands() -> list[str]:
    """The commands of EXAMPLES, as a reader copies them."""
    blocks = re.findall(r"^\.EX\n(.*?)^\.EE\n", section("EXAMPLES"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in plain(block).splitlines() if line.startswith("busctl ")]


@pytest.mark.service
@pytest.mark.skipif(shutil.which("busctl") is None, reason="busctl is not installed")
def test_each_command_of_the_page_works(daemon: DaemonProgram) -> None:
    lines = [plain(section("SYNOPSIS")).strip(), *commands()]
    assert len(lines) == 9
    printed = ""
    for line in lines:
        words = shlex.split(line.replace("4711", str(os.getpid())))
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": daemon.bus.address}
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, env=environment, timeout=30
        )
        assert (done.returncode, done.stderr) == (0, ""), line
        printed += done.stdout
    for part in ("converging", "guaranteed", "12 accesses a second", "HostedProcesses"):
        assert part in printed


def test_what_the_page_shows_of_the_example_is_in_it() -> None:
    block = re.findall(r"^\.EX\n(.*?)^\.EE\n", section("EXAMPLES"), re.MULTILINE | re.DOTALL)[-1]
    shown = plain(block)
    assert "__init__" in shown and "PromiseChanged" not in shown
    assert textwrap.indent(shown, "    ") in EXAMPLE.read_text()
    assert f"/usr/share/doc/tierd/examples/{EXAMPLE.name}" in plain(PAGE.read_text())


@pytest.mark.service
def test_the_example_follows_tierd(bus: Bus, start_daemon: Callable[..., DaemonProgram]) -> None:
    example = Program([str(EXAMPLE)], {"DBUS_SYSTEM_BUS_ADDRESS": bus.address})

    def told(*lines: str) -> None:
        wait_for(lambda: example.lines[-len(lines) :] == list(lines), f"{lines}, only {example.lines}")
        assert example.process.poll() is None and example.errors == []

    try:
        told("tierd does not run")
        daemon = start_daemon().on_bus()
        told("tierd is converging", "class gold has what it is promised")
        daemon.order("show", broken="class gold lacks 9 MiB")
        told("class gold lacks 9 MiB")
        daemon.order("show", engine="holding", reason="memory pressure 45 %")
        told("tierd is holding")
        daemon.process.kill()
        told("tierd does not run")
        start_daemon().on_bus()
        told("tierd is converging", "class gold has what it is promised")
    finally:
        example.end()
