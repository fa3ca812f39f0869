"""What the commands that change something share: the plan, consent to it, and the unit that acts.

What acts is tierd-convert@NAME, as at boot; nothing here does.
"""

from __future__ import annotations

import sys
from functools import partial

from tierd.cli import Exit
from tierd.cli.provision import look
from tierd.config import DEFAULT_PATH
from tierd.config.allow import allowance
from tierd.core.any_plan import AnyPlan
from tierd.core.policy import AnyRequest
from tierd.core.provision import Verdict
from tierd.errors import TierdError
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools

CARRY_OUT_DEADLINE = 7300.0
"""Seconds for a unit, which has a limit of two hours of its own."""


def plan_of(root: Root, request: AnyRequest) -> AnyPlan:
    """What there is to do about `request` now. Raises what Look raises."""
    return look(root).plan(request, partial(allowance, str(DEFAULT_PATH)))


def start(tools: Tools, request: AnyRequest) -> bool:
    """Have the request's unit carry it out, and wait for that; whether it ended well. Raises TierdError."""
    # reloading leaves alone what requires the unit
    argv = ("systemctl", "reload-or-restart", unit_of(request))
    return not tools.run(argv, deadline=CARRY_OUT_DEADLINE).code


def carry_out(root: Root, tools: Tools, request: AnyRequest) -> int:
    """The same, and look at what it did. Raises TierdError when that is not all."""
    if not start(tools, request) or plan_of(root, request).verdict is not Verdict.DONE:
        unit = unit_of(request)
        raise TierdError(f"{unit} did not do all of it", hint=f"journalctl -u {unit}")
    print(f"{request.name}: done")
    return Exit.OK


def unit_of(request: AnyRequest) -> str:
    """The unit that carries the request out."""
    return f"tierd-convert@{request.name}.service"


def agreed(question: str, *, yes: bool) -> bool:
    """Whether it is to be done. yes: nobody need be asked; else somebody at a terminal is. Says when nothing
    is done."""
    answer = ""
    if not yes and sys.stdin.isatty():
        print(f"{question} [y/N] ", end="", flush=True, file=sys.stderr)
        answer = sys.stdin.readline().strip().lower()
    if yes or answer in ("y", "yes"):
        return True
    print("nothing was changed; --yes does it without asking", file=sys.stderr)
    return False
