"""What `tierd --check-config` does."""

from __future__ import annotations

import sys
from pathlib import Path

from tierd.config.files import place_of
from tierd.config.loader import load_chosen
from tierd.core.text import clean, plural
from tierd.errors import ConfigError


def check(draft: Path | None) -> int:
    """Prints every problem of the file `draft`, or of the policy in force, to stderr, or ``FILE: OK`` to
    stdout, and then its warnings to stderr.

    Returns the exit code: 0, or 78 (EX_CONFIG of sysexits.h, which systemctl shows as CONFIG).
    """
    try:
        policy = load_chosen(draft)
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return error.exit_code
    for warning in policy.warnings:
        print(warning, file=sys.stderr)
    count = f", {plural(len(policy.warnings), 'warning')}" if policy.warnings else ""
    # Whoever names one of several files is not to take it for the whole.
    alone = ", by itself" if draft is not None and place_of(draft) is not None else ""
    print(f"{clean(policy.source, 8192)}: OK{alone}{count}")
    return 0
