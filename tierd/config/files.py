"""Which files make the policy in force: the main file, and the drop-ins that are merged over it.

Three directories, the administrator's first, as systemd has them. The first that has a ``tierd.yaml`` has
the main file. The files ``conf.d/*.yaml`` of all three are merged over it in the order of their names, and
a name counts once: the file in the first directory that has it masks the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tierd.config import source
from tierd.config.report import Told
from tierd.errors import ConfigError

# The administrator's, the one that ends with the boot, the vendor's. The second holds files of tierd itself;
# root alone may make any in it, and stopping tierd leaves it as it is (systemd/tierd.tmpfiles).
DIRECTORIES = (Path("/etc/tierd"), Path("/run/tierd"), Path("/usr/lib/tierd"))
MAIN = "tierd.yaml"
DROP_INS = "conf.d"

MOST_DROP_INS = 100
"""Names of drop-ins. More is a mistake of whatever writes them, and each may have source.MAXIMUM_SIZE."""


class Role(StrEnum):
    """What a file is to the policy in force."""

    MAIN = "main"
    DROP_IN = "drop-in"
    EMPTY = "empty"
    """A drop-in that says nothing: empty, comments only, or a link to /dev/null. It masks all the same."""
    MASKED = "masked"


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A file that was found. content: of the main file and of drop-ins; empty when it could not be had, for
    the reasons in `problems`. masked_by: the file in its place. own: whether it is in the administrator's
    directory."""

    path: Path
    role: Role
    own: bool
    content: bytes = b""
    masked_by: Path | None = None
    problems: tuple[str, ...] = ()

    @property
    def speaks(self) -> bool:
        """Whether it is part of the policy."""
        return self.role in (Role.MAIN, Role.DROP_IN)


def place_of(path: Path) -> Path | None:
    """The one of DIRECTORIES in which `path` is a main file or a drop-in; None for a file elsewhere."""
    absolute = Path(os.path.abspath(path))
    parent = absolute.parent.parent if absolute.parent.name == DROP_INS else absolute.parent
    return parent if parent in DIRECTORIES else None


def gather() -> tuple[PolicyFile, ...]:
    """Every file of the policy in force: the main file first, then the drop-ins in the order of merging,
    each before those that it masks. Raises ConfigError when there is no main file, or a directory cannot be
    read or be trusted; what is wrong with a file stands in its `problems`. Called by
    `tierd.config.loader`."""
    found = list(_mains(DIRECTORIES))
    by_name: dict[str, list[Path]] = {}
    problems: list[str] = []
    for directory in DIRECTORIES:
        try:
            names = source.names(directory / DROP_INS)
        except ConfigError as error:
            problems += error.problems
            continue
        for name in names:
            # An editor's lock and a file that is being written begin with a dot.
            if name.endswith(".yaml") and not name.startswith("."):
                by_name.setdefault(name, []).append(directory / DROP_INS / name)
    if len(by_name) > MOST_DROP_INS:
        here = os.fspath(DIRECTORIES[0] / DROP_INS)
        message = f"more than {MOST_DROP_INS} drop-ins, with those of the other directories"
        problems.append(Told.of(here, message))
    if problems:
        raise ConfigError((*(problem for file in found for problem in file.problems), *problems))
    for name in sorted(by_name, key=os.fsencode):
        first, *others = by_name[name]
        found.append(_drop_in(first))
        found += _masked(others, first)
    return tuple(found)


def _mains(directories: Sequence[Path]) -> Iterator[PolicyFile]:
    candidates = [directory / MAIN for directory in directories]
    present = [path for path in candidates if _is_there(path)]
    # Where there is none, reading the administrator's says so.
    first = present[0] if present else candidates[0]
    try:
        content = source.read(first, trusted=True)
    except ConfigError as error:
        if not present:
            raise
        yield PolicyFile(first, Role.MAIN, _own(first), problems=error.problems)
    else:
        yield PolicyFile(first, Role.MAIN, _own(first), content)
    yield from _masked(present[1:], first)


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # reading it tells what is wrong; to pass it over would put another policy in force
    return True


def _masked(paths: Sequence[Path], first: Path) -> Iterator[PolicyFile]:
    return (PolicyFile(path, Role.MASKED, _own(path), masked_by=first) for path in paths)


def _drop_in(path: Path) -> PolicyFile:
    try:
        if source.is_null_link(path):
            return PolicyFile(path, Role.EMPTY, _own(path))
        content = source.read(path, trusted=True)
    except ConfigError as error:
        return PolicyFile(path, Role.DROP_IN, _own(path), problems=error.problems)
    return PolicyFile(path, Role.EMPTY if _says_nothing(content) else Role.DROP_IN, _own(path), content)


def _says_nothing(content: bytes) -> bool:
    lines = (line.strip(b" \t\r") for line in content.split(b"\n"))
    return all(not line or line.startswith(b"#") for line in lines)


def _own(path: Path) -> bool:
    return place_of(path) == DIRECTORIES[0]
