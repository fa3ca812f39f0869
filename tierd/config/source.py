"""Reading the policy file so that nobody but its owner decides what it says.

The daemon acts on other people's memory by this file: whoever can write it, or swap it by writing a
directory above it, commands tierd. Every check is made on a descriptor, so that what was checked is what is
read.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from tierd.config.report import Told
from tierd.errors import ConfigError

MAXIMUM_SIZE = 256 * 1024
"""Bytes of policy. A thousand rules fit in a fifth of it; more is not a policy."""

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def read(path: Path, *, trusted: bool) -> bytes:
    """The content of `path`, at most MAXIMUM_SIZE bytes.

    trusted: the file is to be obeyed, so it and every directory above it must be real (no symbolic link),
    belong to root or to the caller, and be writable by nobody else. A draft that is only checked needs none
    of this. Raises ConfigError with one line, ``FILE: message``. Called by `tierd.config.load`.
    """
    try:
        descriptor = _open_trusted(path) if trusted else os.open(path, _FLAGS)
    except OSError as error:
        raise _refused(path, _open_message(error)) from None
    except ValueError:  # NUL in the path
        raise _refused(path, "is not a file name") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, f"is {_kind(status.st_mode)}; the policy must be a regular file")
        if trusted:
            _check_owner(path, path, status)
        return _read_all(path, descriptor)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _read_all(path: Path, descriptor: int) -> bytes:
    content = b""
    while chunk := os.read(descriptor, MAXIMUM_SIZE + 1 - len(content)):
        content += chunk
        if len(content) > MAXIMUM_SIZE:
            raise _refused(
                path, f"is larger than {MAXIMUM_SIZE // 1024} KiB; a policy is a few lines of YAML"
            )
    return content


def names(directory: Path) -> tuple[str, ...]:
    """What is in `directory`, which is to be obeyed as read has it; nothing when it does not exist. Raises
    ConfigError with one line. Called by `tierd.config.files`."""
    try:
        walked = _open_directory(directory, Path(os.path.abspath(directory)))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _refused(directory, f"cannot be opened: {error.strerror}") from None
    try:
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=walked)
        try:
            return tuple(os.listdir(readable))
        finally:
            os.close(readable)
    except OSError as error:
        raise _refused(directory, f"cannot be read: {error.strerror}") from None
    finally:
        os.close(walked)


def is_null_link(path: Path) -> bool:
    """Whether `path`, in a directory that `names` has read, is a link to /dev/null in safe hands. Raises
    ConfigError when others own it."""
    try:
        status = os.lstat(path)
        if not stat.S_ISLNK(status.st_mode) or os.readlink(path) != os.devnull:
            return False
    except OSError:
        return False  # reading it tells what is wrong
    if status.st_uid not in {0, os.geteuid()}:
        raise _refused(path, f"belongs to user {status.st_uid}; run: chown -h root {path}")
    return True


def _open_trusted(path: Path) -> int:
    """Opens `path` directory by directory, following no symbolic link and checking each on the way."""
    absolute = Path(os.path.abspath(path))
    directory = _open_directory(path, absolute.parent)
    try:
        return os.open(absolute.name or ".", _FLAGS | os.O_NOFOLLOW, dir_fd=directory)
    finally:
        os.close(directory)


def _open_directory(path: Path, wanted: Path) -> int:
    """Opens the directory `wanted` in the same way, for `path`; a descriptor of O_PATH."""
    directory = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    so_far = Path("/")
    try:
        _check_owner(path, so_far, os.fstat(directory))
        for name in wanted.parts[1:]:
            so_far /= name
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                following = os.open(name, flags, dir_fd=directory)
            except OSError as error:
                if error.errno == errno.ENOTDIR and _is_link(name, directory):
                    raise _refused(
                        path, f"{so_far} is a symbolic link; name the directory it points to"
                    ) from None
                raise
            os.close(directory)
            directory = following
            _check_owner(path, so_far, os.fstat(directory))
    except BaseException:
        os.close(directory)
        raise
    return directory


def _is_link(name: str, directory: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _check_owner(path: Path, part: Path, status: os.stat_result) -> None:
    """Raises ConfigError unless `part` (`path` itself or a directory above it) is in safe hands."""
    subject = "" if part == path else f"{part} "
    if status.st_uid not in {0, os.geteuid()}:
        raise _refused(path, f"{subject}belongs to user {status.st_uid}; run: chown root {part}")
    # In a sticky directory only the owner of an entry may replace it, and the entries are checked as well.
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        who = "everyone" if status.st_mode & stat.S_IWOTH else "its group"
        raise _refused(path, f"{subject}can be written by {who}; run: chmod go-w {part}")


def _open_message(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "does not exist; the least policy is the line `version: 1`, which observes and moves nothing"
    if error.errno == errno.ELOOP:
        return "is a symbolic link; name the file it points to"
    return f"cannot be opened: {error.strerror}"


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "not a regular file")


def _refused(path: Path, message: str) -> ConfigError:
    return ConfigError((Told.of(os.fspath(path), message),))
