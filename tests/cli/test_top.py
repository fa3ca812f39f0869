"""`tierctl top` in a terminal, against a stand-in for the daemon: keys, signals, sizes, what is left."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.cli.terminal_emulator import LEAVE, ROOT, Terminal, top
from tests.cli.test_tierctl import FAKE, Serve, bus, serve, tierctl
from tierd.cli import live_terminal
from tierd.cli.live_terminal import Happening, LiveTerminal
from tierd.cli.render import Style
from tierd.cli.terminal import shows_utf8
from tierd.cli.top_frame import Sight, Size
from tierd.cli.top_loop import changed, run

__all__ = ["bus", "serve"]
FAST = ("--interval", "0.1")


@pytest.mark.service
def test_a_live_view(serve: Serve) -> None:
    serve("good")
    with top(*FAST, columns=100, rows=30) as terminal:
        terminal.until("because hot: 12 accesses a second")
        modes = termios.tcgetattr(terminal._master)
        assert not modes[3] & (termios.ECHO | termios.ICANON) and modes[3] & termios.ISIG
        shown = terminal.frame()
        assert len(shown) == 30 and shown[0].startswith("● tierd 0.1.0: converging")
        assert "gold     guaranteed  no    512 MiB  512 MiB    50%  1.0 GiB  1.0 GiB" in shown
        assert any(line.startswith("memory_tier4   dram  [███") for line in shown)
        assert shown[-1] == "q quits  space pauses  +/- every 0.1 s"
        terminal.type("q")
        assert terminal.end() == 0 and terminal.is_given_back()
        assert terminal.output.endswith(LEAVE) and terminal.output.count("\x1b[2J") == 1


@pytest.mark.service
def test_a_daemon_that_goes_and_comes_back(bus: str) -> None:
    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, FAKE, bus, "good"], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        return process

    def stop(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.communicate()

    with top(*FAST) as terminal:
        terminal.until("tierd: \x1b[31mnot running")
        assert terminal.frame()[1] == "      Try: systemctl start tierd"
        daemon = start()
        terminal.until("memory_tier56")
        stop(daemon)
        place = len(terminal.output)
        terminal.until("when it last answered", after=place)
        terminal.until("memory_tier56", after=terminal.output.index("when it last answered", place))
        daemon = start()
        terminal.until("converging", after=len(terminal.output))
        stop(daemon)
        terminal.type("q")
        assert terminal.end() == 0 and terminal.is_given_back()


@pytest.mark.service
def test_space_pauses(serve: Serve) -> None:
    serve("good")
    with top(*FAST) as terminal:
        terminal.until("memory_tier56")
        terminal.type(" ")
        terminal.until("paused: space goes on")
        terminal.read(0.3)
        assert terminal.read(0.7) == "", "nothing is drawn while it is paused"
        terminal.resize(60, 12)
        drawn = terminal.until("paused", after=len(terminal.output))
        assert "tierd 0.1.0" in drawn, "but for another size"
        place = len(terminal.output)
        terminal.type(" ")
        terminal.until("space pauses", after=place)
        terminal.until("\x1b[H", after=len(terminal.output))
        terminal.type("q")
        assert terminal.end() == 0


@pytest.mark.service
def test_plus_and_minus_change_the_interval(serve: Serve) -> None:
    serve("good")
    with top() as terminal:
        terminal.until("every 1 s")
        terminal.type("+")
        terminal.until("every 2 s")
        terminal.type("---")
        terminal.until("every 0.2 s")
        # keys that send letters behind an escape, among them a q
        terminal.type("\x1b[A\x1b[3~\x1bOq\x1b[1;5qx")
        place = len(terminal.output)
        terminal.until("\x1b[J", after=place)
        assert terminal.process.poll() is None
        terminal.type("q")
        assert terminal.end() == 0


def test_intervals_have_ends() -> None:
    assert [changed(60.0, longer=True), changed(0.2, longer=False)] == [60.0, 0.2]
    assert [changed(0.7, longer=True), changed(0.7, longer=False), changed(3600.0, longer=True)] == [
        1.0,
        0.5,
        3600.0,
    ]


@pytest.mark.service
def test_another_size_is_drawn_at_once(serve: Serve) -> None:
    serve("good")
    with top("--interval", "60", columns=120, rows=40) as terminal:
        terminal.until("memory_tier56")
        assert len(terminal.frame()) == 40
        place = len(terminal.output)
        terminal.resize(50, 12)
        terminal.until("\x1b[J", after=place)
        shown = terminal.frame()
        assert len(shown) == 12 and max(map(len, shown)) <= 49
        terminal.type("q")
        assert terminal.end() == 0


@pytest.mark.service
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was(serve: Serve, number: signal.Signals) -> None:
    serve("good")
    with top(*FAST) as terminal:
        terminal.until("memory_tier56")
        if number == signal.SIGINT:
            terminal.type("\x03")
        else:
            terminal.process.send_signal(number)
        assert terminal.end() == -number and terminal.is_given_back()


@pytest.mark.service
def test_a_terminal_that_is_gone_ends_it(serve: Serve) -> None:
    serve("good")
    with top(*FAST) as terminal:
        terminal.until("memory_tier56")
        terminal.hang_up()
        assert terminal.process.wait(30) in (-signal.SIGHUP, 1)


@pytest.mark.service
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_stop_gives_the_terminal_to_the_shell_and_takes_it_back(serve: Serve) -> None:
    serve("good")
    command = f"{sys.executable} -m tierd.cli.main top --interval 0.1"
    with Terminal("bash", "--norc", "--noprofile", "-i", PS1="$ ") as terminal:
        terminal.until("$ ")
        terminal.type(f"{command}\n")
        terminal.until("memory_tier56")
        terminal.type("\x1a")
        terminal.until("Stopped")
        assert "\x1b[?1049l" in terminal.output
        place = len(terminal.output)
        terminal.type("stty -a | tr ' ' '\\n' | grep -xE -- '-?(icanon|echo|ixon)' | xargs echo modes\n")
        # bash's own line editing has the terminal between commands, and gives them one that is as it was
        assert "modes ixon icanon echo" in terminal.until("modes i", after=place) + terminal.read(0.3)
        # in the background it may not have the terminal, and waits for it
        place = len(terminal.output)
        terminal.type("bg; sleep 0.5\n")
        terminal.until("Stopped", after=place)
        place = len(terminal.output)
        terminal.type("fg\n")
        terminal.until("memory_tier56", after=place)
        assert "\x1b[?1049h" in terminal.output[place:]
        terminal.type("q")
        terminal.until("\x1b[?1049l", after=place)
        terminal.type("echo status $?; exit\n")
        terminal.until("status 0", after=place)
        assert terminal.end() == 0
        assert terminal.output.count("\x1b[?1049h") == 2
        assert terminal.output.count("\x1b[?1049l") == 2


@pytest.mark.service
def test_a_stop_that_cannot_be_caught_is_drawn_over(serve: Serve) -> None:
    serve("good")
    with top("--interval", "60") as terminal:
        terminal.until("memory_tier56")
        terminal.process.send_signal(signal.SIGSTOP)
        os.waitpid(terminal.process.pid, os.WUNTRACED)
        termios.tcsetattr(terminal._master, termios.TCSANOW, terminal.modes)
        place = len(terminal.output)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until("memory_tier56", after=place)
        assert not termios.tcgetattr(terminal._master)[3] & termios.ECHO
        terminal.type("q")
        assert terminal.end() == 0 and terminal.is_given_back()


@pytest.mark.service
def test_a_daemon_that_hangs_does_not_hold_up_the_keyboard(serve: Serve) -> None:
    serve("silent")
    with top(TIERD_DBUS_TIMEOUT="600") as terminal:
        terminal.until("tierd: \x1b[33masking")
        terminal.type("q")
        assert terminal.end() == 0 and terminal.is_given_back()


def test_a_failure_leaves_the_terminal_as_it_was() -> None:
    code = (
        "from tierd.cli.live_terminal import LiveTerminal; from tierd.cli.top_loop import run;"
        "from tierd.cli.render import Style\n"
        "def look(): raise LookupError('planted')\n"
        "with LiveTerminal(0, 1) as terminal: run(look, terminal, Style(), 0.1)\n"
    )
    with Terminal(sys.executable, "-c", code) as terminal:
        assert terminal.end() == 1 and terminal.is_given_back()
        said = terminal.output[terminal.output.rindex("\x1b[?1049l") :]
        assert "LookupError: planted" in said, "it is said where it can be read"


def test_a_wrong_environment_is_one_line_after_all(bus: str) -> None:
    with top(TIERD_DBUS_TIMEOUT="soon") as terminal:
        assert terminal.end() == 2 and terminal.is_given_back()
        said = terminal.output[terminal.output.rindex("\x1b[?1049l") + 8 :]
        assert said.startswith("tierctl: TIERD_DBUS_TIMEOUT must be") and said.count("\n") == 1


@pytest.mark.service
@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"LANG": "C"}, {"LANG": "de_DE.ISO-8859-1"}])
def test_other_locales_get_ascii_and_no_color_none(serve: Serve, environment: dict[str, str]) -> None:
    serve("good")
    with top(*FAST, NO_COLOR="1", **environment) as terminal:
        terminal.until("memory_tier56")
        terminal.type("q")
        assert terminal.end() == 0
        assert terminal.output.isascii() and "[###" in terminal.output
        assert not re.search("\x1b\\[(1|3[1-7])m", terminal.output)


@pytest.mark.parametrize(
    ("environment", "is_utf8"),
    [
        ({}, False),
        ({"LANG": "C.UTF-8"}, True),
        ({"LANG": "de_DE.utf8"}, True),
        ({"LANG": "de_DE.UTF-8@euro"}, True),
        ({"LANG": "de_DE@euro"}, False),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, False),
        ({"LANG": "en_GB.UTF-8", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LANG": "en_GB.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "C", "LC_ALL": "en_GB.UTF-8"}, True),
    ],
)
def test_locales(environment: dict[str, str], is_utf8: bool) -> None:
    assert shows_utf8(environment) is is_utf8


@pytest.fixture
def slave() -> Iterator[int]:
    master, slave = os.openpty()
    yield slave
    os.close(master)
    os.close(slave)


def test_a_frame_is_one_write_and_blanks_nothing(slave: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def write(_file: int, text: memoryview) -> int:
        written.append(bytes(text))
        return len(text)

    terminal = LiveTerminal(slave, slave)
    monkeypatch.setattr(live_terminal.os, "write", write)
    terminal.draw(["one", "two"])
    assert written == [b"\x1b[Hone\x1b[K\r\ntwo\x1b[K\x1b[J"]


def test_modes_that_are_set_in_the_background_are_set_again(
    slave: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel stops who sets them there, and says EINTR when it is continued."""
    real, errors = termios.tcsetattr, [errno.EINTR, errno.EINTR]

    def set_modes(file: int, when: int, modes: Any) -> None:
        if errors:
            raise termios.error(errors.pop(), "refused")
        real(file, when, modes)

    monkeypatch.setattr(termios, "tcsetattr", set_modes)
    with LiveTerminal(slave, slave):
        assert not errors and not termios.tcgetattr(slave)[3] & termios.ECHO
    errors.append(errno.EIO)
    with pytest.raises(termios.error):
        LiveTerminal(slave, slave).__enter__()
    assert signal.getsignal(signal.SIGWINCH) == signal.SIG_DFL, "nothing is left behind"


def test_an_answer_that_comes_during_a_pause_is_not_drawn() -> None:
    answered, woken = Event(), Event()
    drawn: list[list[str]] = []

    class Script:
        """A terminal where a space is typed before the daemon answers, and a q after it."""

        size = staticmethod(lambda: Size(80, 24))
        draw = staticmethod(drawn.append)
        wake = staticmethod(woken.set)

        def __init__(self) -> None:
            self._waits = 0

        def wait(self, _seconds: float | None) -> Happening:
            self._waits += 1
            if self._waits == 2:
                answered.set()
                assert woken.wait(30)
            return Happening({1: " ", 3: "q"}.get(self._waits, ""))

    def look() -> Sight:
        assert answered.wait(30)
        return Sight({"state": "steady"})

    terminal: Any = Script()
    assert run(look, terminal, Style(), 1.0) is None
    assert [lines[-1].split("  ")[1] for lines in drawn] == ["space pauses", "paused: space goes on"]


@pytest.mark.service
def test_batch(serve: Serve) -> None:
    serve("good")
    shown = tierctl("top", "--count", "2", *FAST)
    assert (shown.returncode, shown.stderr) == (0, "") and "\x1b" not in shown.stdout
    first, second = shown.stdout.split("\n\n●")
    assert "since the last look up 0 B/s, down 0 B/s" in second and "since" not in first
    assert "    because hot: 12 accesses a second" in second


@pytest.mark.service
def test_batch_goes_on_without_a_daemon(bus: str) -> None:
    shown = tierctl("top", "--batch", "-n", "2", *FAST, LC_ALL="C")
    assert (shown.returncode, shown.stderr) == (3, "")
    assert shown.stdout == "\n".join(["* tierd: not running\n      Try: systemctl start tierd\n"] * 2)


@pytest.mark.parametrize(
    "arguments", [("--interval", "0"), ("--interval", "nan"), ("--interval", "2s"), ("-n", "0"), ("-n", "x")]
)
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    shown = tierctl("top", *arguments)
    assert shown.returncode == 2 and "not " in shown.stderr


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, tierd.cli.main; assert tierd.cli.main.main(['top', '-n', '1']) == 3;"
        "print(*{'numpy', 'yaml', 'curses', 'rich', 'psutil', 'tierd.kernel'} & set(sys.modules))"
    )
    nowhere = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/nothing"}
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=nowhere
    )
    assert shown.stdout.endswith("\n\n")
