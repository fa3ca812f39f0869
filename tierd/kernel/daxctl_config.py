"""Which namespaces daxctl is told to reconfigure at boot: it would change them behind tierd's back."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from tierd.errors import DeniedError, GoneError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root

_SECTION = re.compile(r"\s*\[\s*([^\]\s]*)")
_UUID = re.compile(r"\s*nvdimm\.uuid\s*=\s*[\"']?([0-9a-f-]+)", re.IGNORECASE)


def read_claims(root: Root, denied: list[Path] | None = None) -> dict[str, str]:
    """By UUID of a namespace, in lower case, where a ``[reconfigure-device NAME]`` names it: file and line
    (daxctl-reconfigure-device(1), persistent reconfiguration).

    denied: files that only root may read are added here; without it they are a DeniedError. Raises
    MalformedError. Called by kernel/inventory.py.
    """
    found: dict[str, str] = {}
    etc = root.path / "etc"
    for path in (etc / "daxctl.conf", *sorted(etc.glob("daxctl.conf.d/*.conf"))):
        try:
            with contextlib.suppress(GoneError):
                _add(found, path, f"/{path.relative_to(root.path)}")
        except DeniedError:
            if denied is None:
                raise
            denied.append(path)
    return found


def _add(found: dict[str, str], path: Path, name: str) -> None:
    ours = False
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if section := _SECTION.match(line):
            ours = section[1].lower() == "reconfigure-device"
        elif ours and (uuid := _UUID.match(line)):
            found.setdefault(uuid[1].lower(), f"{name}, line {number}")
