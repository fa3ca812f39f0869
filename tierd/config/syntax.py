"""What PyYAML says about text that is no YAML, in words that say what to write instead."""

from __future__ import annotations

from typing import Any

import yaml

from tierd.core.text import clean

# Part of PyYAML's context and problem: what to tell the operator.
_EXPLANATIONS = {
    "character '\\t'": "a tab cannot be used here; indent and separate with spaces",
    "while scanning an alias": '`*` begins an alias in YAML; write a glob in quotes, for example "*"',
    "while scanning an anchor": "`&` begins an anchor in YAML; write the value in quotes",
    "tag": "`!` begins a tag in YAML; write the value in quotes",
    "directive": "`%` at the beginning of a line is a directive in YAML; remove the line",
    "while scanning a quoted scalar": "this quote is not closed before the document ends",
    "while scanning a double-quoted scalar": "unknown escape; use \\\\ for a backslash, or single quotes",
    "while scanning a block scalar": "no block text (| and >) is needed; write the value on one line",
    "mapping values are not allowed here": "no colon is expected here; does the line above lack its own, "
    "is the indentation wrong, or should the value be in quotes?",
    "could not find expected ':'": "`key: value` is expected; is the colon or the space after it missing?",
    "expected ',' or ']'": "this `[` is not closed, or a comma is missing in the list",
    "expected ',' or '}'": "this `{` is not closed, or a comma is missing in the mapping",
    "expected '<document start>'": "the document ends before this; top-level keys begin in one column",
    "but found '<scalar>'": "this follows a value that has ended; quote all of it, or begin a new line",
    "expected <block end>": "the indentation fits nothing above; keys of one block begin in one column",
    "sequence entries are not allowed here": "a list entry is not expected here; begin it on its own line",
    "that cannot start any token": "a value cannot begin with this character; write the value in quotes",
}
# Shown where the thing begins; the others, where reading stopped.
_SHOWN_AT_BEGINNING = {
    "while scanning an alias",
    "while scanning an anchor",
    "while scanning a quoted scalar",
    "could not find expected ':'",
    "expected ',' or ']'",
    "expected ',' or '}'",
}


def explain(error: yaml.MarkedYAMLError) -> tuple[Any, str]:
    """The place to show (a mark of PyYAML, or None) and what to say there. Called by document.py."""
    told = f"{error.context or ''} {error.problem or ''}"
    part = next((part for part in _EXPLANATIONS if part in told), "")
    at_beginning = part in _SHOWN_AT_BEGINNING and error.context_mark is not None
    place = error.context_mark if at_beginning else error.problem_mark or error.context_mark
    return place, _EXPLANATIONS.get(part) or clean(error.problem or "this cannot be read as YAML", 400)
