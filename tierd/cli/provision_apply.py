"""`tierctl provision apply`: carry out a request of the policy, once its plan has been shown and agreed to.

What acts is tierd-convert@NAME, as at boot; nothing here does.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from tierd.cli import Exit
from tierd.cli.provision import NoRequestError, look, plan_text, require_root
from tierd.config import DEFAULT_PATH, load
from tierd.config.allow import allowance
from tierd.core.any_plan import AnyPlan
from tierd.core.policy import AnyRequest, ProvisionMode
from tierd.core.provision import Verdict
from tierd.errors import TierdError
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools

CARRY_OUT_DEADLINE = 7300.0
"""Seconds for the unit, which has a limit of two hours of its own."""


# The subparsers object is generic over a private class of argparse.
def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``apply`` to the commands of ``provision``."""
    found = commands.add_parser(
        "apply",
        help="do what `provision plan` shows of one request",
        description="Show the plan of a request that says `mode: apply`; with --yes, or when asked and told"
        " so, carry it out.",
        epilog="Exit status: 0 done; 1 not agreed to, refused or failed, 4 not root, 5 no such request, 78"
        " policy",
    )
    found.add_argument("name", metavar="NAME", help="the request's name in the policy")
    found.add_argument("--yes", action="store_true", help="do not ask")
    found.set_defaults(handler=apply)


def apply(arguments: argparse.Namespace) -> int:
    """The command. Raises ConfigError, DeniedError and others of TierdError."""
    require_root()
    root, tools = Root(), Tools()
    policy = load(DEFAULT_PATH)
    request = next((r for r in policy.requests if r.name == arguments.name), None)
    if request is None:
        known = ", ".join(r.name for r in policy.requests) or "none"
        raise NoRequestError(f"{policy.origin} has no request named {arguments.name}; there is {known}")
    plan = plan_of(root, request)
    print(plan_text(plan, root))
    if plan.verdict is Verdict.DONE:
        return Exit.OK
    if plan.verdict is Verdict.REFUSED or request.mode is ProvisionMode.PLAN:
        return Exit.FAILED
    if not (arguments.yes or agreed("carry it out?")):
        print("nothing was changed; --yes does it without asking", file=sys.stderr)
        return Exit.FAILED
    return carry_out(root, tools, request)


def plan_of(root: Root, request: AnyRequest) -> AnyPlan:
    """What there is to do about `request` now. Raises what Look raises."""
    return look(root).plan(request, partial(allowance, str(DEFAULT_PATH)))


def carry_out(root: Root, tools: Tools, request: AnyRequest) -> int:
    """Have the request's unit do it, and look at what it did. Raises TierdError when that is not all."""
    unit = f"tierd-convert@{request.name}.service"
    # reloading leaves alone what requires the unit
    done = tools.run(("systemctl", "reload-or-restart", unit), deadline=CARRY_OUT_DEADLINE)
    if done.code or plan_of(root, request).verdict is not Verdict.DONE:
        raise TierdError(f"{unit} did not do all of it", hint=f"journalctl -u {unit}")
    print(f"{request.name}: done")
    return Exit.OK


def agreed(question: str) -> bool:
    """What somebody at a terminal answers; no where there is none."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", flush=True, file=sys.stderr)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
