"""The command tierctl: arguments, exit status, and where the text goes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tierd import __version__
from tierd.cli import Exit, cat_config, history, listing, manage, render, report, show, top
from tierd.cli.arguments import Parser, add_draft, add_json, process_number
from tierd.cli.output import replace
from tierd.cli.terminal import folded, style_for
from tierd.core.text import clean
from tierd.errors import ConfigError, TierdError, in_words

EPILOG = """\
Without a command, tierctl shows the status.

Exit status:
   0  done
   1  failed
   2  wrong arguments
   3  tierd is not running
   4  not permitted
   5  no such object
   6  tierd did not answer in time
  78  the policy is invalid
 130  interrupted with ^C

Environment:
  TIERD_DBUS_TIMEOUT  seconds to wait for tierd's answer (default: 10)
  NO_COLOR            when set and not empty, no colour
"""


_LIGHT_COMMANDS = (
    *("status", "plan", "explain", "list", "show", "history", "top", "report", "metrics", "pause"),
    *("resume", "reload", "check-config", "cat-config"),
)


def parser(*, light: bool = False) -> argparse.ArgumentParser:
    """The command line. Separate, so that documentation and completion can be checked against it.

    light: without the commands that read the machine themselves, whose imports make each start slower.
    """
    found: argparse.ArgumentParser = Parser(
        prog="tierctl",
        usage="tierctl [-h] [--version] [COMMAND ...]",
        description="Show what tierd does with this machine's memory tiers, and why.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--version", action="version", version=f"tierctl {__version__}")
    commands = found.add_subparsers(prog="tierctl", dest="command", metavar="COMMAND", required=True)

    status = commands.add_parser(
        "status", help="state, tiers, what was moved, what is missing", description="Show tierd's state."
    )
    add_json(status)
    status.add_argument(
        "--offline", action="store_true", help="do not ask tierd: the memory tiers as the kernel shows them"
    )
    status.set_defaults(handler=_status)

    plan = commands.add_parser(
        "plan",
        help="what tierd would move next, with the reason of each step",
        description="Show the steps of tierd's last plan. With mode: observe, nothing of it is carried out.",
    )
    add_json(plan, "a page is 4096 bytes")
    plan.set_defaults(handler=_plan)

    explain = commands.add_parser(
        "explain",
        help="why a process has the memory that it has: its class, where it is, what was moved",
        description="Show the class of a process and which rule of the policy decided, where its memory is,"
        " and what last became of its pages.",
    )
    explain.add_argument("pid", type=process_number, metavar="PID")
    add_json(explain)
    explain.set_defaults(handler=_explain)

    listing.add_parser(commands)
    show.add_parser(commands)
    history.add_parser(commands)
    top.add_parser(commands)
    report.add_parser(commands)

    metrics = commands.add_parser(
        "metrics",
        help="what tierd knows as OpenMetrics text, for Prometheus",
        description="Print tierd's metrics as OpenMetrics text, or put them where the textfile collector of"
        " node_exporter looks for them.",
    )
    metrics.add_argument(
        "--output", type=Path, metavar="FILE", help="write this file, whole or not at all, and print nothing"
    )
    metrics.set_defaults(handler=_metrics)

    manage.add_parsers(commands)

    if not light:
        from tierd.cli import drain, provision

        provision.add_parser(commands)
        drain.add_parser(commands)

    check = commands.add_parser(
        "check-config",
        help="check a policy, and print every problem in it",
        description="Check a policy file, or all files of the policy in force. Every problem is one line:"
        " FILE:LINE:COLUMN: PATH: MESSAGE.",
    )
    add_draft(check, "file")
    add_json(check, "lines and columns count from 1")
    check.set_defaults(handler=_check_config)
    cat_config.add_parser(commands)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of /usr/bin/tierctl. Returns the exit status; what goes wrong is one line on stderr."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # tierctl plan | head
    given = _with_command(sys.argv[1:] if argv is None else argv)
    arguments = parser(light=given[0] in _LIGHT_COMMANDS).parse_args(given)
    try:
        return int(arguments.handler(arguments))
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return Exit.INVALID_POLICY
    except TierdError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(folded(clean(f"tierctl: {error}{hint}", None), sys.stderr), file=sys.stderr)
        return getattr(error, "status", Exit.FAILED)
    except OSError as error:
        print(folded(clean(f"tierctl: {in_words(error)}", None), sys.stderr), file=sys.stderr)
        return Exit.FAILED
    except ImportError as error:
        print(f"tierctl: {error}; install the packages that tierd depends on", file=sys.stderr)
        return Exit.FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _with_command(argv: Sequence[str]) -> list[str]:
    """`argv` with the command ``status`` where there is none: ``tierctl``, ``tierctl --json``."""
    if argv and (not argv[0].startswith("-") or argv[0] in ("-h", "--help", "--version")):
        return list(argv)
    return ["status", *argv]


def _show_json(document: Mapping[str, Any]) -> None:
    print(json.dumps(document, indent=2))


def _status(arguments: argparse.Namespace) -> Exit:
    style = style_for(sys.stdout, os.environ)
    if arguments.offline:
        from tierd.cli.offline import read_tiers

        found = read_tiers()
        if arguments.json:
            _show_json({"running": None, "tiers": found})
        else:
            print(render.offline(found, style))
        return Exit.OK
    from tierd.cli.client import Client, ClientError

    try:
        facts = render.plain(Client().status())
    except ClientError as error:
        if error.status is not Exit.NOT_RUNNING:
            raise
        if arguments.json:
            _show_json({"running": False, "reason": str(error)})
        else:
            print(render.not_running(str(error), error.hint, style))
        return Exit.NOT_RUNNING
    if arguments.json:
        _show_json({"running": True, **facts})
    else:
        print(render.status(facts, style))
    return Exit.OK


def _plan(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    rows = render.plain(Client().plan())
    if arguments.json:
        _show_json({"steps": rows})
    else:
        print(render.plan(rows, style_for(sys.stdout, os.environ)))
    return Exit.OK


def _explain(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    found = render.plain(Client().explain(arguments.pid))
    if arguments.json:
        _show_json(found)
    else:
        print(render.explanation(found, style_for(sys.stdout, os.environ)))
    return Exit.OK


def _metrics(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client
    from tierd.cli.metrics import metrics

    text = metrics(render.plain(Client().status()))
    if arguments.output is None:
        print(text, end="")
    else:
        replace(arguments.output, text.encode())
    return Exit.OK


def _check_config(arguments: argparse.Namespace) -> int:
    from tierd.config.check import check

    return check(arguments.file, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
