"""`tierctl provision set`: change how much of a region is memory, in the policy and on the machine.

The plan is shown first. Then the one value is changed in the policy, and tierd-convert@NAME carries it out.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from tierd.cli import Exit
from tierd.cli.provision import NoRequestError, plan_text, require_root
from tierd.cli.requests import agreed, carry_out, plan_of
from tierd.cli.terminal import folded
from tierd.config import load_in_force, source
from tierd.config.edit import with_size
from tierd.core.policy import ProvisionMode
from tierd.core.provision import Verdict
from tierd.errors import GoneError, TierdError
from tierd.kernel.files import write_all
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools


class SizeError(TierdError):
    """No size, or none that a request may have."""

    status = Exit.USAGE


class ChangedError(TierdError):
    """The policy was changed by somebody else meanwhile."""


# The subparsers object is generic over a private class of argparse.
def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``set`` to the commands of ``provision``."""
    found = commands.add_parser(
        "set",
        help="change how much of a region is memory",
        description="Show what a new size of a request would do; with --yes, or when asked and told so,"
        " write it into that file of the policy in which the request stands, and carry it out.",
        epilog="Exit status: 0 done; 1 not agreed to, refused or failed, 2 no such size, 4 not root, 5 no"
        " such request, 78 policy",
    )
    found.add_argument("name", metavar="NAME", help="the request's name in the policy")
    found.add_argument(
        "size",
        metavar="SIZE",
        help="512MiB, 40%%, 'all but 64GiB', all, or none to give everything back",
    )
    found.add_argument("--yes", action="store_true", help="do not ask")
    found.set_defaults(handler=set_size)


def set_size(arguments: argparse.Namespace) -> int:
    """The command. Raises ConfigError, DeniedError and others of TierdError."""
    require_root()
    root, tools = Root(), Tools()
    path, content = _file_with_requests()
    try:
        changed, request = with_size(content, arguments.name, arguments.size, str(path))
    except GoneError as error:
        raise NoRequestError(str(error)) from None
    except ValueError as error:
        raise SizeError(f"SIZE {error}", hint="the policy is unchanged") from None
    plan = plan_of(root, request)
    print(folded(plan_text(plan, root), sys.stdout))
    if plan.verdict is Verdict.REFUSED:
        return Exit.FAILED
    if not agreed(f"write this into {path}, and carry it out?", yes=arguments.yes):
        return Exit.FAILED
    write_policy(path, content, changed)
    if request.mode is ProvisionMode.PLAN:
        print(f"{path} is changed; nothing is run while it says `mode: plan`")
        return Exit.OK
    return carry_out(root, tools, request)


def _file_with_requests() -> tuple[Path, bytes]:
    """That file of the policy in force in which its requests stand (all of them, since lists do not merge),
    and what it holds; the main file when there are none. Raises ConfigError."""
    found = load_in_force()
    wanted = found.merged.file_of(("provision",)) or found.policy.origin
    return next((file.path, file.content) for file in found.found if str(file.path) == wanted)


def write_policy(path: Path, before: bytes, after: bytes) -> None:
    """Replace the policy as a whole, with the same owner and mode. Raises ChangedError when it is no longer
    `before`, OSError."""
    status = path.stat()
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(descriptor, after)
            os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o7777)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if source.read(path, trusted=True) != before:
            raise ChangedError(f"{path} was changed meanwhile; nothing was written")
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
