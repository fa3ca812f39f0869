"""Files that tierctl writes."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Write `path`, whole or not at all, for everybody to read: who collects it may read it at any time.
    Raises OSError."""
    # a name that begins with a dot, and does not end as the other: collectors pass it over
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.chmod(0o644)
        fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)
