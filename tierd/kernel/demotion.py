"""Whether reclaim demotes to the slow tier: sysfs demotion_enabled, by the helper's descriptor."""

from __future__ import annotations

import os


class Demotion:
    """On while tierd moves pages, else as it was found. While it is off, the kernel drops or swaps out what
    it is asked to demote (can_demote in mm/vmscan.c). Used by the engine; the helper puts the first value
    back."""

    def __init__(self, descriptor: int | None) -> None:
        """descriptor: None where the helper handed none out; it is then off for good."""
        self._descriptor = descriptor
        self._before = self.on

    @property
    def on(self) -> bool:
        """As the kernel says now; False when it cannot be read."""
        if self._descriptor is None:
            return False
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            return os.read(self._descriptor, 16).strip() in (b"true", b"1")
        except OSError:
            return False

    def follow(self, moving: bool) -> None:
        """Switch it on for moving, or back to what it was. Raises nothing: what the kernel refused shows in
        `on`."""
        wanted = moving or self._before
        if self._descriptor is None or self.on is wanted:
            return
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, b"true\n" if wanted else b"false\n")
        except OSError:
            return
