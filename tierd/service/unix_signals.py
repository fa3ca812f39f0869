"""Signals of the process as events of GLib's loop."""

from __future__ import annotations

from collections.abc import Callable

from gi.repository import GLib


def unix_signal_add(number: int, handler: Callable[[], bool]) -> None:
    """GLib.unix_signal_add, which newer PyGObject has moved to GLibUnix and warns about. Called by the
    daemon."""
    add: Callable[..., object] = GLib.unix_signal_add
    try:
        import gi

        gi.require_version("GLibUnix", "2.0")
        from gi.repository import GLibUnix
    except (ImportError, ValueError):
        pass
    else:
        # GLib 2.84 has the module; the function in it came with a later PyGObject.
        add = getattr(GLibUnix, "signal_add", add)
    add(GLib.PRIORITY_HIGH, number, handler)
