"""`tierctl provision apply`: carry out a request of the policy, once its plan is agreed to."""

from __future__ import annotations

import argparse
import sys

from tierd.cli import Exit
from tierd.cli.provision import plan_text, request_named, require_root
from tierd.cli.requests import agreed, carry_out, plan_of
from tierd.cli.terminal import folded
from tierd.config import load
from tierd.core.policy import ProvisionMode
from tierd.core.provision import Verdict
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools


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
    request = request_named(load(None), arguments.name)
    plan = plan_of(root, request)
    print(folded(plan_text(plan, root), sys.stdout))
    if plan.verdict is Verdict.DONE:
        return Exit.OK
    if plan.verdict is Verdict.REFUSED or request.mode is ProvisionMode.PLAN:
        return Exit.FAILED
    if not agreed("carry it out?", yes=arguments.yes):
        return Exit.FAILED
    return carry_out(root, tools, request)
