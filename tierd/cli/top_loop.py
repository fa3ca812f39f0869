"""The live view of `tierctl top`: looks at the daemon at intervals, and answers the keyboard meanwhile."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread

from tierd.cli.live_terminal import LiveTerminal
from tierd.cli.render import Style
from tierd.cli.top_frame import Sight, Size, footer, frame

INTERVALS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds, for the keys + and -."""

Look = Callable[[], Sight]
"""Asks the daemon: a Sight, with a state of its own when there is no answer. May take its time."""


def follow(last: Sight, found: Sight) -> Sight:
    """What is known after `found`: when the daemon did not answer, what it said last, and why not now."""
    if not found.state:
        return found
    return replace(last, state=found.state, problem=found.problem, hint=found.hint)


def run(look: Look, terminal: LiveTerminal, style: Style, interval: float) -> signal.Signals | None:
    """Until ``q``, which is None, or the signal that is returned, to end by. Raises what `look` raises.

    The terminal is one that was entered. interval: seconds from one look to the next.
    """
    looker = _Looker(look, terminal.wake)
    now, before = Sight(state="asking"), None
    due, asking, paused, redraw = 0.0, False, False, True
    while True:
        moment = time.monotonic()
        if not (asking or paused) and moment >= due:
            looker.ask()
            asking, due = True, moment + interval
        if redraw:
            columns, rows = terminal.size()
            # one column less: see LiveTerminal.draw
            extent, words = Size(max(columns - 1, 1), rows), footer(interval, paused=paused)
            terminal.draw(frame(now, before, extent, style, words))
        happened = terminal.wait(None if asking or paused else max(due - moment, 0.0))
        redraw = happened.redraw
        if happened.ended is not None:
            return happened.ended
        for key in happened.keys:
            if key in "qQ":
                return None
            if key in " +=-_":
                redraw = True
            if key == " ":
                paused, due = not paused, 0.0
            elif key in "+=-_":
                interval, due = changed(interval, longer=key in "+="), 0.0
        if asking and (found := looker.answer()) is not None:
            asking = False
            if not paused:
                before, now, redraw = now, follow(now, found), True
                if before.state:
                    before = None  # what was seen before the silence is too old for a rate


def changed(interval: float, *, longer: bool) -> float:
    """The next of INTERVALS."""
    if longer:
        return min((one for one in INTERVALS if one > interval), default=interval)
    return max((one for one in INTERVALS if one < interval), default=interval)


class _Looker:
    """A thread that looks when asked to, so that a daemon that hangs does not keep the keyboard waiting."""

    def __init__(self, look: Look, done: Callable[[], None]) -> None:
        """done: called in that thread, when there is an answer."""
        self._look, self._done = look, done
        self._questions: SimpleQueue[None] = SimpleQueue()
        self._answers: SimpleQueue[Sight | BaseException] = SimpleQueue()
        # ends with the process: a call that hangs cannot be ended
        Thread(target=self._run, daemon=True).start()

    def ask(self) -> None:
        self._questions.put(None)

    def answer(self) -> Sight | None:
        """None when there is none yet. Raises what the look raised."""
        if self._answers.empty():
            return None
        found = self._answers.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _run(self) -> None:
        while True:
            self._questions.get()
            try:
                self._answers.put(self._look())
            except BaseException as error:  # to the main thread, which has a terminal to give back
                self._answers.put(error)
            self._done()
