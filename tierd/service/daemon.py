"""The daemon: GLib loop in the main thread, one engine thread, one immutable State handed over.

Everything that changes is changed in the main thread; other threads post to its mailbox.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

from gi.repository import GLib

from tierd import __version__
from tierd.core.address_heat import HeatBin
from tierd.core.past import Moment, Past
from tierd.core.policy import Policy
from tierd.core.state import MissingFeature, State
from tierd.errors import ConfigError, TierdError, UnsupportedError
from tierd.kernel.paths import Root
from tierd.service import events
from tierd.service.bus_values import View, status_text
from tierd.service.devices import DeviceWatch, Notices
from tierd.service.events import Event
from tierd.service.explaining import Explanation, explain
from tierd.service.interface import BUS_NAME, Doers
from tierd.service.journal import Reporter
from tierd.service.log_control import LogControl
from tierd.service.mailbox import Mailbox
from tierd.service.notify import Notifier, watchdog_seconds
from tierd.service.presence import Presence
from tierd.service.process_heat import process_heat
from tierd.service.process_rows import ProcessQuery, ProcessRow, list_processes
from tierd.service.unix_signals import unix_signal_add
from tierd.service.worker import EngineThread, Stepper, describe

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_TEMPORARY = 75
"""EX_TEMPFAIL of sysexits.h: systemd starts us again."""

TICK_MILLISECONDS = 1000
REPORT_SECONDS = 10
"""From READY to the second look at the helper's report: `helper begin` runs meanwhile, and adds to it."""
STOP_SECONDS = 10
"""A batch of moves lasts about 20 ms; a thread that needs longer is stuck in the kernel."""


class Daemon:
    """Composition of one run.

    load(): reads the policy file; raises ConfigError; called in a worker. stepper: the engine, not yet
    stepping. address: of the bus, None for the system bus. restart_when_tiered: the kernel was left as it
    was because there was nothing to tier, so that a second tier needs a new start of the unit.
    read_notices(policy): what is to be shown of the devices; called in a thread of its own.
    These raise nothing. protect(state): called after each round, for what keeps guaranteed classes in DRAM.
    keep(): called when the engine has ended well, for the next run to know what it knew; returns why not, in
    words. read_missing(): what the root helper reports missing, read again when the unit has started.
    """

    def __init__(
        self,
        policy: Policy,
        stepper: Stepper,
        *,
        load: Callable[[], Policy],
        reporter: Reporter,
        notifier: Notifier,
        address: str | None = None,
        restart_when_tiered: bool = False,
        read_missing: Callable[[], tuple[MissingFeature, ...]] = tuple,
        read_notices: Callable[[Policy], Notices] = lambda _: (),
        protect: Callable[[State], None] = lambda _: None,
        keep: Callable[[], str] = str,
    ) -> None:
        self._policy = policy
        self._problems: tuple[str, ...] = ()
        self._state = stepper.state
        self._told: State | None = None
        self._past = Past()
        self._load = load
        self._reporter = reporter
        self._notifier = notifier
        self._restart_when_tiered = restart_when_tiered
        self._read_missing = read_missing
        self._protect = protect
        self._keep = keep
        self._missing: tuple[MissingFeature, ...] = ()
        self._notices: Notices = ()
        self._loop = GLib.MainLoop()
        self._mailbox = Mailbox()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._engine = EngineThread(
            stepper,
            on_state=lambda state: self._mailbox.post(self._on_state, state),
            on_adopted=lambda new, error: self._mailbox.post(self._on_adopted, new, error),
            on_end=lambda error: self._mailbox.post(self._on_engine_end, error),
        )
        self._devices = DeviceWatch(
            lambda: read_notices(self._policy),
            on_change=lambda notices: self._mailbox.post(self._on_notices, notices),
            on_error=self.report_error,
        )
        self._reloads: list[Future[None]] = []
        self._waiting_reloads: list[Future[None]] = []
        self._ready = False
        self._stopping = False
        self._stalled = False
        self._exit_code = EXIT_OK
        self._watchdog = watchdog_seconds()
        self._presence: Presence | None = None
        try:
            self._presence = Presence(
                self._view(),
                Doers(
                    *(self._explain, self._list_processes, self._heat),
                    *(self._history, self.reload, self._pause),
                ),
                LogControl(reporter),
                mailbox=self._mailbox,
                on_change=self._on_bus,
                on_error=self.report_error,
                address=address,
            )
        except UnsupportedError as error:
            self._on_bus(False, str(error))

    def run(self) -> int:
        """Run until stopped. Returns the exit code. Call once, from the main thread."""
        for number, handler in (
            (signal.SIGTERM, self._on_stop_signal),
            (signal.SIGINT, self._on_stop_signal),
            (signal.SIGHUP, self._on_reload_signal),
        ):
            unix_signal_add(int(number), handler)
        GLib.timeout_add(TICK_MILLISECONDS, self._on_tick)
        if self._watchdog is not None:
            # A quarter of the time leaves room for a late loop.
            GLib.timeout_add(max(int(self._watchdog * 250), 1), self._on_watchdog)
        self._report(
            Event(
                events.STARTED,
                f"tierd {__version__} started, {self._policy.engine.mode}, policy {self._policy.source}",
                fields={
                    "TIERD_VERSION": __version__,
                    "TIERD_MODE": self._policy.engine.mode.value,
                    "TIERD_POLICY": self._policy.source,
                    "TIERD_POLICY_SHA256": self._policy.digest,
                },
            )
        )
        self._tell_what_is_odd()
        self._engine.start()
        self._devices.start()
        if self._presence is not None:
            self._presence.start()
        self._loop.run()
        self._devices.stop()
        for future in self._reloads + self._waiting_reloads:
            future.set_exception(TierdError("tierd is stopping"))  # a caller may wait in a worker
        if self._presence is not None:
            self._presence.stop()
        self._reporter.close(time.monotonic())
        self._report(Event(events.STOPPED, "tierd stopped; memory stays where it is"))
        return self._exit_code

    # From other threads

    def report(self, event: Event) -> None:
        """Report from any thread."""
        self._mailbox.post(self._report, event)

    def report_error(self, error: BaseException) -> None:
        """Report, from any thread, an error that nothing expected."""
        text = describe(error)
        self.report(Event(events.INTERNAL, f"internal error: {text}", subject=text))

    def reload(self) -> Future[None]:
        """Begin a reload, from any thread. The future ends with it, or with the error that refused it."""
        future: Future[None] = Future()
        self._mailbox.post(self._begin_reload, future)
        return future

    def _pause(self, seconds: int) -> Future[None]:
        """From any thread. 0: go on."""
        ends = datetime.now().astimezone() + timedelta(seconds=seconds)
        until = time.monotonic() + seconds if seconds else 0.0
        return self._engine.pause(until, f"until {ends:%Y-%m-%d %H:%M:%S %Z}")

    def _explain(self, pid: int, only_user: int | None) -> Explanation:
        """From any thread: what it reads is replaced, and never changed."""
        return explain(Root(), pid, self._policy, self._state, time.monotonic(), only_user)

    def _list_processes(self, query: ProcessQuery, only_user: int | None) -> tuple[ProcessRow, ...]:
        """As `_explain`."""
        return list_processes(Root(), query, only_user, self._policy, self._state.topology)

    def _heat(self, pid: int, bins: int) -> list[HeatBin]:
        """As `_explain`; waits for the engine."""
        return process_heat(Root(), pid, bins, self._policy, self._state.topology, self._engine.ask)

    def _history(self, seconds: int) -> tuple[Moment, ...]:
        return self._past.since(time.time() - seconds)

    # The engine's news

    def _on_state(self, state: State) -> None:
        added = tuple(feature for feature in self._missing if feature not in state.missing)
        state = self._state = replace(state, missing=(*state.missing, *added))
        self._reporter.round(state, time.monotonic())
        self._protect(state)
        self._show()
        if not self._ready:
            self._ready = True
            self._notifier.ready(status_text(self._view()))
            GLib.timeout_add_seconds(REPORT_SECONDS, self._on_report)
        # also in the first round: the tier may have appeared since the helper looked
        if self._restart_when_tiered and state.topology.tiered and not self._stopping:
            message = "a slow tier appeared: starting again, so that the kernel is set up for it"
            self._report(Event(events.RESTARTING, message))
            self._stop(EXIT_TEMPORARY, message)

    def _on_engine_end(self, error: BaseException | None) -> None:
        if error is not None:
            text = str(error) if isinstance(error, TierdError) else describe(error)
            kind = type(error).__name__
            self._report(
                Event(events.ENGINE_FAILED, f"the engine failed: {text}", fields={"TIERD_ERROR": kind})
            )
            self._notifier.failed(f"the engine failed: {text}")
            self._exit_code = EXIT_FAILED
        elif trouble := self._keep():
            trouble = f"what is known of heat is not kept for the next run: {trouble}"
            self._report(Event(events.NOTED, trouble, subject=trouble))
        self._loop.quit()

    def _on_notices(self, notices: Notices) -> None:
        self._notices = notices
        self._show()

    def _view(self) -> View:
        return View(self._state, self._problems, self._policy.source, self._policy.digest, self._notices)

    def _show(self) -> None:
        if self._presence is not None:
            self._presence.show(self._view(), time.monotonic())

    def _report(self, event: Event) -> None:
        self._reporter.report(event, time.monotonic())

    # Timers

    def _on_tick(self) -> bool:
        self._reporter.tick(time.monotonic())
        self._past.add(self._state, time.monotonic(), time.time())
        if self._presence is not None:
            self._presence.announce(time.monotonic())
        news = self._state is not self._told
        if news and self._ready and not self._stopping and not self._reloads:
            if self._notifier.status(status_text(self._view())):
                self._told = self._state
        return bool(GLib.SOURCE_CONTINUE)

    def _on_watchdog(self) -> bool:
        # A thread silent for half of the time is stuck, and the loop's own health must not hide that.
        assert self._watchdog is not None
        age = self._engine.heartbeat_age
        if age < self._watchdog / 2:
            self._stalled = False
            self._notifier.watchdog()
        elif not self._stalled:
            self._stalled = True
            message = f"the engine has not moved for {age:.0f} s; systemd will start tierd again"
            self._report(Event(events.ENGINE_STALLED, message, fields={"TIERD_SECONDS": f"{age:.3f}"}))
        return bool(GLib.SOURCE_CONTINUE)

    def _on_report(self) -> bool:
        self._missing = self._read_missing()
        if not self._stopping:
            self._on_state(self._state)
        return bool(GLib.SOURCE_REMOVE)

    # The bus

    def _on_bus(self, connected: bool, reason: str) -> None:
        if connected:
            self._report(Event(events.BUS_CONNECTED, f"{BUS_NAME} is on the bus"))
        else:
            message = f"not on the bus, placing goes on: {reason}"
            self._report(Event(events.BUS_LOST, message, fields={"TIERD_REASON": reason}))

    # Reload

    def _on_reload_signal(self) -> bool:
        self._begin_reload(Future())
        return bool(GLib.SOURCE_CONTINUE)

    def _begin_reload(self, future: Future[None]) -> None:
        if self._stopping:
            future.set_exception(TierdError("tierd is stopping"))
        elif self._reloads:
            # The file may have changed since it was read: once more, for all who ask meanwhile.
            self._waiting_reloads.append(future)
        else:
            self._reloads = [future]
            self._start_reload()

    def _start_reload(self) -> None:
        if self._ready:
            self._notifier.reloading("reading the policy")
        self._loader.submit(self._load).add_done_callback(
            lambda done: self._mailbox.post(self._on_loaded, done)
        )

    def _on_loaded(self, done: Future[Policy]) -> None:
        error = done.exception()
        if error is None:
            self._engine.adopt(done.result())
        else:
            if not isinstance(error, TierdError):
                self.report_error(error)
                error = TierdError(f"internal error: {type(error).__name__}")
            self._end_reload(error)

    def _on_adopted(self, policy: Policy, error: TierdError | None) -> None:
        if error is None:
            self._policy = policy
        self._end_reload(error)

    def _end_reload(self, error: TierdError | None) -> None:
        if error is None:
            self._problems = ()
            fields = {"TIERD_POLICY": self._policy.source, "TIERD_POLICY_SHA256": self._policy.digest}
            mode = self._policy.engine.mode.value
            self._report(
                Event(
                    events.POLICY_ADOPTED,
                    f"policy {self._policy.source} is in force, mode {mode}",
                    subject=self._policy.digest,
                    fields=fields,
                )
            )
            self._tell_what_is_odd()
        else:
            self._problems = error.problems if isinstance(error, ConfigError) else (str(error),)
            self._report(events.policy_rejected(self._problems, self._policy.digest))
        self._show()
        finished, self._reloads = self._reloads, self._waiting_reloads
        self._waiting_reloads = []
        for future in finished:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        if self._reloads:
            self._start_reload()
        elif self._ready:
            # Refused or not, it is over. `systemctl reload` has its failure from --check-config.
            self._notifier.ready(status_text(self._view()))

    def _tell_what_is_odd(self) -> None:
        for warning in self._policy.warnings:
            self._report(events.odd_policy(warning))

    # The end

    def _on_stop_signal(self) -> bool:
        self._stop(EXIT_OK, "stopping")
        return bool(GLib.SOURCE_CONTINUE)

    def _stop(self, code: int, status: str) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._exit_code = code
        self._notifier.stopping(status)
        self._engine.stop()
        GLib.timeout_add_seconds(STOP_SECONDS, self._on_stop_late)

    def _on_stop_late(self) -> bool:
        message = f"the engine did not end within {STOP_SECONDS} s and is left behind"
        self._report(Event(events.ENGINE_STALLED, message))
        self._loop.quit()
        return bool(GLib.SOURCE_REMOVE)
