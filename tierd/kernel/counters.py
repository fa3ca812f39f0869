"""The kernel's own counts of pages moved, from /proc/vmstat."""

from __future__ import annotations

import re
from typing import Final

from tierd.errors import MalformedError
from tierd.kernel.files import read_bytes
from tierd.kernel.paths import Root

_COUNTERS: Final = re.compile(rb"(?:[!-~]+ [0-9]+\n)+")


def read_counters(root: Root, *names: bytes) -> tuple[int, ...]:
    """The counters of these names, 0 for those that the kernel does not have. Raises GoneError, DeniedError,
    MalformedError."""
    text = _read(root)
    return tuple(_value(text, name) for name in names)


def _read(root: Root) -> bytes:
    """Every line has to be a counter: one that was skipped would read as 0, and the next as all since
    boot."""
    path = root.proc / "vmstat"
    text = read_bytes(path)
    good = _COUNTERS.match(text)
    if not good or good.end() < len(text):
        line = text[good.end() if good else 0 :].split(b"\n")[0]
        raise MalformedError(f"{path}: not a counter: {line[:40]!r}")
    return text


def _value(text: bytes, name: bytes) -> int:
    before, found, behind = (b"\n" + text).partition(b"\n" + name + b" ")
    return int(behind[: behind.index(b"\n")]) if found else 0


def read_demoted(root: Root) -> int:
    """Base pages demoted on request since boot. Requests through lru_gen count as `proactive` where there is
    such a counter. Where there is none, as up to 6.12, they count as `direct`, with what those demote who
    allocate. What kswapd demotes by itself is in neither. Raises like `read_counters`."""
    text = _read(root)
    proactive = b"\npgdemote_proactive " in b"\n" + text
    return _value(text, b"pgdemote_proactive" if proactive else b"pgdemote_direct")


def read_hinting(root: Root) -> tuple[int, int]:
    """Base pages unmapped for hint faults since boot, and how many such faults there were."""
    unmapped, faults = read_counters(root, b"numa_pte_updates", b"numa_hint_faults")
    return unmapped, faults
