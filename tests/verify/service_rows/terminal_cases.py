"""What is typed at tierctl, in which state of tierd, and the exit status that tierctl(1) documents."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

RUNNING, HANGING, STOPPED = "running", "hanging", "stopped"
"""The states of tierd."""

BAD_POLICY = "/run/bad.yaml"
DATA = ("show", "metrics", "cat-config")
"""Commands whose lines are their format's, so that none may be broken: for scripts, Prometheus, and YAML."""


@dataclass(frozen=True)
class Case:
    """words: arguments of tierctl; LOAD stands for a process that is placed. code: the exit status. user:
    whose. piped: only into a pipe. refused: what it prints is an error, also where it was asked for JSON."""

    words: str
    code: int = 0
    when: str = RUNNING
    user: str = "root"
    environment: Mapping[str, str] = field(default_factory=dict)
    piped: bool = False

    @property
    def is_json(self) -> bool:
        return "--json" in self.words.split()

    @property
    def is_data(self) -> bool:
        return self.is_json or self.words.split()[:1] in [[name] for name in DATA]


_JSON = (
    *("status", "plan", "explain LOAD", "history", "list classes", "list devices", "list processes"),
    *("list tiers", "show", "provision list", "provision plan", "drain", "cat-config", "status --offline"),
)

CASES = (
    *map(Case, _JSON),
    *(Case(f"{words} --json", piped=True) for words in _JSON),
    Case(""),
    Case("--version"),
    Case("--help"),
    Case("metrics"),
    Case("metrics --output /run/tierd-screens.prom"),
    Case("top --batch --count 2"),
    Case("provision plan pmem0"),
    Case("provision apply pmem0"),
    # who is asked says no, and a pipe cannot be asked: nothing is changed
    Case("provision set pmem0 1GiB", 1),
    Case("drain pmem0", 1),
    Case("pause 30s"),
    Case("resume"),
    Case("reload"),
    Case("check-config"),
    Case("check-config --json", piped=True),
    Case("report --output /run/tierd-screens.html", 1),  # the guest has no matplotlib
    Case("report --output /run/tierd-screens.txt", 2),
    Case("nonsense", 2),
    Case("list processes --limit 0", 2),
    Case("pause forever", 2),
    Case("reload", 4, user="nobody"),
    Case("pause 30s", 4, user="nobody"),
    Case("explain 1", 4, user="nobody"),
    Case("provision apply pmem0", 4, user="nobody"),
    Case("explain 4000000", 5),
    Case("list processes --class nothing", 5),
    Case("drain nothing", 5),
    Case("provision plan nothing", 5),
    Case(f"check-config {BAD_POLICY}", 78),
    Case("status", 6, HANGING, environment={"TIERD_DBUS_TIMEOUT": "2"}),
    Case("plan --json", 6, HANGING, environment={"TIERD_DBUS_TIMEOUT": "2"}, piped=True),
    Case("status", 3, STOPPED),
    Case("status --json", 3, STOPPED, piped=True),
    Case("plan", 3, STOPPED),
    Case("list classes", 3, STOPPED),
    Case("pause", 3, STOPPED),
    Case("top --batch --count 1", 3, STOPPED),
    Case("history", 0, STOPPED),
    Case("provision list", 0, STOPPED),
)


def leaves(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every command there is, and whether it takes ``--json``."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, found in action.choices.items():
            yield from leaves(found, f"{prefix} {name}".strip())
    if not below:
        yield prefix, any("--json" in action.option_strings for action in parser._actions)


def left_out(parser: argparse.ArgumentParser) -> list[str]:
    """Commands, and commands with --json, that no case has."""
    found = []
    for name, has_json in leaves(parser):
        mine = [case for case in CASES if case.words == name or case.words.startswith(f"{name} ")]
        # top is a row's part of its own; what asks first cannot be asked for JSON alone
        if not mine:
            found.append(name)
        elif has_json and not any(case.is_json for case in mine):
            found.append(f"{name} --json")
    return found


def helps(parser: argparse.ArgumentParser) -> Iterator[Case]:
    """The help of each command."""
    for name, _ in leaves(parser):
        yield Case(f"{name} --help")
