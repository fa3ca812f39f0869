"""The property tests with a hundred thousand examples each."""

from __future__ import annotations

import re
import subprocess

from tests.faults.case import Seen, figure
from tests.verify.table import Figure, Row, Stage
from tests.vm import host

PROFILE, EXAMPLES = "long", 100_000
"""Of tests/conftest.py. A test that names a number of its own keeps it."""
LEAST = 40


def _measure(_: Stage) -> Figure:
    done = subprocess.run(
        [str(host.venv_python()), "-m", "pytest", "-q", "-m", "hypothesis", "--ignore=tests/vm",
         f"--hypothesis-profile={PROFILE}", "-n", "auto", "tests"],
        cwd=host.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    print(done.stdout[-4000:] + done.stderr[-2000:])
    found = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    passed, failed = found.pop("passed", 0), sum(found.values())
    faults = [f"{failed} properties do not hold"] if failed or done.returncode else []
    if passed < LEAST:
        faults.append(f"fewer than {LEAST} properties")
    return figure(Seen(passed, faults, f"{passed} properties hold"), "")


ROW = Row(
    "properties",
    f"every property with {EXAMPLES:,} examples, where its test names no number of its own",
    f"at least {LEAST} properties, 0 failures",
    _measure,
    long=True,
)
