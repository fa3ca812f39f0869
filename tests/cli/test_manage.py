"""`tierctl pause`, `resume` and `reload`, against a stand-in for the daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.terminal_emulator import PATIENCE, ROOT, Terminal
from tests.cli.test_tierctl import Serve, bus, serve, tierctl
from tierd.cli import password_agent

__all__ = ["bus", "serve"]
AS_SOMEBODY = "import os, sys; os.geteuid = lambda: 1000; from tierd.cli.main import main; sys.exit(main())"
AGENT = """\
#!/bin/bash
trap '' HUP  # sent to all when a terminal's first process ends
trap 'echo ended >> {log}; exit' TERM
echo "began $*" >> {log}
{then}
while :; do sleep 0.02; done
"""
READY = 'eval "exec $2>&-"'


def agent(directory: Path, then: str = READY) -> tuple[str, Path]:
    """A PATH on which pkttyagent is a stand-in, and the log that it keeps."""
    log, program = directory / "log", directory / "pkttyagent"
    program.write_text(AGENT.format(log=log, then=then))
    program.chmod(0o755)
    log.touch()
    return f"{directory}:{os.environ['PATH']}", log


def told(log: Path) -> list[str]:
    """The words that the stand-in was started with, and how it ended; descriptors have any number."""
    words = log.read_text().split()
    return [word for word in words if not word.isdecimal()]


WHOLE_LIFE = ["began", "--notify-fd", "--fallback", "ended"]


@pytest.mark.service
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pause",), "nothing is moved for 10min; tierctl resume ends it\n"),
        (("pause", "90s"), "nothing is moved for 90s; tierctl resume ends it\n"),
        (("resume",), ""),
        (("reload",), ""),
    ],
)
def test_orders(serve: Serve, arguments: tuple[str, ...], says: str) -> None:
    serve("good")
    shown = tierctl(*arguments)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, says, "")


@pytest.mark.service
@pytest.mark.parametrize("command", ["pause", "resume", "reload"])
def test_who_may_not_is_told(serve: Serve, command: str) -> None:
    serve("org.tierd1.Error.NotAuthorized")
    shown = tierctl(command)
    assert shown.returncode == 4 and shown.stdout == "" and "run it as root" in shown.stderr


@pytest.mark.service
def test_a_bad_policy_is_the_caller_s_to_mend(serve: Serve) -> None:
    serve("org.tierd1.Error.InvalidPolicy")
    assert tierctl("reload").returncode == 78


@pytest.mark.service
def test_without_a_daemon(bus: str) -> None:
    assert tierctl("pause").returncode == 3


@pytest.mark.parametrize("text", ["10", "5 m", "-3s", "10fortnights"])
def test_what_is_no_duration(text: str) -> None:
    shown = tierctl("pause", "--", text)
    assert shown.returncode == 2 and "usage: tierctl pause" in shown.stderr


@pytest.mark.service
@pytest.mark.parametrize("command", ["pause", "resume", "reload"])
@pytest.mark.parametrize("then", [READY, "exit 127"])
def test_at_a_terminal_an_agent_asks_for_the_password(
    serve: Serve, tmp_path: Path, command: str, then: str
) -> None:
    path, log = agent(tmp_path, then)
    serve("good")
    with Terminal(sys.executable, "-c", AS_SOMEBODY, command, PATH=path) as terminal:
        assert terminal.end() == 0
    assert told(log) == (WHOLE_LIFE if then == READY else WHOLE_LIFE[:3])


@pytest.mark.service
def test_the_agent_is_ended_when_the_order_fails(serve: Serve, tmp_path: Path) -> None:
    path, log = agent(tmp_path)
    serve("org.tierd1.Error.NotAuthorized")
    with Terminal(sys.executable, "-c", AS_SOMEBODY, "pause", PATH=path) as terminal:
        assert terminal.end() == 4 and "run it as root" in terminal.output
    assert told(log) == WHOLE_LIFE


@pytest.mark.service
def test_no_agent_for_root_nor_without_a_terminal_nor_for_questions(serve: Serve, tmp_path: Path) -> None:
    path, log = agent(tmp_path)
    serve("good")
    piped = [sys.executable, "-c", AS_SOMEBODY, "pause"]
    done = subprocess.run(
        piped, cwd=ROOT, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 0
    with Terminal(sys.executable, "-c", AS_SOMEBODY.replace("1000", "0"), "pause", PATH=path) as terminal:
        assert terminal.end() == 0
    with Terminal(sys.executable, "-c", AS_SOMEBODY, "plan", PATH=path) as terminal:
        assert terminal.end() == 0
    assert log.read_text() == ""


@pytest.mark.service
def test_an_order_is_given_without_an_agent(serve: Serve, tmp_path: Path) -> None:
    serve("good")
    with Terminal(sys.executable, "-c", AS_SOMEBODY, "pause", PATH=str(tmp_path)) as terminal:
        assert terminal.end() == 0 and "nothing is moved" in terminal.output


def test_an_agent_that_never_says_that_it_is_ready_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, log = agent(tmp_path, "")
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(password_agent, "READY_SECONDS", 1.0)
    with password_agent.password_agent():
        assert told(log) == WHOLE_LIFE[:3]
    assert told(log) == WHOLE_LIFE


@pytest.mark.service
def test_the_agent_does_not_outlive_a_tierctl_that_is_killed(serve: Serve, tmp_path: Path) -> None:
    path, log = agent(tmp_path)
    serve("silent")
    with Terminal(sys.executable, "-c", AS_SOMEBODY, "pause", PATH=path) as terminal:
        until = time.monotonic() + PATIENCE
        while len(told(log)) < 3:
            assert terminal.process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        terminal.process.kill()
        while told(log) != WHOLE_LIFE:
            assert time.monotonic() < until
            time.sleep(0.05)
