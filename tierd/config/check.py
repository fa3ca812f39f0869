"""What `tierd --check-config` and `tierctl check-config` do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tierd.config.files import place_of
from tierd.config.loader import load_chosen
from tierd.config.report import Told
from tierd.core.text import clean, plural
from tierd.errors import ConfigError


def check(draft: Path | None, *, as_json: bool = False) -> int:
    """Prints every problem of the file `draft`, or of the policy in force, to stderr, or ``FILE: OK`` to
    stdout, and then its warnings to stderr. as_json: all of that as one object to stdout.

    Returns the exit code: 0, or 78 (EX_CONFIG of sysexits.h, which systemctl shows as CONFIG).
    """
    try:
        policy = load_chosen(draft)
    except ConfigError as error:
        if as_json:
            _show_json(error.problems, ())
        else:
            print(*error.problems, sep="\n", file=sys.stderr)
        return error.exit_code
    if as_json:
        _show_json((), policy.warnings)
        return 0
    for warning in policy.warnings:
        print(warning, file=sys.stderr)
    count = f", {plural(len(policy.warnings), 'warning')}" if policy.warnings else ""
    # Whoever names one of several files is not to take it for the whole.
    alone = ", by itself" if draft is not None and place_of(draft) is not None else ""
    print(f"{clean(policy.source, 8192)}: OK{alone}{count}")
    return 0


def _show_json(problems: Iterable[str], warnings: Iterable[str]) -> None:
    document = {"problems": [*map(_parts, problems)], "warnings": [*map(_parts, warnings)]}
    print(json.dumps({"valid": not document["problems"], **document}, indent=2))


def _parts(line: str) -> Mapping[str, str | int | None]:
    return line.parts if isinstance(line, Told) else {"message": line}
