"""Who may do what on the bus: every member of every interface, as each of five callers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from tests.verify.service_rows import callers, placing
from tests.verify.service_rows.callers import CALLERS, Answer
from tests.verify.table import Figure, Row, Stage
from tests.vm import scenario
from tests.vm.guest import Guest

ALL = ("yes", "yes", "yes", "yes", "yes")
POLKIT = ("password", "password", "password", "yes", "yes")
"""The rule lets the admin do it; the others would have to type a password, and there is nobody to ask."""
OWN = ("own", "own", "own", "all", "all")
ROOT = ("bus", "bus", "bus", "bus", "yes")
OTHERS = ("refused", "refused", "refused", "yes", "yes")
"""Whom polkit does not let see other users' processes hears whose it is."""
HEAT = ("password", "password", "password", "unplaced", "unplaced")
"""As POLKIT, and then of a process that tierd does not place, which it says."""
NONE = ("bus", "bus", "bus", "bus", "refused")
"""The bus lets nobody but root near it, and tierd has nothing there to be set."""

_MANAGER, _TIER = "org.tierd1.Manager", "org.tierd1.Tier"
_LOG, _FREEDESKTOP = "org.freedesktop.LogControl1", "org.freedesktop.DBus"

_MANAGER_PROPERTIES = (
    *("Version", "State", "Reason", "StatusText", "Source", "SourceReason", "ConfigState"),
    *("ConfigProblems", "PolicyOrigin", "PolicyDigest", "HostedProcesses", "HostedCgroups"),
    *("PlacedDramBytes", "PlacedSlowBytes", "BytesPerSecond", "Counters", "Tiers", "Classes", "Notices"),
    *("Missing", "LastRoundTime", "OwnCost"),
)
_TIER_PROPERTIES = (
    *("Name", "Kind", "Nodes", "TotalBytes", "FreeBytes", "UsedBytes", "ReadLatencyNanoseconds"),
    "MemorySideCaches",
)

EXPECTED: Mapping[str, tuple[str, ...]] = {
    **{f"{_MANAGER}.{name}": ALL for name in _MANAGER_PROPERTIES},
    **{f"{_TIER}.{name}": ALL for name in _TIER_PROPERTIES},
    **{f"{_LOG}.{name}": ALL for name in ("LogLevel", "LogTarget", "SyslogIdentifier")},
    f"{_MANAGER}.GetPlan": ALL,
    f"{_MANAGER}.GetHistory": ALL,
    f"{_MANAGER}.Explain, a process of the caller": ALL,
    f"{_MANAGER}.Explain, of another user": OTHERS,
    f"{_MANAGER}.ListProcesses": OWN,
    f"{_MANAGER}.GetHeat": HEAT,
    f"{_MANAGER}.Pause": POLKIT,
    f"{_MANAGER}.Resume": POLKIT,
    f"{_MANAGER}.Reload": POLKIT,
    f"{_FREEDESKTOP}.Properties.Get": ALL,
    f"{_FREEDESKTOP}.Properties.GetAll": ALL,
    f"{_FREEDESKTOP}.Properties.Set, State": NONE,
    f"{_FREEDESKTOP}.Properties.Set, LogLevel": ROOT,
    f"{_FREEDESKTOP}.Introspectable.Introspect": ALL,
    f"{_FREEDESKTOP}.Peer.Ping": ALL,
    f"{_FREEDESKTOP}.Peer.GetMachineId": ALL,
    f"{_FREEDESKTOP}.ObjectManager.GetManagedObjects": ALL,
}
"""By member, what each of CALLERS gets. yes: it is done. own, all: with the caller's own processes, or with
everybody's. password: polkit would ask for one. bus: the message does not reach tierd. refused: it does, and
tierd says no."""

_NAME, _OBJECT, _LOG_OBJECT = "org.tierd1", "/org/tierd1", "/org/freedesktop/LogControl1"
_STATE, _DIGEST, _LEVEL = (f"{callers.EFFECT}: {name}" for name in ("State", "PolicyDigest", "LogLevel"))


def members(xml: str) -> Iterator[str]:
    """``INTERFACE.MEMBER`` of each method and property that introspection names, without signals, which are
    sent to all."""
    for interface in ElementTree.fromstring(xml).iter("interface"):
        for member in (*interface.iter("method"), *interface.iter("property")):
            yield f"{interface.get('name')}.{member.get('name')}"


def outcome(name: str, answer: Answer) -> str:
    """An answer in the words of EXPECTED, or as busctl has it where there is none."""
    words = answer.words
    if answer.code == 0:
        if not name.endswith("ListProcesses"):
            return "yes"
        users = {row["Uid"]["data"] for row in json.loads(words)["data"][0]}
        return "own" if len(users) == 1 else "all" if users else "nothing"
    if "tierd does not place process" in words:
        return "unplaced"
    if "it takes a password" in words:
        return "password"
    if "Rejected send message" in words or "Sender is not authorized" in words or "Access denied" in words:
        return "bus"
    if "is another user's" in words:
        return "refused"
    return "refused" if "read-only" in words or "not writable" in words.lower() else words[:100]


def calls(tier: str, other: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Everything but Resume, with what to see of it behind each call that changes something."""
    for name in EXPECTED:
        interface, _, member = name.rpartition(".")
        path = {_MANAGER: _OBJECT, _TIER: tier, _LOG: _LOG_OBJECT}.get(interface)
        if path is not None and member in (
            *_MANAGER_PROPERTIES,
            *_TIER_PROPERTIES,
            *("LogLevel", "LogTarget", "SyslogIdentifier"),
        ):
            yield name, ("get-property", _NAME, path, interface, member)
    call = ("call", _NAME, _OBJECT)
    methods = {
        "GetPlan": (),
        "GetHistory": ("u", "60"),
        "Explain, a process of the caller": ("u", "$own"),
        "Explain, of another user": ("u", other),
        "GetHeat": ("uu", other, "16"),
        "ListProcesses": ("a{sv}u", "0", "200"),
        "Pause": ("u", "600"),
        "Reload": (),
    }
    seen = {"Pause": (_STATE, "State"), "Reload": (_DIGEST, "PolicyDigest")}
    for title, given in methods.items():
        yield f"{_MANAGER}.{title}", (*call, _MANAGER, title.partition(",")[0], *given)
        if title in seen:
            effect, member = seen[title]
            yield effect, ("get-property", _NAME, _OBJECT, _MANAGER, member)
    of_bus = {
        "Properties.Get": ("ss", _MANAGER, "Version"),
        "Properties.GetAll": ("s", _MANAGER),
        "Introspectable.Introspect": (),
        "Peer.Ping": (),
        "Peer.GetMachineId": (),
        "ObjectManager.GetManagedObjects": (),
    }
    for title, given in of_bus.items():
        interface, _, member = title.partition(".")
        yield f"{_FREEDESKTOP}.{title}", (*call, f"{_FREEDESKTOP}.{interface}", member, *given)
    put = ("set-property", _NAME)
    yield f"{_FREEDESKTOP}.Properties.Set, State", (*put, _OBJECT, _MANAGER, "State", "s", "paused")
    yield f"{_FREEDESKTOP}.Properties.Set, LogLevel", (*put, _LOG_OBJECT, _LOG, "LogLevel", "s", "debug")
    yield _LEVEL, ("get-property", _NAME, _LOG_OBJECT, _LOG, "LogLevel")


_RESUME = (
    (f"{_MANAGER}.Resume", ("call", _NAME, _OBJECT, _MANAGER, "Resume")),
    (_STATE, ("get-property", _NAME, _OBJECT, _MANAGER, "State")),
)


def _try(guest: Guest, caller: str, policy: str, tier: str, other: str) -> tuple[dict[str, str], list[str]]:
    """The outcome of each row for this caller, and what of it is not borne out by what came of it."""
    root = f"busctl call {_NAME} {_OBJECT} {_MANAGER}"
    digest = f"busctl --json=short get-property {_NAME} {_OBJECT} {_MANAGER} PolicyDigest"
    guest.run(f"{root} Resume; busctl set-property {_NAME} {_LOG_OBJECT} {_LOG} LogLevel s info")
    before = guest.output(digest)
    guest.write(scenario.POLICY, f"{policy}# for {caller}\n")
    first = callers.ask(guest, caller, list(calls(tier, other)))
    if caller == "active" and not _is_active(first):
        return {}, []
    guest.run(f"{root} Pause u 600")
    second = callers.ask(guest, caller, _RESUME)
    guest.run(f"{root} Resume; {root} Reload")
    found = {name: outcome(name, answer) for name, answer in {**second, **first}.items() if name in EXPECTED}
    done = {
        f"{_MANAGER}.Pause": '"paused"' in first[_STATE].words,
        f"{_MANAGER}.Reload": first[_DIGEST].words != before,
        f"{_FREEDESKTOP}.Properties.Set, LogLevel": '"debug"' in first[_LEVEL].words,
        f"{_MANAGER}.Resume": '"paused"' not in second[_STATE].words,
    }
    odd = [
        f"{name.rpartition('.')[2]} as {caller}: {found[name]}, and it was {'done' if so else 'not done'}"
        for name, so in done.items()
        if so != (found[name] == "yes")
    ]
    return found, odd


def _is_active(answers: Mapping[str, Answer]) -> bool:
    """Whether these are those of a local, active session."""
    session = answers["session"].words if "session" in answers else ""
    return "Active=yes" in session and "Remote=no" in session


def authorisation(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        policy = placing.policy(region)
        try:
            guest.write(scenario.POLICY, policy)
            callers.add(guest)
            scenario.start_tierd(guest)
            tree = guest.output(f"busctl --list tree {_NAME}", timeout=60).split()
            tier = next(path for path in tree if path.startswith(f"{_OBJECT}/tier/"))
            there = {
                member
                for path in (_OBJECT, tier, _LOG_OBJECT)
                for member in members(guest.output(f"busctl introspect --xml-interface {_NAME} {path}"))
            }
            other = guest.output("systemctl show -P MainPID dbus")
            cells: dict[str, dict[str, str]] = {}
            odd: list[str] = []
            for caller in CALLERS:
                cells[caller], strange = _try(guest, caller, policy, tier, other)
                odd += strange
        finally:
            scenario.stop_tierd(guest)
            callers.remove(guest)
        known = {name.partition(",")[0] for name in EXPECTED}
        odd += [f"{name} is not in the table" for name in sorted(there - known)]
        odd += [f"{name} is not on the bus" for name in sorted(known - there)]
        wrong = [
            f"{name} as {caller}: {cells[caller].get(name, 'not tried')}, not {asked}"
            for name, row in EXPECTED.items()
            for caller, asked in zip(CALLERS, row, strict=True)
            if cells[caller] and cells[caller].get(name) != asked
        ]
        tried, had = sum(map(len, cells.values())), [caller for caller in CALLERS if cells[caller]]
        text = (
            f"{tried} cells tried, {len(wrong)} not as the table has them: {'; '.join(wrong[:6]) or 'none'}"
        )
        if odd:
            text += f"; besides: {'; '.join(odd[:6])}"
        if "active" not in had:
            text += "; an active session could not be had"
        values = {"kernel": kernel, "cells": cells, "wrong": wrong, "odd": odd}
        complete = len(had) >= len(CALLERS) - 1 and tried == len(EXPECTED) * len(had)
        return Figure(not wrong and not odd and complete, text, values)

    return Row(
        f"authorisation-{kernel}",
        f"each of {len(EXPECTED)} things that can be asked on the bus, as {', '.join(CALLERS)},"
        f" Linux {kernel}",
        "each as the table has it, and done or not done accordingly",
        measure,
    )
