"""`./dev faults`: let everything in the catalogue of failures go wrong, and say what is the worse for it."""

from __future__ import annotations

import argparse
import os
import sys

from tests.dev import package
from tests.verify import table
from tests.vm import host, image


def main(argv: list[str]) -> int:
    """Called by `./dev faults`; exit code 1 when a row falls short, or what may never be was."""
    host.prepare()
    if sys.prefix == sys.base_prefix:  # cases share code with the tests, which need the tools
        python = str(host.venv_python())
        os.execv(python, [python, "-m", "tests.dev", "faults", *argv])
    from tests.faults import groups, never

    parser = argparse.ArgumentParser(prog="./dev faults", description=__doc__)
    parser.add_argument(
        "--group", action="append", choices=list(groups.GROUPS), help="only these cases (may be repeated)"
    )
    parser.add_argument(
        "--kernel",
        action="append",
        choices=image.kernel_names(earlier=True),
        help="on this kernel only (may be repeated)",
    )
    parser.add_argument("--row", action="append", metavar="NAME", help="only this row (may be repeated)")
    parser.add_argument(
        "--long", action="store_true", help="also the rows too long for a usual run, and every property"
    )
    parser.add_argument("--list", action="store_true", help="name the rows, and run none")
    asked = parser.parse_args(argv)
    kernels = asked.kernel or image.kernel_names(earlier=bool(asked.row or asked.list))
    rows = list(groups.rows(asked.group or groups.GROUPS, kernels))
    if not asked.group:
        rows.append(groups.PROPERTIES)
    if asked.list:
        table.show(rows)
        return 0
    try:
        chosen = table.choose(rows, asked.row, long=asked.long)
    except ValueError as error:
        parser.error(str(error))
    stage = table.Stage(package.build)
    code = table.run(never.TABLE, chosen, stage, keep=table.RESULTS / f"{never.TABLE}.json")
    results = never.kept(never.TABLE)
    held = sum(row["holds"] for row in results.values())
    counts = never.all_of(results)
    print(f"\nsurvived: {held} of {len(results)} rows that were run, by the last result of each")
    print("what may never be, there and in the tables of service, provisioning and engine:")
    print("\n".join(never.lines(counts)))
    return 1 if code or any(bad for bad, _ in counts.values()) else 0
