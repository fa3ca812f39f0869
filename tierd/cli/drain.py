"""`tierctl drain`: empty the persistent memory of a device that is to go, and say when it is safe.

Marks the region as drained and lets tierd-drain@ do it; nothing here takes memory out of the kernel.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any

from tierd.cli import Exit
from tierd.cli.arguments import add_json
from tierd.cli.provision import NoRequestError, require_root
from tierd.cli.requests import CARRY_OUT_DEADLINE, agreed, start, unit_of
from tierd.cli.terminal import folded
from tierd.config import load
from tierd.core.drain import DrainPlan, find_region, hindrances, plan_drain, regions_of
from tierd.core.evidence import regions_asked
from tierd.core.inventory import Inventory
from tierd.core.picture import Picture
from tierd.core.policy import AnyRequest, ProvisionMode
from tierd.core.provision import Verdict
from tierd.core.text import clean, in_order
from tierd.core.units import format_size
from tierd.errors import ConfigError, GoneError, TierdError
from tierd.kernel.drained import forget_drained, mark_drained, read_drained
from tierd.kernel.in_use import users_of
from tierd.kernel.intents import DEFAULT_PATH
from tierd.kernel.paths import Root
from tierd.kernel.picture import take_picture
from tierd.kernel.tools import Tools

POLL_SECONDS = 0.5


# The subparsers object is generic over a private class of argparse.
def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``drain``; it sets `handler`, which takes the arguments and returns an exit status."""
    found = subparsers.add_parser(
        "drain",
        help="empty a device that is to be removed, and say when that is safe",
        description="Empty all memory of the regions that a device is part of, and keep them so over reboots"
        " until --undo. Namespaces and what is stored in them stay. Without DEVICE: what is drained.",
        epilog="Exit status: 0 safe to remove, or undone; 1 not safe, not agreed to, refused or failed, 4"
        " not root, 5 no such device",
    )
    found.add_argument(
        "device",
        nargs="?",
        metavar="DEVICE",
        help="a DIMM, region, namespace, dax device, iset_id, or a request of the policy",
    )
    found.add_argument("--undo", action="store_true", help="let it be memory again, as the policy asks")
    found.add_argument(
        "--deadline",
        type=_seconds,
        metavar="SECONDS",
        help="for the memory of one namespace (default: 2 for each GiB, at least 300)",
    )
    found.add_argument("--yes", action="store_true", help="do not ask")
    add_json(found)
    found.set_defaults(handler=_drain)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 7200:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds, above 0 and at most 7200")
    return value


def _drain(arguments: argparse.Namespace) -> int:
    require_root()
    command = _Command(Root(), Tools())
    if arguments.device is None:
        return command.show(as_json=arguments.json)
    iset_ids = command.find(arguments.device)
    if arguments.undo:
        return command.undo(iset_ids, as_json=arguments.json)
    return command.drain(iset_ids, arguments.deadline, yes=arguments.yes, as_json=arguments.json)


class _Command:
    """One run. Every method raises TierdError."""

    def __init__(self, root: Root, tools: Tools) -> None:
        self._root = root
        self._tools = tools
        self._requests: tuple[AnyRequest, ...] = ()
        self._policy_error: ConfigError | None = None
        try:
            self._requests = load(None).requests
        except ConfigError as error:
            # a device can be drained by its own name while the policy is bad
            self._policy_error = error

    def _look(self) -> Picture:
        picture = take_picture(self._root, self._tools, DEFAULT_PATH)
        if picture.inventory is None:
            reasons = (*picture.faults, *picture.unseen)
            raise TierdError(f"the regions cannot be seen: {'; '.join(reasons)}")
        return picture

    def find(self, name: str) -> frozenset[int]:
        try:
            return regions_of(self._look(), self._requests, name)
        except GoneError as error:
            if self._policy_error is not None:
                raise self._policy_error from None
            raise NoRequestError(str(error)) from None

    def show(self, *, as_json: bool) -> int:
        """What is drained, and whether it may be removed."""
        marks = read_drained(DEFAULT_PATH.parent)
        return self._show([mark.iset_id for mark in marks], as_json=as_json)

    def _show(self, iset_ids: Sequence[int], *, as_json: bool) -> int:
        picture = self._look()
        found = [self._document(picture, iset_id) for iset_id in iset_ids]
        if as_json:
            print(json.dumps({"drained": found}, indent=2))
        elif not found:
            print("nothing is drained")
        for entry in () if as_json else found:
            print("\n".join(_lines(entry)))
        return Exit.OK if all(entry["safe"] is not False for entry in found) else Exit.FAILED

    def _document(self, picture: Picture, iset_id: int) -> dict[str, Any]:
        assert picture.inventory is not None
        since = {mark.iset_id: mark.since for mark in read_drained(DEFAULT_PATH.parent)}
        entry: dict[str, Any] = {
            "iset_id": f"{iset_id:#x}",
            "since": since.get(iset_id),
            "requests": self._names(picture.inventory, iset_id),
            "region": None,
            "dimms": [],
            "safe": None,
            "reasons": [],
        }
        try:
            region = find_region(picture.inventory, iset_id)
        except GoneError:
            return entry
        entry["region"] = region.name
        entry["dimms"] = sorted(
            (dimm.name for dimm in picture.dimms if region.name in dimm.regions), key=in_order
        )
        entry["reasons"] = list(hindrances(region, users_of(self._root, region.namespaces)))
        entry["safe"] = not entry["reasons"]
        return entry

    def drain(self, iset_ids: frozenset[int], deadline: float | None, *, yes: bool, as_json: bool) -> int:
        """Show it, ask, mark it, have it done, and say whether it is safe."""
        picture = self._look()
        assert picture.inventory is not None
        inventory = picture.inventory
        plans = [plan_drain(inventory, find_region(inventory, n)) for n in sorted(iset_ids)]
        shown = "\n".join(line for plan in plans for line in self._plan_lines(inventory, plan))
        stream = sys.stderr if as_json else sys.stdout
        print(folded(shown, stream), file=stream)
        if any(plan.verdict is Verdict.REFUSED for plan in plans):
            words = [reason.words for plan in plans for reason in plan.refusals]
            raise TierdError(f"refused: {'; '.join(words)}", hint="nothing was changed")
        if not agreed("drain it?", yes=yes):
            return Exit.FAILED
        mark_drained(DEFAULT_PATH.parent, iset_ids, deadline)
        for plan in plans:
            if plan.verdict is Verdict.READY:
                self._carry_out(f"tierd-drain@{plan.region.iset_id:#x}.service", quiet=as_json)
        return self._show(sorted(iset_ids), as_json=as_json)

    def _names(self, inventory: Inventory, iset_id: int) -> list[str]:
        """The requests that ask for that region, or for a namespace of it."""
        return [r.name for r in self._requests if iset_id in regions_asked(inventory, r)]

    def _plan_lines(self, inventory: Inventory, plan: DrainPlan) -> list[str]:
        region = plan.region
        names = self._names(inventory, region.iset_id or 0)
        of = f", of which the policy makes {', '.join(names)}" if names else ""
        lines = [f"{region.name} (iset_id {region.iset_id:#x}){of}:"]
        lines += [f"  {step.words}" for part in plan.parts for step in part.steps]
        lines += [f"  refused: {reason.words}" for reason in plan.refusals]
        if plan.parts:
            return [*lines, f"  {format_size(plan.leaving)} less memory; namespaces and labels stay"]
        return [*lines, "  nothing of it is memory, and nothing of it becomes memory until --undo"]

    def _carry_out(self, unit: str, *, quiet: bool) -> None:
        """Start a unit and say how far it is until it ends. A keyboard's interrupt stops it cleanly."""
        self._tools.run(("systemctl", "start", "--no-block", unit))
        until = monotonic() + CARRY_OUT_DEADLINE
        said = ""
        try:
            while monotonic() < until:
                # one call, so that the two belong together
                shown = self._tools.run(("systemctl", "show", "-p", "ActiveState,Job,StatusText", unit))
                facts = dict(
                    line.split("=", 1)
                    for line in shown.stdout.decode(errors="replace").splitlines()
                    if "=" in line
                )
                words = facts.get("StatusText", "")
                if words and words != said and not quiet:
                    print(f"  {clean(words)}", flush=True)
                    said = words
                waiting = facts.get("Job", "0") not in ("", "0")
                if not waiting and facts.get("ActiveState") in ("inactive", "failed"):
                    break
                sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            self._tools.run(("systemctl", "stop", unit), deadline=CARRY_OUT_DEADLINE)
            raise TierdError(
                "stopped: what was being emptied is online again, and the region stays marked",
                hint="tierctl drain --undo lets it be memory again",
            ) from None
        result = self._tools.run(("systemctl", "show", "-P", "Result", unit)).stdout.decode().strip()
        if result != "success":
            raise TierdError(f"{unit} failed", hint=f"journalctl -u {unit} says why; not safe to remove")

    def undo(self, iset_ids: frozenset[int], *, as_json: bool) -> int:
        """Forget that it is drained, and carry out the requests that are started at boot, or were."""
        out = sys.stderr if as_json else sys.stdout
        marked = {mark.iset_id for mark in read_drained(DEFAULT_PATH.parent)}
        if not iset_ids & marked:
            print("it is not drained: nothing to undo", file=out)
            return self.show(as_json=True) if as_json else Exit.OK
        inventory = self._look().inventory
        assert inventory is not None
        forget_drained(DEFAULT_PATH.parent, iset_ids)
        failed = []
        for request in self._requests:
            unit = unit_of(request)
            if not iset_ids & regions_asked(inventory, request):
                continue
            if request.mode is not ProvisionMode.APPLY or not self._wanted(unit):
                print(f"{request.name}: `systemctl enable --now {unit}` makes it memory again", file=out)
            elif not start(self._tools, request):
                failed.append(unit)
            else:
                print(f"{request.name}: done", file=out)
        if failed:
            raise TierdError(f"{', '.join(failed)} failed", hint=f"journalctl -u {failed[0]}")
        print("it is not drained any more", file=out)
        return self.show(as_json=True) if as_json else Exit.OK

    def _wanted(self, unit: str) -> bool:
        return not all(
            self._tools.run(("systemctl", question, "--quiet", unit)).code
            for question in ("is-enabled", "is-active")
        )


def _lines(entry: dict[str, Any]) -> list[str]:
    if entry["region"] is None:
        return [
            f"{entry['iset_id']} is drained (since {entry['since']}), and no region has this iset_id now"
        ]
    name = f"{entry['region']} ({', '.join(entry['dimms']) or 'no DIMM known'})"
    if entry["safe"]:
        return [
            f"{name} is drained: safe to remove",
            f"  it stays so until `tierctl drain --undo {entry['region']}`, over reboots too",
        ]
    lines = [f"{name} is to be drained: not safe to remove", *(f"  {words}" for words in entry["reasons"])]
    return [clean(line, None) for line in lines]
