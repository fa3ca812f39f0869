"""Two who say what a device holds, each by its own means: blkid, which reads it now, and udev's database.

stratisd asks the same two before it takes a device. What they cannot tell for certain is trouble, and never
an empty answer.
"""

from __future__ import annotations

from pathlib import Path

from tierd.core.evidence import Witness
from tierd.core.text import clean
from tierd.errors import TierdError
from tierd.kernel.tools import Tools

DEADLINE = 30.0
"""Seconds for one question."""

_NOTHING = 2
_AMBIVALENT = 8
"""Exit codes of `blkid --probe` (blkid(8)). 2 also means that the device cannot be opened, and then nothing
is said on stderr (measured, util-linux 2.41): whoever asks must have read the device."""


def ask_blkid(tools: Tools, path: Path | str) -> Witness:
    """What the low-level probe finds on the device or file at `path`; its cache is not asked. Raises
    nothing."""
    try:
        done = tools.run(("blkid", "--probe", "--output", "export", str(path)), deadline=DEADLINE)
    except TierdError as error:
        return Witness("blkid", trouble=str(error))
    if done.code == _AMBIVALENT:
        return Witness("blkid", trouble="it finds several signatures that exclude each other")
    if done.code not in (0, _NOTHING) or done.stderr:
        said = f"exit code {done.code}: {clean(done.stderr, 200) or 'silent'}"
        return Witness("blkid", trouble=said)
    found = _signature(_properties(done.stdout), "TYPE", "PTTYPE")
    if (done.code == 0) is not bool(found):
        return Witness("blkid", trouble=f"exit code {done.code}, and the signature {found or 'none'}")
    return Witness("blkid", found)


def ask_udev(tools: Tools, device: Path) -> Witness:
    """What udev noted of the device whose directory in sysfs is `device`. Raises nothing.

    udev probes a device when it appears and when a writer closes it, and of a dax device notes no more than
    that it is there.
    """
    try:
        settled = tools.run(("udevadm", "settle", f"--timeout={DEADLINE:.0f}"), deadline=DEADLINE + 5)
        if settled.code:
            return Witness("udev", trouble="events are waiting in its queue: what it noted may be old")
        done = tools.run(("udevadm", "info", "--query=property", f"--path={device}"), deadline=DEADLINE)
    except TierdError as error:
        return Witness("udev", trouble=str(error))
    found = _properties(done.stdout)
    if done.code or found.get("SUBSYSTEM") not in ("block", "dax"):
        said = clean(done.stderr, 200) or "it does not know the device"
        return Witness("udev", trouble=f"exit code {done.code}: {said}")
    if "USEC_INITIALIZED" not in found:
        return Witness("udev", trouble="it has not looked at the device yet")
    if "ID_FS_AMBIVALENT" in found:
        return Witness("udev", trouble="it found several signatures that exclude each other")
    return Witness("udev", _signature(found, "ID_FS_TYPE", "ID_PART_TABLE_TYPE"))


def _signature(properties: dict[str, str], *keys: str) -> str:
    """What the keys name: the file system (or volume, or swap), and the partition table."""
    return "+".join(clean(properties[key], 60) for key in keys if properties.get(key))


def _properties(output: bytes) -> dict[str, str]:
    lines = output.decode("utf-8", errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
