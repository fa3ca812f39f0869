"""Events to the journal: at most one line a second at info, repeats folded, foreign text escaped."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from tierd.core.state import State
from tierd.core.text import clean, plural
from tierd.service.events import (
    INTERNAL,
    MOVED,
    NOTED,
    TRACED,
    Event,
    Priority,
    events_between,
    movement_between,
)

MOVEMENT_SECONDS = 30.0
FOLD_SECONDS = 60.0
WAITING_LIMIT = 64
FIELD_LIMIT = 4096
MESSAGE_LIMIT = 512

Sink = Callable[[Event], None]


def entry(event: Event) -> dict[str, str]:
    """The journal fields of `event`, MESSAGE included, all of them printable text.

    Values of several lines keep their line breaks; everything else that is not printable is escaped.
    """
    fields = {
        key: "\n".join(clean(line, FIELD_LIMIT) for line in value.split("\n"))
        for key, value in event.fields.items()
    }
    return {
        **{key: value[:FIELD_LIMIT] for key, value in fields.items()},
        "MESSAGE": clean(event.message, MESSAGE_LIMIT),
        "MESSAGE_ID": event.type.message_id,
        "PRIORITY": str(int(event.type.priority)),
        "SYSLOG_IDENTIFIER": "tierd",
        "TIERD_EVENT": event.type.name,
    }


def to_journal(event: Event) -> None:
    """Send to systemd's journal. A journal that is down loses the line, not the daemon."""
    from systemd import journal

    try:
        fields = entry(event)
        # CODE_FILE and the like would name this line for every event.
        journal.sendv(*(f"{key}={value}".encode() for key, value in fields.items()))
    except OSError:
        to_stderr(event)


def to_stderr(event: Event) -> None:
    """For a daemon that a person started by hand."""
    try:
        print(f"tierd: {clean(event.message, MESSAGE_LIMIT)}", file=sys.stderr, flush=True)
    except OSError:
        pass  # a closed terminal is no reason to stop


def writes_to_journal() -> bool:
    """Whether standard error is the journal, by systemd.exec(5). Who was started by hand may have inherited
    JOURNAL_STREAM, from a terminal that systemd has started: the device and inode in it are another's."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def default_sink() -> Sink:
    """The journal where systemd has started us, standard error elsewhere."""
    return to_journal if writes_to_journal() else to_stderr


@dataclass(slots=True)
class _Fold:
    until: float
    count: int = 0
    last: Event | None = None


class Reporter:
    """Decides which events become lines, and when. Not thread-safe: main thread only.

    sink: takes one event and writes it; raises nothing. All times are monotonic seconds given by the caller.
    level: of syslog(3); what is less urgent is not written.
    """

    def __init__(self, sink: Sink) -> None:
        self._write_out = sink
        self.level = int(Priority.INFO)
        self._previous = State()
        self._summarised: State | None = None
        self._folds: dict[tuple[str, str], _Fold] = {}
        self._waiting: deque[Event] = deque()
        self._notes: deque[Event] = deque()
        self._dropped = 0

    def report(self, event: Event, now: float) -> None:
        """Write `event` now, unless an equal one was written less than a minute ago. Notes wait until
        nothing else does: there may be one for each process."""
        if event.type is NOTED:
            self._queue(self._notes, event)
        elif event.type is TRACED:
            self._sink(event)
        else:
            self._write(event, now)

    def _queue(self, waiting: deque[Event], event: Event) -> None:
        """Have it wait; of too many the oldest is dropped, and counted."""
        if len(waiting) >= WAITING_LIMIT:
            waiting.popleft()
            self._dropped += 1
        waiting.append(event)

    def _tell_dropped(self) -> None:
        if self._dropped:
            lines = plural(self._dropped, "more line")
            self._sink(Event(NOTED, f"{lines} came too fast to be written"))
            self._dropped = 0

    def _sink(self, event: Event) -> None:
        if event.type.priority <= self.level:
            self._write_out(event)

    def _write(self, event: Event, now: float) -> None:
        if event.type is MOVED:
            self._sink(event)  # has its own pace, and no two are equal
            return
        key = (event.type.name, event.subject)
        fold = self._folds.get(key)
        if fold is not None and now < fold.until:
            fold.count += 1
            fold.last = event
            return
        self._folds[key] = _Fold(now + FOLD_SECONDS)
        self._sink(event)

    def round(self, state: State, now: float) -> None:
        """Report what the round that made `state` changed: warnings at once, the rest line by line."""
        for event in events_between(self._previous, state):
            if event.type.priority <= Priority.WARNING:
                self.report(event, now)
            else:
                self._queue(self._waiting, event)
        self._previous = state
        if self._summarised is None:
            self._summarised = state
        elif state.monotonic - self._summarised.monotonic >= MOVEMENT_SECONDS:
            summary = movement_between(self._summarised, state)
            self._summarised = state
            if summary is not None:
                self._queue(self._waiting, summary)

    def tick(self, now: float) -> None:
        """Called every second: write one line that waits, and folded events whose minute is over."""
        if waiting := self._waiting or self._notes:
            self._write(waiting.popleft(), now)
        else:
            self._tell_dropped()
        self._unfold(now)

    def _unfold(self, now: float) -> None:
        for key, fold in list(self._folds.items()):
            if now < fold.until:
                continue
            if fold.last is None:
                del self._folds[key]
                continue
            self._folds[key] = _Fold(now + FOLD_SECONDS)
            self._sink(_counted(fold.last, fold.count))

    def close(self, now: float) -> None:
        """Write all that still waits: the last movement, queued lines, folded ones."""
        if self._summarised is not None:
            summary = movement_between(self._summarised, self._previous)
            self._summarised = self._previous
            if summary is not None:
                self._waiting.append(summary)
        while waiting := self._waiting or self._notes:
            self._sink(waiting.popleft())
        self._tell_dropped()
        self._unfold(now + FOLD_SECONDS)


def _counted(event: Event, count: int) -> Event:
    if count == 1:
        return event
    return replace(
        event,
        message=f"{clean(event.message, MESSAGE_LIMIT - 40)} ({count} times in the last minute)",
        fields={**event.fields, "TIERD_REPEATED": str(count)},
    )


class _LogHandler(logging.Handler):
    """What tierd's modules note, and libraries complain of, as one line each and without a traceback."""

    def __init__(self, report: Sink) -> None:
        super().__init__(logging.DEBUG)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        if record.levelno < logging.INFO:
            self._report(Event(TRACED, clean(f"{record.name}: {message}", MESSAGE_LIMIT), subject=message))
        elif record.levelno < logging.WARNING:
            self._report(Event(NOTED, clean(message, MESSAGE_LIMIT), subject=message))
        else:
            subject = f"{record.name}: {record.msg}"
            self._report(Event(INTERNAL, clean(f"{record.name}: {message}"), subject=subject))


def capture_logging(report: Sink) -> None:
    """Route Python warnings and all loggers to `report`, which any thread may call: of libraries what is a
    warning, of tierd's own modules what is worth a note too."""
    logging.captureWarnings(True)
    # pydbus logs a traceback for every mistake a client makes; the shim answers the client instead.
    logging.getLogger("pydbus.registration").disabled = True
    root = logging.getLogger()
    root.handlers[:] = [_LogHandler(report)]
    root.setLevel(logging.WARNING)
    logging.getLogger("tierd").setLevel(logging.INFO)
