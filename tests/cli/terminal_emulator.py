"""A program in a terminal of its own: what it draws, what it is told, and what it leaves behind."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds for what takes a fraction of one on a machine that has nothing else to do."""

LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"


class Terminal:
    """Runs a command with a terminal as its standard input, output and error, and as its controlling one."""

    def __init__(self, *command: str, columns: int = 80, rows: int = 24, **environment: str) -> None:
        self._master, slave = os.openpty()
        self.resize(columns, rows)
        self.modes = termios.tcgetattr(self._master)
        self.output = ""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env={**plain, "TERM": "xterm", "LANG": "C.UTF-8", "NO_COLOR": "", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read(self, seconds: float) -> str:
        """What comes within so long, until nothing can come any more."""
        began, place = time.monotonic(), len(self.output)
        while (left := began + seconds - time.monotonic()) > 0:
            if not select.select([self._master], [], [], left)[0]:
                break
            try:
                data = os.read(self._master, 65536)
            except OSError:  # nobody has the other end any more
                break
            self.output += data.decode("utf-8", "surrogateescape")
        return self.output[place:]

    def until(self, text: str, *, after: int = 0) -> str:
        """Wait until `text` has been drawn, behind the first `after` characters of the output."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.output[after:]:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.output[after:]!r}"
            self.read(0.05)
        return self.output[after:]

    def frame(self) -> list[str]:
        """The lines of the last frame that was drawn whole, without colours."""
        whole = [part.split("\x1b[J")[0] for part in self.output.split("\x1b[H") if "\x1b[J" in part]
        # the terminal puts another carriage return before each line feed
        return [re.sub("\x1b\\[[0-9;]*[mK]", "", line).rstrip("\r") for line in whole[-1].split("\n")]

    def end(self) -> int:
        """Wait for the program to end by itself; its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it goes on: {self.output[-2000:]!r}"
            self.read(0.05)
        self.read(0.2)
        return self.process.returncode

    def is_given_back(self) -> bool:
        """Whether the terminal is as it was: its modes, the screen, the cursor, the wrapping."""
        entered, left = self.output.count("\x1b[?1049h"), self.output.count("\x1b[?1049l")
        return (
            termios.tcgetattr(self._master) == self.modes
            and entered == left > 0
            and LEAVE in self.output[self.output.rindex("\x1b[?25l") :]
        )

    def hang_up(self) -> None:
        os.close(self._master)
        self._master = -1

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: Any) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self._master >= 0:
            os.close(self._master)
        self.process.wait()


def top(*arguments: str, **more: Any) -> Terminal:
    """`tierctl top` in a terminal."""
    return Terminal(sys.executable, "-m", "tierd.cli.main", "top", *arguments, **more)
