"""Changing one value in the text of a policy, and leaving every other character as it is."""

from __future__ import annotations

from dataclasses import replace

import yaml

from tierd.config import kinds
from tierd.config.document import read
from tierd.config.loader import parse
from tierd.config.report import Mark, Report
from tierd.core.policy import ProvisionRequest
from tierd.errors import ConfigError, GoneError


def with_size(content: bytes, name: str, size: str, origin: str) -> tuple[bytes, ProvisionRequest]:
    """`content` with `size` as the size of the provisioning request `name`, and the request that it is then.

    origin: the file, for the words of errors. Raises ConfigError when the policy is bad before or after,
    GoneError when it has no such request. Called by `tierctl provision set`.
    """
    before = parse(content, origin)
    names = [request.name for request in before.provision]
    if name not in names:
        known = ", ".join(names) or "none"
        raise GoneError(f"{origin} has no request named {name}; there is {known}")
    try:
        kinds.amount(size)
    except ValueError as error:
        raise ConfigError((str(error),)) from None
    index = names.index(name)
    document = read(content, Report())
    assert isinstance(document.data, dict)
    entries = [entry.get("name") for entry in document.data["provision"]]
    mark = document.values[("provision", entries.index(name), "size")]
    text = content.decode()
    start, end = _scalar(text, mark)
    changed = (text[:start] + size + text[end:]).encode()
    after = parse(changed, origin)
    others = (*before.provision[:index], after.provision[index], *before.provision[index + 1 :])
    if after != replace(before, provision=others, digest=after.digest):
        raise ConfigError((f"{origin}: the size of {name} cannot be changed alone",))
    return changed, after.provision[index]


def _scalar(text: str, mark: Mark) -> tuple[int, int]:
    """Where the value at `mark` begins and ends, in characters."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        start, end = event.start_mark, event.end_mark
        if not isinstance(event, yaml.ScalarEvent) or start is None or end is None:
            continue
        if (start.line, start.column) == (mark.line - 1, mark.column - 1):
            return start.index, end.index
    raise ConfigError((f"line {mark.line}, column {mark.column} is no value that can be changed",))
