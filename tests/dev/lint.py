"""`./dev lint`: what the tests say about style and types, without the tests."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from tests.vm import host


def linters(root: Path = host.ROOT) -> dict[str, list[str]]:
    """Every linter with its command line; the settings are in the pyproject.toml of that tree."""
    tools = host.VENV / "bin"
    return {
        "ruff check": [str(tools / "ruff"), "check", "--quiet", str(root)],
        "ruff format": [str(tools / "ruff"), "format", "--quiet", "--diff", str(root)],
        # The types of the whole product are strict; its tests only have to run.
        "mypy": [str(tools / "mypy"), "--strict", "--no-error-summary", str(root / "tierd")],
    }


def main(argv: list[str]) -> int:
    """Called by `./dev lint`; exit code 1 when a linter has something to say."""
    parser = argparse.ArgumentParser(
        prog="./dev lint", description="ruff check, ruff format and mypy --strict."
    )
    parser.add_argument("--fix", action="store_true", help="let ruff repair and format what it can, first")
    parser.add_argument("paths", nargs="*", help="repair only these (with --fix)")
    asked = parser.parse_args(argv)
    host.prepare()
    if asked.fix:
        ruff = str(host.VENV / "bin" / "ruff")
        subprocess.run([ruff, "check", "--quiet", "--fix-only", *asked.paths], cwd=host.ROOT)
        subprocess.run([ruff, "format", "--quiet", *asked.paths], cwd=host.ROOT)
    failed = 0
    for name, command in linters().items():
        code = subprocess.run(command, cwd=host.ROOT).returncode
        host.say(f"{name}: {'clean' if code == 0 else 'NOT clean'}")
        failed += code != 0
    return 1 if failed else 0
