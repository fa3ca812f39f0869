"""`tierctl cat-config`: the policy in force as one document, and which file each setting comes from.

Reads the files itself: what a reload would put in force, whether or not the daemon runs.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tierd.cli import Exit
from tierd.cli.arguments import add_json
from tierd.core.text import clean

# What the command itself imports, other commands need not wait for.
if TYPE_CHECKING:
    from tierd.config.files import PolicyFile
    from tierd.config.loader import InForce
    from tierd.config.report import Mark


# The subparsers object is generic over a private class of argparse.
def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``cat-config`` to the commands."""
    found = commands.add_parser(
        "cat-config",
        help="the policy of all its files as one, with the file and line of each setting",
        description="Print the policy in force as one YAML document, merged from all its files, with the"
        " file and line of each setting behind it, and every file that was read or is masked before it.",
        epilog="Exit status: 0 done; 78 the policy is invalid, and every problem is on standard error",
    )
    add_json(found, "lines and columns count from 1")
    found.set_defaults(handler=cat)


def cat(arguments: argparse.Namespace) -> int:
    """The command. Raises ConfigError."""
    from tierd.config.loader import load_in_force

    found = load_in_force()
    if arguments.json:
        print(json.dumps(document(found), indent=2))
    else:
        print("\n".join(text(found)))
    return Exit.OK


def text(found: InForce) -> Iterator[str]:
    """The lines: the files as comments, and the policy."""
    from tierd.config.files import Role
    from tierd.config.written import lines

    empty = {file.path for file in found.found if file.role is Role.EMPTY}
    for file in found.found:
        by = _shown(file.masked_by) if file.masked_by else ""
        says_nothing = ", which says nothing" if file.masked_by in empty else ""
        masked = f": masked by {by}{says_nothing}" if by else ""
        yield f"# {_shown(file.path)}{': says nothing' if file.role is Role.EMPTY else masked}"
    yield ""
    yield from lines(found.merged)


def document(found: InForce) -> dict[str, Any]:
    """The same, for programs."""
    from tierd.config.report import shown_location

    origins = {
        shown_location(location): {
            **_place(origin.file, origin.mark),
            "replaces": [_place(file, mark) for file, mark in origin.replaced],
        }
        for location, origin in found.merged.origins.items()
    }
    return {
        "policy": found.merged.document.data,
        "origins": origins,
        "files": [_file(file) for file in found.found],
        "digest": found.policy.digest,
    }


def _file(file: PolicyFile) -> dict[str, str]:
    masked = {"masked_by": _shown(file.masked_by)} if file.masked_by else {}
    return {"path": _shown(file.path), "role": file.role.value, **masked}


def _place(file: str, mark: Mark) -> dict[str, str | int]:
    return {"file": clean(file, 4096), "line": mark.line, "column": mark.column}


def _shown(path: os.PathLike[str]) -> str:
    return clean(os.fspath(path), 4096)
