"""The program behind tierd-convert@NAME: its exit codes, and the lock that all such programs share."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

import tierd.config
from tierd.errors import ConfigError
from tierd.service import convert, one_shot


def policy(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tierd.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


ONE = """\
version: 1
provision:
  - name: pmem0
    region: { iset_id: "0x1" }
    size: 1GiB
    mode: apply
"""


def test_a_bad_policy_and_an_unknown_name_are_78(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = policy(tmp_path, "version: 1\nprovison: []\n")
    assert convert.main(["pmem0", "--policy", str(bad)]) == 78
    good = policy(tmp_path, ONE)
    assert convert.main(["other", "--policy", str(good)]) == 78
    said = capfd.readouterr().err
    assert "tierd.yaml:2:1" in said and "no provision request is named other; there is pmem0" in said
    assert convert.main(["pmem0", "--policy", str(tmp_path / "absent.yaml")]) == 78


def test_only_root_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = policy(tmp_path, ONE)
    loaded = tierd.config.load(path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(tierd.config, "load", lambda _: loaded)
    assert convert.main(["pmem0"]) == 77
    assert "only root" in capfd.readouterr().err


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), OSError(5, "Input/output error", "x"), ConfigError(("a", "b"))]
)
def test_no_failure_ends_in_a_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(tierd.config, "load", fail)
    assert convert.main(["pmem0"]) == (78 if isinstance(error, ConfigError) else 1)
    said = capfd.readouterr().err
    assert "Traceback" not in said and len(said.splitlines()) == 1


def test_the_lock_is_one_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_shot, "LOCK_DEADLINE", 0.3)
    path = tmp_path / "run/convert.lock"
    with one_shot.lock(path) as first:
        assert first is not None
        with one_shot.lock(path) as second:
            assert second is None
    # one that says how long it takes is waited for
    with one_shot.lock(path) as first:
        assert first is not None
        one_shot.busy_for(first, 0.7)
        begun = time.monotonic()
        with one_shot.lock(path) as second:
            assert second is None and 0.9 < time.monotonic() - begun < 5.0
    with one_shot.lock(path) as third:
        assert third is not None
        with pytest.raises(BlockingIOError), path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_step_of_the_clock_makes_nobody_give_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer of a time server comes while persistent memory is taken up at boot."""
    monkeypatch.setattr(one_shot, "LOCK_DEADLINE", 0.3)
    path, now = tmp_path / "run/convert.lock", time.time
    with one_shot.lock(path) as first:
        assert first is not None
        one_shot.busy_for(first, 0.7)
        monkeypatch.setattr(one_shot.time, "time", lambda: now() + 3600)
        begun = time.monotonic()
        with one_shot.lock(path) as second:
            assert second is None and 0.9 < time.monotonic() - begun < 5.0


def test_who_holds_the_lock_and_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """flock(1) on a new file, whose time is that of the day."""
    monkeypatch.setattr(one_shot, "LOCK_DEADLINE", 0.3)
    path = tmp_path / "convert.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with one_shot.lock(path) as second:
            assert second is None


def test_message_ids_are_128_bits_and_unlike() -> None:
    ids = [kind.message_id for kind in convert.EVENT_TYPES]
    assert len(set(ids)) == len(ids)
    assert all(len(found) == 32 and int(found, 16) for found in ids)
