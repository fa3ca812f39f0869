"""The command tierd: arguments, exit codes, and one line where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import tierd.__main__ as command
from tests.service.conftest import ROOT
from tierd import __version__
from tierd.errors import ConfigError, DeniedError, TierdError, UnsupportedError
from tierd.kernel.memory_file import write_memory_file
from tierd.service import assembly, daemon, events, journal, notify
from tierd.service.events import Event

BAD = "version: 1\nengine:\n  mode: fast\n  speed: 9\n"


def run(*arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tierd", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        user=user,
    )


def policy(directory: Path, text: str) -> Path:
    path = directory / "tierd.yaml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_version_and_help() -> None:
    assert run("--version").stdout == f"tierd {__version__}\n"
    text = run("--help").stdout
    for word in ("--check-config", "--policy", "75", "77", "78"):
        assert word in text


def test_unknown_arguments() -> None:
    done = run("--fast")
    assert done.returncode == 2 and "--fast" in done.stderr


def test_check_config(tmp_path: Path) -> None:
    good = run("--check-config", str(policy(tmp_path, "version: 1\n")))
    assert (good.returncode, good.stderr) == (0, "") and good.stdout.endswith("tierd.yaml: OK\n")
    bad = run("--check-config", str(policy(tmp_path, BAD)))
    lines = bad.stderr.splitlines()
    assert bad.returncode == 78 and bad.stdout == ""
    assert [line.split(": ")[0].rsplit("/", 1)[1] for line in lines] == ["tierd.yaml:3:9", "tierd.yaml:4:3"]


def test_check_config_of_the_policy_that_would_be_used(tmp_path: Path) -> None:
    done = run("--policy", str(policy(tmp_path, BAD)), "--check-config")
    assert done.returncode == 78 and len(done.stderr.splitlines()) == 2


def test_a_bad_policy_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    done = run("--policy", str(policy(tmp_path, BAD)))
    assert done.returncode == 78 and len(done.stderr.splitlines()) == 2
    missing = run("--policy", str(tmp_path / "absent.yaml"))
    assert missing.returncode == 78 and len(missing.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_an_ordinary_user_is_told_what_is_missing_in_one_line() -> None:
    # not tmp_path: each run of pytest closes the directory that all of them share to other users
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        done = run("--policy", str(policy(Path(directory), "version: 1\n")), user=65534)
    assert done.returncode == 77, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "CAP_SYS_PTRACE" in done.stderr and "systemctl start tierd" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (TierdError("it failed", hint="try this"), 1, ["tierd: it failed; try this"]),
        (DeniedError("no"), 77, ["tierd: no"]),
        (UnsupportedError("two\nlines \x1b[31m"), 1, [r"tierd: two\nlines \x1b[31m"]),
        (ConfigError(("a:1:1: x", "a:2:1: y")), 78, ["a:1:1: x", "a:2:1: y"]),
        (ImportError("No module named 'gi'"), 1, None),
        (KeyboardInterrupt(), 130, []),
        (ZeroDivisionError("oops"), 1, None),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    lines: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Path) -> int:
        raise error

    monkeypatch.setattr(command, "run", fail)
    assert command.main([]) == code
    shown = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(shown)
    assert shown == lines if lines is not None else len(shown) == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError(("a:1:1: x", "a:2:1: y")), 78, "tierd cannot start: a:1:1: x (and 1 more problem)"),
        (DeniedError("no", hint="try root"), 77, "tierd cannot start: no; try root"),
        (ZeroDivisionError("oops"), 1, "tierd cannot start: internal error: ZeroDivisionError: oops"),
    ],
)
def test_under_systemd_a_start_that_fails_is_one_event(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Path) -> int:
        raise error

    told: list[Event] = []
    last_words: list[str] = []
    monkeypatch.setattr(command, "run", fail)
    monkeypatch.setattr(journal, "writes_to_journal", lambda: True)
    monkeypatch.setattr(journal, "to_journal", told.append)
    monkeypatch.setattr(notify.Notifier, "failed", lambda _, text: last_words.append(text))
    assert command.main([]) == code
    assert capsys.readouterr().err == ""
    (event,) = told
    assert event.type is events.START_FAILED and event.message.startswith(message)
    assert event.fields["TIERD_EXIT_STATUS"] == str(code) and last_words == [event.message]
    if isinstance(error, ConfigError):
        assert event.fields["TIERD_PROBLEMS"].split("\n") == list(error.problems)


def test_a_check_is_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Event] = []
    monkeypatch.setattr(journal, "writes_to_journal", lambda: True)
    monkeypatch.setattr(journal, "to_journal", told.append)
    assert command.main(["--check-config", str(policy(tmp_path, BAD))]) == 78
    assert len(capsys.readouterr().err.splitlines()) == 2 and told == []


def test_a_second_daemon_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "daemon.lock"
    monkeypatch.setattr(command, "LOCK_PATH", lock)
    assert command._lock() is None  # not installed
    lock.touch()
    first = command._lock()
    assert first is not None
    with pytest.raises(TierdError, match="another tierd") as caught:
        command._lock()
    assert caught.value.exit_code == 75
    os.close(first)
    again = command._lock()
    assert again is not None
    os.close(again)


def test_what_a_run_has_left_is_taken_and_the_next_is_provided_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = {"lru_gen": 999, "heat": write_memory_file("tierd-heat", [memoryview(b"left")])}
    made: dict[str, Any] = {}

    class Fake:
        def __init__(self, *_: object, **options: Any) -> None:
            made.update(options)

        def report(self, event: object) -> None: ...

        def run(self) -> int:
            return 0

    monkeypatch.setattr(notify, "stored_descriptors", lambda: handed)
    monkeypatch.setattr(command, "LOCK_PATH", tmp_path / "none")
    monkeypatch.setattr(assembly, "create_engine", lambda *given: made.update(given=given))
    monkeypatch.setattr(daemon, "Daemon", Fake)
    monkeypatch.setattr(journal, "capture_logging", lambda report: None)
    assert command.run(policy(tmp_path, "version: 1\n")) == 0
    keeper = made["given"][-1]
    assert handed == {"lru_gen": 999} and keeper._blob == b"left"
    assert made["keep"] == keeper.keep
