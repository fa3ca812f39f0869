"""Changing one value in the text of a policy, and leaving every other character as it is."""

from __future__ import annotations

from dataclasses import replace

import yaml

from tierd.config import kinds
from tierd.config.document import read
from tierd.config.loader import parse
from tierd.config.report import Mark, Report
from tierd.core.policy import CxlRequest, Policy, ProvisionRequest
from tierd.errors import ConfigError, GoneError


def with_size(
    content: bytes, name: str, size: str, origin: str
) -> tuple[bytes, ProvisionRequest | CxlRequest]:
    """`content` with `size` as the size of the provisioning request `name`, and the request that it is then.

    origin: the file, for the words of errors. Raises ConfigError when the policy is bad, ValueError when the
    size is, GoneError when there is no such request. Called by `tierctl provision set`.
    """
    before = parse(content, origin)
    names = [request.name for request in _sized(before)]
    if name in (request.name for request in before.namespaces):
        raise GoneError(f"{origin}: {name} is a namespace that exists, and has no size: it is taken whole")
    if name not in names:
        known = ", ".join(names) or "none"
        raise GoneError(f"{origin} has no request named {name}; there is {known}")
    kinds.amount(size)
    document = read(content, Report())
    assert isinstance(document.data, dict)
    entries = [entry.get("name") for entry in document.data["provision"]]
    mark = document.values[("provision", entries.index(name), "size")]
    text = content.decode()
    start, end = _scalar(text, mark)
    changed = (text[:start] + size + text[end:]).encode()
    try:
        after = parse(changed, origin)
    except ConfigError as error:  # it was good before
        raise ValueError(error.problems[0].partition(".size: ")[2] or error.problems[0]) from None
    found = [request for request in _sized(after) if request.name == name]
    if len(found) != 1 or _others(after, name) != _others(before, name):
        raise ConfigError((f"{origin}: the size of {name} cannot be changed alone",))
    return changed, found[0]


def _sized(policy: Policy) -> tuple[ProvisionRequest | CxlRequest, ...]:
    """The requests that have a size: a namespace that exists is taken whole."""
    return (*policy.provision, *policy.cxl)


def _others(policy: Policy, name: str) -> Policy:
    """All that the policy says but for one request."""
    provision = tuple(request for request in policy.provision if request.name != name)
    cxl = tuple(request for request in policy.cxl if request.name != name)
    return replace(policy, provision=provision, cxl=cxl, digest="")


def _scalar(text: str, mark: Mark) -> tuple[int, int]:
    """Where the value at `mark` begins and ends, in characters."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        start, end = event.start_mark, event.end_mark
        if not isinstance(event, yaml.ScalarEvent) or start is None or end is None:
            continue
        if (start.line, start.column) == (mark.line - 1, mark.column - 1):
            return start.index, end.index
    raise ConfigError((f"line {mark.line}, column {mark.column} is no value that can be changed",))
