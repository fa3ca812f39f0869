"""A terminal that is drawn on again and again: its modes, keys, size and signals, all of it given back."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tierd.cli.top_frame import Size

# The alternate screen, no cursor, no wrapping; cleared for terminals that have no alternate screen.
_ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
_LEAVE = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_CAUGHT = (*ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)

_SEQUENCE = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b.?", re.DOTALL)
"""What keys other than letters send (ECMA-48), which holds letters that are none."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What came while waiting. keys: characters typed. redraw: the picture is gone, or of the wrong size.
    ended: the signal to end by, if any; SIGHUP when the terminal itself is gone."""

    keys: str = ""
    redraw: bool = False
    ended: signal.Signals | None = None


class LiveTerminal:
    """The terminal while something is drawn on it. As a context; in the main thread, but for `wake`.

    Signals only leave a note, so that none of them interrupts the giving back. Ctrl-Z, and a stop from
    elsewhere, are seen to in `wait`. Raises OSError and termios.error on entry, when there is no terminal.
    """

    def __init__(self, source: int, target: int) -> None:
        """The file descriptors of the terminal, to read from and to draw on."""
        self._source, self._target = source, target
        self._signals: list[int] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> LiveTerminal:
        self._modes = termios.tcgetattr(self._source)
        self._ears, self._mouth = os.pipe()
        for end in (self._ears, self._mouth):
            os.set_blocking(end, False)
        self._waker = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        for number in _CAUGHT:
            self._handlers[number] = signal.signal(number, self._note)
        try:
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._waker)
        # The pipe stays open for a thread that would still wake us: SIGPIPE ends tierctl, and another file
        # could come to have its number.

    def size(self) -> Size:
        """Of the terminal now; 80 by 24 when it does not know."""
        try:
            columns, rows = os.get_terminal_size(self._target)
        except OSError:
            columns, rows = 0, 0
        return Size(columns or 80, rows or 24)

    def draw(self, lines: Sequence[str]) -> None:
        """Show `lines` from the first row on, in one write, over what is there: nothing is blank in between.
        None may be as wide as the terminal: what clears to its end would take the last character."""
        text = "\x1b[H" + "\x1b[K\r\n".join(lines) + "\x1b[K\x1b[J"
        try:
            self._write(text.encode("utf-8", "backslashreplace"))
        except OSError:  # the terminal is gone
            self._signals.append(signal.SIGHUP)

    def wake(self) -> None:
        """Have `wait` return. From any thread, and also when all is over."""
        with suppress(OSError):
            os.write(self._mouth, b"\0")

    def wait(self, seconds: float | None) -> Happening:
        """Until a key, a signal or a call of `wake`, for `seconds` at most, None for as long as it takes."""
        ready: Sequence[int] = ()
        if not self._signals:
            ready, _, _ = select.select([self._source, self._ears], [], [], seconds)
        keys, ended = "", None
        if self._source in ready:
            keys, ended = self._keys()
        if self._ears in ready:
            with suppress(BlockingIOError):
                os.read(self._ears, 4096)
        noted, self._signals = self._signals, []
        redraw = signal.SIGWINCH in noted
        if signal.SIGTSTP in noted:
            self._stop()
            redraw = True
        elif signal.SIGCONT in noted:
            # stopped by what nobody can catch: a shell has had the terminal since
            self._cooked(False)
            self._write(b"\x1b[?25l\x1b[?7l\x1b[H\x1b[2J")
            redraw = True
        for number in noted:
            if number in ENDING:
                ended = signal.Signals(number)
        return Happening(keys, redraw, ended)

    def _note(self, number: int, _frame: object) -> None:
        self._signals.append(number)

    def _keys(self) -> tuple[str, signal.Signals | None]:
        try:
            typed = os.read(self._source, 1024)
        except OSError:
            typed = b""
        if not typed:
            return "", signal.SIGHUP
        return _SEQUENCE.sub(b"", typed).decode("ascii", "ignore"), None

    def _stop(self) -> None:
        """Give the terminal back, stop as if the signal had not been caught, and go on when continued."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._note)
        while signal.SIGCONT in self._signals:  # in place: a handler may add to it at any time
            self._signals.remove(signal.SIGCONT)
        self._modes = termios.tcgetattr(self._source)
        self._take()

    def _take(self) -> None:
        self._cooked(False)
        self._write(_ENTER)

    def _give_back(self) -> None:
        with suppress(OSError, termios.error):  # a terminal that is gone has nothing to be given back
            self._write(_LEAVE)
        with suppress(OSError, termios.error):
            self._cooked(True)

    def _cooked(self, wanted: bool) -> None:
        modes = [*self._modes]
        if not wanted:
            # No Ctrl-S: a frame that is held up would hold up the signals too.
            modes[0] &= ~termios.IXON
            modes[3] &= ~(termios.ICANON | termios.ECHO)
            modes[6] = [*modes[6]]
            modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        while True:
            try:
                return termios.tcsetattr(self._source, termios.TCSADRAIN, modes)
            except termios.error as error:
                # stopped for it in the background, and continued
                if error.args[0] != errno.EINTR:
                    raise

    def _write(self, text: bytes) -> None:
        left = memoryview(text)
        while left:
            left = left[os.write(self._target, left) :]
