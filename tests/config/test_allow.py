"""The file beside the policy: what allows, and everything that does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tierd.config.allow import allow_file, allowance

UUID = "3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the file must be root's")


@pytest.fixture
def allow(tmp_path: Path) -> Path:
    """The file as it should be."""
    path = allow_file(tmp_path / "tierd.yaml", UUID)
    assert path == tmp_path / "allow-convert.d" / UUID
    path.parent.mkdir(mode=0o755)
    path.touch(mode=0o600)
    return path


def told(path: Path) -> str:
    return allowance(str(path.parents[1] / "tierd.yaml"), path.name)[1]


def test_a_file_of_roots_own_allows(allow: Path) -> None:
    assert allowance(str(allow.parents[1] / "tierd.yaml"), UUID) == (allow, "")


def test_no_file_says_how_to_make_it(allow: Path) -> None:
    allow.unlink()
    assert f"{allow} does not exist; make it with `install -D -m 0600 /dev/null {allow}`" in told(allow)
    allow.parent.rmdir()
    assert "does not exist" in told(allow)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o666, 0o700, 0o400, 0o4600])
def test_another_mode(allow: Path, mode: int) -> None:
    allow.chmod(mode)
    assert f"has mode {mode:04o}, and must have 0600" in told(allow)


def test_another_owner(allow: Path) -> None:
    os.chown(allow, 1, 0)
    assert "belongs to user 1, and must be root's" in told(allow)


def test_a_link_a_directory_and_a_pipe(allow: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    allow.rename(real)
    allow.symlink_to(real)
    assert "is not a regular file" in told(allow)
    allow.unlink()
    allow.mkdir()
    assert "is not a regular file" in told(allow)
    allow.rmdir()
    os.mkfifo(allow, 0o600)
    assert "is not a regular file" in told(allow)


def test_a_directory_that_is_a_link_or_that_others_may_write(allow: Path, tmp_path: Path) -> None:
    allow.parent.chmod(0o777)
    assert "can be written by everyone" in told(allow)
    allow.parent.chmod(0o755)
    os.chown(allow.parent, 1, 0)
    assert "belongs to user 1" in told(allow)
    os.chown(allow.parent, 0, 0)
    allow.parent.rename(tmp_path / "elsewhere")
    allow.parent.symlink_to(tmp_path / "elsewhere")
    assert "is a symbolic link" in told(allow)
