"""`./dev`: a subcommand is a module of this package with a `main(argv) -> int`, imported when asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys

from tests.vm import host

COMMANDS = {
    "demo": "boot the testbed and watch a hot process move to DRAM",
    "test": "run the tests, ring by ring: lint, pure, provisioning, service, vm",
    "verify": "run a table of figures and say which rows hold",
    "faults": "let everything go wrong, and say what is the worse for it",
    "bench": "compare tierd with other contenders",
    "vm": "a shell in the testbed's virtual machine",
    "lint": "ruff and mypy",
    "package": "build tierd's Debian package, or a wheel",
    "completions": "write the completions of the shells anew",
}


def main(argv: list[str]) -> int:
    """Run the subcommand that the first argument names; expected failures are one line and exit code 1."""
    # A command that is not in this tree yet is not offered.
    known = {name: text for name, text in COMMANDS.items() if importlib.util.find_spec(f"tests.dev.{name}")}
    if not argv or argv[0] not in known:
        asked_for_help = argv[:1] in (["-h"], ["--help"], ["help"])
        out = sys.stdout if asked_for_help else sys.stderr
        if argv and not asked_for_help:
            print(f"dev: there is no command {argv[0]}\n", file=out)
        print("usage: ./dev COMMAND [ARGUMENT...]\n", file=out)
        for name, text in known.items():
            print(f"  {name:12}{text}", file=out)
        print("\n./dev COMMAND --help says more.", file=out)
        return 0 if asked_for_help else 2
    try:
        command = importlib.import_module(f"tests.dev.{argv[0]}")
        return int(command.main(argv[1:]))
    except host.HostError as error:
        print(f"dev {argv[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"dev {argv[0]}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
