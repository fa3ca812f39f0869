"""The file beside the policy without which no namespace that exists is taken: ``allow-convert.d/UUID``, or
the serial number of its DIMM in the place of the UUID.

A policy may be written by a tool, copied to a hundred machines, restored from a backup. The file is made by
hand, on the machine, for the one namespace; what it holds does not matter.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tierd.config import source
from tierd.errors import ConfigError

DIRECTORY = "allow-convert.d"


def allow_file(policy: Path, identity: str) -> Path:
    """Where the file for the namespace `identity` is, beside the policy in `policy`."""
    return Path(os.path.abspath(policy)).parent / DIRECTORY / identity


def allowance(policy: str, identity: str) -> tuple[Path, str]:
    """The file for the namespace `identity`, of the policy in the file `policy`, and what is wrong with it.
    Raises nothing."""
    path = allow_file(Path(policy), identity)
    return path, refused(path)


def refused(path: Path) -> str:
    """What is wrong with the file at `path`, in words; empty when it allows. Raises nothing.

    It must be a regular file of root's own, mode 0600, with no symbolic link on the way and no directory
    that others may write to. Called for every plan, and again before the namespace is given up.
    """
    make = f"make it with `install -D -m 0600 /dev/null {path}`"
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return f"{path} does not exist; {make}, as root, on this machine"
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is not a regular file; {make}"
    if found.st_uid != 0:
        return f"{path} belongs to user {found.st_uid}, and must be root's; chown root {path}"
    if stat.S_IMODE(found.st_mode) != 0o600:
        return f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, and must have 0600; chmod 0600 {path}"
    try:
        source.read(path, trusted=True)
    except ConfigError as error:
        return "; ".join(error.problems)
    return ""
