"""The engine's thread: steps, takes policies and questions between steps, and leaves a heartbeat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from tierd.core.address_heat import KnownRates
from tierd.core.model import ProcessId
from tierd.core.policy import Policy
from tierd.core.state import State
from tierd.errors import TierdError

SHORTEST_WAIT = 0.02
LONGEST_WAIT = 3.0

Answer = TypeVar("Answer")


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

    def heat(self, process: ProcessId) -> KnownRates | None:
        """What is known of the pages of `process`, None when it is not placed yet, or any more. Changes
        nothing."""

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
        self._questions: list[Callable[[], None]] = []
        self._over = False
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

    def ask(self, question: Callable[[Stepper], Answer]) -> Future[Answer]:
        """Have the thread call `question` between two steps. The future ends with the answer, or with what
        `question` raised, which ends nothing else; and when the thread is over, with TierdError. One that
        nobody waits for any more may be cancelled."""
        future: Future[Answer] = Future()

        def answer() -> None:
            if future.set_running_or_notify_cancel():
                if self._over:
                    return future.set_exception(TierdError("the engine has ended"))
                try:
                    future.set_result(question(self._stepper))
                except BaseException as error:  # whoever waits reports it
                    future.set_exception(error)

        with self._lock:
            over = self._over
            if not over:
                self._questions.append(answer)
        if over:
            answer()
        self._wake.set()
        return future

    def pause(self, until: float, words: str) -> Future[None]:
        """Have it move nothing before `until`, as Stepper.pause. The future ends when the step that was at
        work is over."""
        return self.ask(lambda stepper: stepper.pause(until, words))

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
        with self._lock:
            self._over = True
            questions, self._questions = self._questions, []
        for answer in questions:
            answer()
        self._on_end(error)

    def _steps(self) -> None:
        shown: State | None = None
        while not self._stop:
            self._serve_waiting()
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

    def _serve_waiting(self) -> None:
        with self._lock:
            policies, self._policies = self._policies, []
            questions, self._questions = self._questions, []
        for answer in questions:
            answer()
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
