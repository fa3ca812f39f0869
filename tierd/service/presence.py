"""All that tierd is on the bus: the manager, the tiers, the log's level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gi.repository import Gio, GLib

from tierd.service import log_control
from tierd.service.authority import Authority
from tierd.service.bus import BusService, Exported
from tierd.service.bus_values import View
from tierd.service.interface import BUS_NAME, INTERFACE, OBJECT_PATH, Doers, Manager
from tierd.service.log_control import LogControl
from tierd.service.mailbox import Mailbox
from tierd.service.shown import introspection_xml
from tierd.service.tier_objects import INTERFACE as TIER_INTERFACE
from tierd.service.tier_objects import OBJECT_MANAGER_XML, TierObjects


class Presence:
    """Used by the daemon, in the main thread. on_change, on_error, address: as for BusService.

    Raises UnsupportedError when an interface's file is missing.
    """

    def __init__(
        self,
        view: View,
        doers: Doers,
        log: LogControl,
        *,
        mailbox: Mailbox,
        on_change: Callable[[bool, str], None],
        on_error: Callable[[BaseException], None],
        address: str | None,
    ) -> None:
        xml = introspection_xml(INTERFACE.rpartition(".")[0])
        self._manager = Manager(view, xml, doers)
        self._tiers = TierObjects(introspection_xml(TIER_INTERFACE))
        self._on_error = on_error
        self._bus = BusService(
            BUS_NAME,
            (
                Exported(OBJECT_PATH, xml, self._manager),
                Exported(OBJECT_PATH, OBJECT_MANAGER_XML, self._tiers),
                Exported(log_control.OBJECT_PATH, log_control.XML, log),
            ),
            mailbox=mailbox,
            on_change=on_change,
            on_error=on_error,
            address=address,
            authority=Authority(),
        )

    def start(self) -> None:
        self._bus.start()

    def stop(self) -> None:
        self._bus.stop()

    def show(self, view: View, now: float) -> None:
        """Show what is new, and what is known already where that cannot be shown. now: monotonic seconds."""
        self._attempt(self._manager.show, view, now)
        self._attempt(self._tiers.show, view.state.topology, self._bus, now)

    def announce(self, now: float) -> None:
        """Announce what was too early to be."""
        self._attempt(self._manager.announce, now)
        self._attempt(self._tiers.announce, now)

    def _attempt(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except GLib.Error as error:
            # A connection that has just been lost is told of by itself.
            if not error.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CLOSED):
                self._on_error(error)
        except (TypeError, ValueError, OverflowError) as error:  # a value that does not fit its type
            self._on_error(error)
