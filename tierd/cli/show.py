"""`tierctl show`: every property of the daemon as KEY=VALUE, for scripts, as `systemctl show` has it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tierd.cli import Exit, render
from tierd.cli.arguments import add_json
from tierd.core.text import clean


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``show``."""
    show = subparsers.add_parser(
        "show",
        help="every property of tierd as KEY=VALUE, for scripts",
        description="Print the properties of tierd as KEY=VALUE, under their names on D-Bus. A list has a"
        " line for each of its entries, and one without a value when it is empty; an entry with fields of"
        " its own is { KEY=VALUE ; KEY=VALUE }.",
    )
    show.add_argument(
        "-p",
        "--property",
        action="append",
        default=[],
        metavar="NAME",
        help="this property alone; several are separated by commas, or given with several -p",
    )
    add_json(show)
    show.set_defaults(handler=_show)


def _show(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client, ClientError

    found = Client().status()
    names = [name for given in arguments.property for name in given.split(",")] or list(found)
    unknown = [name for name in names if name not in found]
    if unknown:
        raise ClientError(
            f"tierd has no property {', '.join(unknown)}",
            Exit.NO_SUCH_OBJECT,
            hint=f"there are {', '.join(found)}",
        )
    chosen = {name: found[name] for name in found if name in names}
    if arguments.json:
        print(json.dumps(render.plain(chosen), indent=2))
    else:
        print("\n".join(key_values(chosen)))
    return Exit.OK


def key_values(properties: Mapping[str, Any]) -> Iterator[str]:
    """A line for each property, and for each entry of one that is a list of sentences or of parts."""
    for name, value in properties.items():
        for one in value if _is_list(value) and value else [value]:
            yield f"{name}={_text(one)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "{ " + " ; ".join(f"{name}={_text(entry)}" for name, entry in value.items()) + " }"
    if _is_list(value):
        return " ".join(_text(entry) for entry in value)
    return clean(str(value), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
