"""Loading the policy: read safely, parse strictly, check the shape, check the sense, build the value."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from tierd.config import source
from tierd.config.report import Report
from tierd.core.policy import Policy
from tierd.errors import ConfigError

DEFAULT_PATH = Path("/etc/tierd/tierd.yaml")


def load(path: Path, *, trusted: bool = True) -> Policy:
    """The policy in `path`.

    trusted: whether the file is to be obeyed; then it must be safe from everybody but root and the caller
    (see `tierd.config.source.read`). False for a draft that is only checked.
    Raises ConfigError with every problem, ``FILE:LINE:COLUMN: PATH: message`` in the order of the text, or
    one ``FILE: message`` when the file cannot be had. Called by the daemon at start and on reload, by
    tierd-convert and by `tierd.config.check`.
    """
    content = source.read(path, trusted=trusted)
    return parse(content, os.fspath(path))


def load_chosen(draft: Path | None) -> Policy:
    """The policy in force where `draft` is None or names it, else that draft, whose owner and mode do not
    matter yet. Raises like load. Called by every command that takes a policy as its argument."""
    if draft is None or draft == DEFAULT_PATH:
        return load(DEFAULT_PATH)
    return load(draft, trusted=False)


def parse(content: bytes, origin: str) -> Policy:
    """The policy in `content`; `origin` is the FILE of the problems. Raises ConfigError."""
    # Here and not above: PyYAML and jsonschema cost start-up time, which `tierd --help` need not spend.
    from tierd.config import build, classes, document, shape

    report = Report()
    read = document.read(content, report)
    if read.complete or isinstance(read.data, Mapping):
        shape.check(read, report)
        build.cross_check(read, report)
    if report or not isinstance(read.data, Mapping):
        raise ConfigError(report.lines(origin))
    classes.warn(read, report)
    digest = hashlib.sha256(content).hexdigest()
    return build.build(read, origin=origin, digest=digest, warnings=report.warnings(origin))
