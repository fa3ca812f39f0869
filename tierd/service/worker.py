"""The engine's thread: steps, swaps policies between steps, and leaves a heartbeat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from tierd.core.policy import Policy
from tierd.core.state import State
from tierd.errors import TierdError

SHORTEST_WAIT = 0.02
LONGEST_WAIT = 3.0


class Stepper(Protocol):
    """The engine, as seen from here. Called from the engine's thread; any thread may read `state`."""

    @property
    def state(self) -> State:
        """The state after the last round."""

    def step(self) -> float:
        """Do what is due. Returns the seconds until the next call is wanted, 0.02 to 3."""

    def adopt(self, policy: Policy) -> None:
        """Go by `policy` from the next step on. Raises TierdError if it cannot; the older one stays."""

    def pause(self, until: float, words: str) -> None:
        """Move nothing before `until`, on the monotonic clock; 0: go on. words: until when, for people."""

    def close(self) -> None:
        """Give back what it holds. Called once, after the last step."""


class EngineThread:
    """Runs one Stepper until told to stop or until it raises.

    on_state(state): after each step that made a new state; the first step always counts.
    on_adopted(policy, error): a policy given to `adopt` is in force, or was refused with `error`.
    on_end(error): the thread is over; `error` is what the Stepper raised, None after `stop`.
    All three are called from the engine's thread and must hand over to another at once.
    """

    def __init__(
        self,
        stepper: Stepper,
        *,
        on_state: Callable[[State], None],
        on_adopted: Callable[[Policy, TierdError | None], None],
        on_end: Callable[[BaseException | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stepper = stepper
        self._on_state = on_state
        self._on_adopted = on_adopted
        self._on_end = on_end
        self._clock = clock
        self._wake = threading.Event()
        self._stop = False
        self._lock = threading.Lock()
        self._policies: list[Policy] = []
        self._pauses: list[tuple[float, str, Future[None]]] = []
        self._beat = clock()
        # Daemonic: a thread stuck in the kernel must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._beat = self._clock()
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; `on_end` tells when it has come. Returns at once."""
        self._stop = True
        self._wake.set()

    def adopt(self, policy: Policy) -> None:
        """Hand over a policy, to be taken up between two steps."""
        with self._lock:
            self._policies.append(policy)
        self._wake.set()

    def pause(self, until: float, words: str) -> Future[None]:
        """Have it move nothing before `until`, as Stepper.pause. The future ends when the step that was at
        work is over."""
        future: Future[None] = Future()
        with self._lock:
            self._pauses.append((until, words, future))
        self._wake.set()
        return future

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the thread last began or ended a step."""
        return self._clock() - self._beat

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._steps()
        except BaseException as raised:  # SystemExit too: nothing may end this thread unseen
            error = raised
        try:
            self._stepper.close()
        except BaseException as raised:
            error = error or raised
        self._on_end(error)

    def _steps(self) -> None:
        shown: State | None = None
        while not self._stop:
            self._adopt_waiting()
            self._beat = self._clock()
            wait = self._stepper.step()
            self._beat = self._clock()
            state = self._stepper.state
            if state is not shown:
                shown = state
                self._on_state(state)
            # `not >=` takes a NaN for the shortest wait as well.
            wait = min(wait, LONGEST_WAIT) if wait >= SHORTEST_WAIT else SHORTEST_WAIT
            if self._wake.wait(wait):
                self._wake.clear()

    def _adopt_waiting(self) -> None:
        with self._lock:
            policies, self._policies = self._policies, []
            pauses, self._pauses = self._pauses, []
        for until, words, future in pauses:
            self._stepper.pause(until, words)
            future.set_result(None)
        for policy in policies:
            try:
                self._stepper.adopt(policy)
            except TierdError as error:
                self._on_adopted(policy, error)
            else:
                self._on_adopted(policy, None)


def describe(error: BaseException) -> str:
    """Kind, text and place of an unexpected error, for one line: ``KeyError: 3 (engine.py:120)``."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno})" if trace else ""
    text = str(error)
    return type(error).__name__ + (f": {text}" if text else "") + place
