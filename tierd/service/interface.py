"""What org.tierd1 shows: the newest state as D-Bus values. conf/dbus/org.tierd1.xml alone says its shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from pydbus.generic import signal

from tierd.core.address_heat import HeatBin
from tierd.core.past import Moment
from tierd.core.text import clean
from tierd.errors import InvalidError, TimedOutError
from tierd.service.authority import Caller
from tierd.service.bus import authorised, for_caller, slow
from tierd.service.bus_values import (
    HistoryRows,
    View,
    explanation_values,
    heat_values,
    plan_reply,
    process_values,
    properties,
)
from tierd.service.explaining import Explanation
from tierd.service.process_rows import ProcessQuery, ProcessRow, process_query
from tierd.service.shown import Shown

BUS_NAME = "org.tierd1"
OBJECT_PATH = "/org/tierd1"
INTERFACE = "org.tierd1.Manager"

LONGEST_PAUSE = 24 * 3600
"""Seconds. A pause that nobody ends ends by itself: memory that is never placed again is a fault that nobody
sees."""
RELOAD_SECONDS = 20.0
"""Less than the 25 s that D-Bus clients wait by default, so that the caller hears an answer."""


@dataclass(frozen=True, slots=True)
class Doers:
    """What the methods have done by the daemon; all may be called from any thread, and raise TierdError.

    explain(pid, user): looks at a process. list_processes(query, user): at many. Of `user` alone where that
    is not None. heat(pid, bins): what is known of the memory of one, in so many parts. history(seconds):
    what the engine did so long. reload(): begins to read the policy file again; the future ends when the
    policy is in force, or with the TierdError that says why not. pause(seconds): moves nothing for so long,
    0 to go on; the future ends when nothing moves.
    """

    explain: Callable[[int, int | None], Explanation]
    list_processes: Callable[[ProcessQuery, int | None], tuple[ProcessRow, ...]]
    heat: Callable[[int, int], list[HeatBin]]
    history: Callable[[int], tuple[Moment, ...]]
    reload: Callable[[], Future[None]]
    pause: Callable[[int], Future[None]]


class Manager:
    """The adaptor behind /org/tierd1. Main thread only, but for what is `slow`, which waits in a worker."""

    PropertiesChanged = signal()
    PromiseChanged = signal()

    def __init__(self, view: View, xml: str, doers: Doers) -> None:
        self._doers = doers
        self._view = view
        self._shown = Shown(xml, INTERFACE, properties(view))
        self._history = HistoryRows()
        self._plan: Any = None  # made once for each view, when somebody asks for it

    def dbus_properties(self) -> Mapping[str, Any]:
        """Ready variants: nothing is computed, so nothing can fail, when a client asks."""
        return self._shown.variants

    def GetPlan(self) -> Any:
        if self._plan is None:
            self._plan = plan_reply(self._view.state)
        return self._plan

    @slow
    def GetHistory(self, seconds: int) -> Any:
        return self._history.reply(self._doers.history(seconds))

    @for_caller("org.tierd1.read-processes")
    @slow
    def Explain(self, caller: Caller, pid: int) -> dict[str, Any]:
        return explanation_values(self._doers.explain(pid, _only_user(caller)))

    @for_caller("org.tierd1.read-processes")
    @slow
    def ListProcesses(self, caller: Caller, keys: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        query = process_query(keys, limit)
        return [process_values(row) for row in self._doers.list_processes(query, _only_user(caller))]

    @authorised("org.tierd1.read-processes")
    @slow
    def GetHeat(self, pid: int, bins: int) -> list[dict[str, Any]]:
        return [heat_values(found) for found in self._doers.heat(pid, bins)]

    @authorised("org.tierd1.reload")
    @slow
    def Reload(self) -> None:
        _wait(self._doers.reload(), "the policy is not in force")

    @authorised("org.tierd1.manage")
    @slow
    def Pause(self, seconds: int) -> None:
        if not 1 <= seconds <= LONGEST_PAUSE:
            raise InvalidError(f"a pause lasts 1 to {LONGEST_PAUSE} seconds, not {seconds}")
        _wait(self._doers.pause(seconds), "a move that had begun is not over")

    @authorised("org.tierd1.manage")
    @slow
    def Resume(self) -> None:
        _wait(self._doers.pause(0), "a move that had begun is not over")

    def show(self, view: View, now: float) -> None:
        """Take up a new view, and announce it unless it is too early. now: monotonic seconds."""
        before = {found.name: found.broken for found in self._view.state.classes}
        self._shown.take(properties(view))
        self._view, self._plan = view, None
        for found in view.state.classes:
            if bool(found.broken) != bool(before.get(found.name)):
                self.PromiseChanged(found.name, not found.broken, clean(found.broken))
        self.announce(now)

    def announce(self, now: float) -> None:
        """Send PropertiesChanged for what changed since the last one, at most once a second."""
        changed = self._shown.changes(now)
        if changed:
            self.PropertiesChanged(INTERFACE, changed, [])


def _only_user(caller: Caller) -> int | None:
    """Whose processes alone may be shown to the caller; None for everybody's."""
    return None if caller.refusal is None else caller.user


def _wait(future: Future[None], what: str) -> None:
    """In a worker. Raises TimedOutError, with `what` as its words, and what the future ends with."""
    try:
        future.result(RELOAD_SECONDS)
    except FutureTimeout:
        raise TimedOutError(f"{what} after {RELOAD_SECONDS:.0f} s") from None
