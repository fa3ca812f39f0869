"""What `tierd --check-config` does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tierd.config.loader import load
from tierd.core.text import clean
from tierd.errors import ConfigError


def check(path: Path, *, trusted: bool) -> int:
    """Prints every problem of the policy in `path` to stderr, or ``PATH: OK`` to stdout.

    trusted: False for a draft, whose owner and mode do not matter yet.
    Returns the exit code: 0, or 78 (EX_CONFIG of sysexits.h, which systemctl shows as CONFIG).
    """
    try:
        load(path, trusted=trusted)
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return error.exit_code
    print(f"{clean(os.fspath(path), 4096)}: OK")
    return 0
