"""`./dev verify NAME`: run a table of figures, and say which rows hold."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from pathlib import Path

import tests.verify
from tests.dev import package
from tests.verify import table
from tests.vm import host

TABLES = {
    name.replace("_", "-"): name
    for _, name, package_of_rows in pkgutil.iter_modules(tests.verify.__path__)
    if not package_of_rows and name not in ("table", "settings")
}


def main(argv: list[str]) -> int:
    """Called by `./dev verify`; exit code 1 when a row falls short."""
    parser = argparse.ArgumentParser(prog="./dev verify", description=__doc__)
    parser.add_argument("name", choices=sorted(TABLES))
    parser.add_argument("--row", action="append", metavar="NAME", help="only this row (may be repeated)")
    parser.add_argument("--long", action="store_true", help="also the rows too long for a usual run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    parser.add_argument("--list", action="store_true", help="name the rows, and run none")
    asked = parser.parse_args(argv)
    host.prepare()
    if sys.prefix == sys.base_prefix:  # rows share code with the tests, which need the tools
        python = str(host.venv_python())
        os.execv(python, [python, "-m", "tests.dev", "verify", *argv])
    rows = importlib.import_module(f"tests.verify.{TABLES[asked.name]}").ROWS
    if asked.list:
        table.show(rows)
        return 0
    try:
        chosen = table.choose(rows, asked.row, long=asked.long)
    except ValueError as error:
        parser.error(str(error))
    stage = table.Stage(package.build)
    kept = table.RESULTS / f"{asked.name}.json"
    code = table.run(asked.name, chosen, stage, keep=kept)
    if asked.json:
        asked.json.write_text(kept.read_text())
    return code
