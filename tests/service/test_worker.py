"""The engine's thread: what it does with each way a Stepper can behave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.service.conftest import wait_for
from tierd.core.policy import EngineMode, EnginePolicy, Policy
from tierd.core.state import EngineState, State
from tierd.errors import TierdError, UnsupportedError
from tierd.service.worker import LONGEST_WAIT, EngineThread, describe

PLACE = Policy(engine=EnginePolicy(mode=EngineMode.PLACE))


class Steps:
    """Runs `body` at each step and records what the thread calls."""

    def __init__(self, body: Callable[[Steps], float]) -> None:
        self.state = State()
        self.body = body
        self.count = 0
        self.calls: list[str] = []
        self.threads: set[str] = set()

    def step(self) -> float:
        self.count += 1
        self.calls.append("step")
        self.threads.add(threading.current_thread().name)
        return self.body(self)

    def adopt(self, policy: Policy) -> None:
        self.calls.append(f"adopt {policy.engine.mode}")
        self.threads.add(threading.current_thread().name)

    def pause(self, until: float, words: str) -> None:
        self.calls.append(f"pause {until:g} {words}")
        self.threads.add(threading.current_thread().name)

    def close(self) -> None:
        self.calls.append("close")


class Run:
    """One EngineThread and what it reported."""

    def __init__(self, stepper: Steps, clock: Callable[[], float] = time.monotonic) -> None:
        self.states: list[State] = []
        self.adopted: list[tuple[Policy, TierdError | None]] = []
        self.ends: list[BaseException | None] = []
        self.engine = EngineThread(
            stepper,
            on_state=self.states.append,
            on_adopted=lambda policy, error: self.adopted.append((policy, error)),
            on_end=self.ends.append,
            clock=clock,
        )
        self.engine.start()

    def stop(self) -> BaseException | None:
        self.engine.stop()
        wait_for(lambda: self.ends, "the end")
        return self.ends[0]


def test_every_new_state_is_handed_over_once_and_the_first_always() -> None:
    def body(steps: Steps) -> float:
        if steps.count in (3, 5):
            steps.state = State(engine=EngineState.STEADY, processes=steps.count)
        return 0.02

    steps = Steps(body)
    run = Run(steps)
    wait_for(lambda: steps.count >= 8, "eight steps")
    assert run.stop() is None
    assert [state.processes for state in run.states] == [0, 3, 5]
    assert steps.calls[-1] == "close" and steps.calls.count("close") == 1
    assert steps.threads == {"engine"}


def test_a_policy_is_taken_up_between_steps_without_waiting_for_the_next() -> None:
    steps = Steps(lambda _: LONGEST_WAIT)
    run = Run(steps)
    wait_for(lambda: steps.count == 1, "the first step")
    asked = time.monotonic()
    run.engine.adopt(PLACE)
    wait_for(lambda: run.adopted, "the policy")
    assert time.monotonic() - asked < LONGEST_WAIT / 2
    run.stop()
    assert run.adopted == [(PLACE, None)]
    assert steps.calls[:3] == ["step", "adopt place", "step"]


def test_a_refused_policy_is_reported_and_stepping_goes_on() -> None:
    class Refusing(Steps):
        def adopt(self, policy: Policy) -> None:
            raise UnsupportedError("no second tier")

    steps = Refusing(lambda _: 0.02)
    run = Run(steps)
    run.engine.adopt(PLACE)
    wait_for(lambda: run.adopted, "the refusal")
    count = steps.count
    wait_for(lambda: steps.count > count + 2, "more steps")
    assert run.stop() is None
    assert str(run.adopted[0][1]) == "no second tier"


@pytest.mark.parametrize("error", [KeyError(3), TierdError("broken"), SystemExit(0), MemoryError()])
def test_any_error_ends_the_thread_closes_the_engine_and_is_told(error: BaseException) -> None:
    def body(_: Steps) -> float:
        raise error

    steps = Steps(body)
    run = Run(steps)
    wait_for(lambda: run.ends, "the end")
    assert run.ends == [error]
    assert steps.calls == ["step", "close"]


def test_an_error_in_adopt_that_is_not_expected_ends_the_thread() -> None:
    class Broken(Steps):
        def adopt(self, policy: Policy) -> None:
            raise ZeroDivisionError

    run = Run(Broken(lambda _: 0.02))
    run.engine.adopt(PLACE)
    wait_for(lambda: run.ends, "the end")
    assert isinstance(run.ends[0], ZeroDivisionError) and run.adopted == []


def test_a_pause_is_in_force_when_its_future_ends() -> None:
    steps = Steps(lambda _: 3.0)
    run = Run(steps)
    first, second = run.engine.pause(9.0, "until nine"), run.engine.pause(0.0, "")
    assert first.result(10) is None and second.result(10) is None
    assert [call for call in steps.calls if call.startswith("pause")] == ["pause 9 until nine", "pause 0 "]
    assert run.stop() is None and steps.threads == {"engine"}


def test_a_question_is_answered_between_two_steps_by_the_thread_of_the_engine() -> None:
    steps = Steps(lambda _: LONGEST_WAIT)
    run = Run(steps)
    wait_for(lambda: steps.count == 1, "the first step")
    asked = time.monotonic()
    answer = run.engine.ask(lambda stepper: (stepper, threading.current_thread().name))
    assert answer.result(10) == (steps, "engine") and time.monotonic() - asked < LONGEST_WAIT / 2
    assert run.stop() is None


@pytest.mark.parametrize("error", [TierdError("no"), KeyError(3), SystemExit(0)])
def test_what_a_question_raises_is_for_whoever_asked_and_stepping_goes_on(error: BaseException) -> None:
    def question(_: object) -> None:
        raise error

    steps = Steps(lambda _: 0.02)
    run = Run(steps)
    asked = run.engine.ask(question)
    assert asked.exception(10) is error
    count = steps.count
    wait_for(lambda: steps.count > count + 2, "more steps")
    assert run.stop() is None


def test_a_question_that_nobody_waits_for_is_not_asked() -> None:
    entered, go = threading.Event(), threading.Event()

    def body(_: Steps) -> float:
        entered.set()
        go.wait(10)
        return 0.02

    run, asked = Run(Steps(body)), list[object]()
    assert entered.wait(10)
    run.engine.ask(asked.append).cancel()
    later = run.engine.ask(lambda _: 7)
    go.set()
    assert later.result(10) == 7 and asked == []
    run.stop()


def test_whoever_asks_at_the_end_hears_of_it() -> None:
    entered, go = threading.Event(), threading.Event()

    def body(_: Steps) -> float:
        entered.set()
        go.wait(10)
        raise KeyError("step")

    run = Run(Steps(body))
    assert entered.wait(10)
    waiting = run.engine.ask(lambda _: 7)
    go.set()
    assert str(waiting.exception(10)) == "the engine has ended"
    wait_for(lambda: run.ends, "the end")
    assert str(run.engine.ask(lambda _: 7).exception(10)) == "the engine has ended"


def test_the_first_error_is_told_when_closing_fails_too() -> None:
    class Broken(Steps):
        def close(self) -> None:
            raise OSError("close")

    def body(_: Steps) -> float:
        raise KeyError("step")

    run = Run(Broken(body))
    wait_for(lambda: run.ends, "the end")
    assert isinstance(run.ends[0], KeyError)


def test_the_heartbeat_ages_while_a_step_hangs_and_not_between_steps() -> None:
    now = [100.0]
    hang, entered = threading.Event(), threading.Event()

    def body(steps: Steps) -> float:
        if steps.count == 2:
            entered.set()
            hang.wait(10)
        return 0.02

    run = Run(Steps(body), clock=lambda: now[0])
    assert entered.wait(10)
    assert run.engine.heartbeat_age == 0.0
    now[0] += 31.0
    assert run.engine.heartbeat_age == 31.0
    hang.set()
    wait_for(lambda: run.engine.heartbeat_age == 0.0, "a beat after the hang")
    run.stop()


@pytest.mark.parametrize("wish", [-1.0, 0.0, float("nan"), 1e9, float("inf")])
def test_a_nonsensical_wish_neither_spins_nor_sleeps_for_ever(wish: float) -> None:
    steps = Steps(lambda _: wish)
    run = Run(steps)
    time.sleep(0.3)
    run.stop()
    assert 1 <= steps.count <= 17  # at most one step each 20 ms, and one for the end


def test_describe_names_kind_text_and_place() -> None:
    try:
        raise ValueError("bad\nvalue")
    except ValueError as error:
        text = describe(error)
    assert text.startswith("ValueError: bad\nvalue (test_worker.py:")
    assert describe(KeyboardInterrupt()) == "KeyboardInterrupt"
