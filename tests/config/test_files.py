"""Which files are obeyed, and what `tierd --check-config` says of them."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tierd.config import DEFAULT_PATH, files, load, source
from tierd.config.check import check
from tierd.errors import ConfigError

ROOT = os.geteuid() == 0


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "tierd.yaml"
    path.write_text("version: 1\n")
    path.chmod(0o644)
    return path


def refusal(path: Path, *, trusted: bool = True) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, trusted=trusted)
    (line,) = caught.value.problems
    assert line.startswith(f"{path}: ")
    return line


def test_a_file_in_safe_hands_is_obeyed(policy: Path) -> None:
    assert load(policy).origin == str(policy)
    assert str(DEFAULT_PATH) == "/etc/tierd/tierd.yaml"


def test_a_relative_path_is_obeyed(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(policy.parent)
    assert load(Path("tierd.yaml")).origin == "tierd.yaml"


def test_a_missing_file_says_what_to_write(tmp_path: Path) -> None:
    assert "does not exist; the least policy is the line `version: 1`" in refusal(tmp_path / "none.yaml")
    assert "does not exist" in refusal(tmp_path / "none" / "none.yaml")
    assert "does not exist" in refusal(tmp_path / "none.yaml", trusted=False)


def test_a_symbolic_link_is_refused_but_may_be_checked(policy: Path) -> None:
    link = policy.with_name("link.yaml")
    link.symlink_to(policy)
    assert "is a symbolic link; name the file it points to" in refusal(link)
    assert load(link, trusted=False)


def test_a_directory_that_is_a_link_is_refused(policy: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(policy.parent)
    assert f"{link} is a symbolic link; name the directory" in refusal(link / policy.name)


@pytest.mark.parametrize(("mode", "who"), [(0o664, "its group"), (0o646, "everyone"), (0o666, "everyone")])
def test_a_file_that_others_can_write_is_refused(policy: Path, mode: int, who: str) -> None:
    policy.chmod(mode)
    assert f"can be written by {who}; run: chmod go-w {policy}" in refusal(policy)
    assert load(policy, trusted=False)


def test_a_directory_that_others_can_write_is_refused(policy: Path) -> None:
    policy.parent.chmod(0o777)
    assert f"{policy.parent} can be written by everyone; run: chmod go-w {policy.parent}" in refusal(policy)
    policy.parent.chmod(0o1777)
    assert load(policy)


@pytest.mark.skipif(not ROOT, reason="giving files away needs root")
def test_a_file_or_directory_of_another_user_is_refused(policy: Path) -> None:
    os.chown(policy, 65534, 0)
    assert f"belongs to user 65534; run: chown root {policy}" in refusal(policy)
    os.chown(policy, 0, 0)
    os.chown(policy.parent, 65534, 0)
    assert f"{policy.parent} belongs to user 65534; run: chown root {policy.parent}" in refusal(policy)
    os.chown(policy.parent, 0, 0)
    assert load(policy)


@pytest.mark.parametrize("trusted", [True, False])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, trusted: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    signal.alarm(10)  # its default action ends a run that waits for a writer
    assert "is a named pipe" in refusal(tmp_path / "pipe", trusted=trusted)
    assert "is a directory" in refusal(tmp_path, trusted=trusted)
    assert "is a character device" in refusal(Path("/dev/zero"), trusted=trusted)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert "cannot be opened" in refusal(tmp_path / "s", trusted=trusted)
    assert "cannot be opened: Not a directory" in refusal(Path("/dev/null/a"), trusted=trusted)
    assert "is not a file name" in refusal_of_nul(trusted)
    signal.alarm(0)


def refusal_of_nul(trusted: bool) -> str:
    with pytest.raises(ConfigError) as caught:
        load(Path("/a\0b"), trusted=trusted)
    (line,) = caught.value.problems
    assert line.isprintable()
    return line


def test_a_large_file_is_refused(policy: Path) -> None:
    policy.write_text("version: 1\n" + "#" * (source.MAXIMUM_SIZE - 11))
    assert load(policy)
    policy.write_text("version: 1\n" + "#" * (source.MAXIMUM_SIZE - 10))
    assert "is larger than 256 KiB" in refusal(policy)


def test_no_descriptor_is_left_open(policy: Path) -> None:
    before = os.listdir("/dev/fd")
    load(policy)
    policy.chmod(0o666)
    refusal(policy)
    refusal(policy.parent)
    refusal(policy.parent / "none" / "none")
    assert os.listdir("/dev/fd") == before


def test_check_says_ok(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(policy) == 0
    assert capsys.readouterr() == (f"{policy}: OK\n", "")


def test_check_prints_every_problem_and_ends_with_78(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text("version: 2\nengine: {mode: on}\n")
    assert check(policy) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(": ")[0] for line in err.splitlines()] == [f"{policy}:1:10", f"{policy}:2:16"]


def test_check_of_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "none") == 78
    assert "does not exist" in capsys.readouterr().err


def test_the_policy_in_force_is_held_to_more_than_a_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "tierd.yaml"
    policy.write_text("version: 1\n")
    policy.chmod(0o666)
    assert check(policy) == 0
    monkeypatch.setattr(files, "DIRECTORIES", (tmp_path, tmp_path / "run", tmp_path / "lib"))
    for named in (None, policy):
        assert check(named) == 78
        assert "can be written by everyone" in capsys.readouterr().err
