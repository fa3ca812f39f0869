"""Wrong policies in few words, and what is told of them. Used by the modules test_bad_*."""

from __future__ import annotations

import pytest

from tierd.config.loader import parse
from tierd.errors import ConfigError

# (document, [(line, column, path, part of the message), ...]): all problems, in order.
Case = tuple[str, list[tuple[int, int, str, str]]]


def engine(line: str) -> str:
    return f"version: 1\nengine:\n  {line}\n"


def include(rule: str) -> str:
    return f"version: 1\nprocesses:\n  include:\n    - {rule}\n"


def provision(*entries: str) -> str:
    return "version: 1\nprovision:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


def classes(*entries: str) -> str:
    return "version: 1\nclasses:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


REGION = 'region: {iset_id: "0x9f2c"}'


def problems(document: str | bytes) -> list[str]:
    """Every problem of a policy that has some."""
    content = document if isinstance(document, bytes) else document.encode("utf-8", "surrogatepass")
    with pytest.raises(ConfigError) as caught:
        parse(content, "t.yaml")
    return list(caught.value.problems)


def assert_told(case: Case) -> None:
    """All problems of the case, and no others, each at its place."""
    document, expected = case
    told = problems(document)
    assert len(told) == len(expected), told
    for line, (row, column, path, part) in zip(told, expected, strict=True):
        assert line.startswith(f"t.yaml:{row}:{column}: {path}: "), line
        assert part in line
        assert line.isprintable()
