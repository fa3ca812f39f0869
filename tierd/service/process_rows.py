"""The processes that a caller on the bus asks for: the largest of them, each with its class and where its
memory is. Runs in a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tierd.core.assignment import ClassAssigner
from tierd.core.classes import DEFAULT_NAME
from tierd.core.model import ProcessView, Topology
from tierd.core.policy import Policy
from tierd.core.text import clean
from tierd.errors import DeniedError, GoneError, InvalidError, MalformedError
from tierd.kernel.paths import Root
from tierd.kernel.processes import (
    process_numbers,
    read_owner,
    read_process,
    read_resident,
    same_process,
)
from tierd.kernel.residence import bytes_by_node
from tierd.service.explaining import class_assigner, why_not_placed

MOST_ROWS: Final = 200
WHERE_SECONDS: Final = 2.0
"""For where memory is, of all rows together: numa_maps takes as long as a process is large."""

_MOST_USER: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class ProcessQuery:
    """The `limit` largest processes that have the class, are in the cgroup or below it, and are of the user,
    as far as each of these is not None."""

    limit: int
    service_class: str | None = None
    cgroup: str | None = None
    user: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """process: as it is now. service_class: the name of its class. dram, slow: bytes in each kind of tier;
    None where that could not be read, or not in time. placed: whether tierd moves it."""

    process: ProcessView
    service_class: str
    dram: int | None
    slow: int | None
    placed: bool


def process_query(keys: Mapping[str, Any], limit: int) -> ProcessQuery:
    """What ListProcesses is called with, as a query. Raises InvalidError."""
    if not 1 <= limit <= MOST_ROWS:
        raise InvalidError(f"limit is 1 to {MOST_ROWS}, not {limit}")
    for key, value in keys.items():
        if key not in ("class", "cgroup", "uid"):
            raise InvalidError(f"no filter {key!r}", hint="there are class, cgroup and uid")
        if key == "uid":
            # A bool is an int to Python, and no user to anybody.
            if type(value) is not int or not 0 <= value <= _MOST_USER:
                raise InvalidError("the filter 'uid' takes the number of a user")
        elif not isinstance(value, str):
            raise InvalidError(f"the filter {key!r} takes a string")
    cgroup = keys.get("cgroup")
    if cgroup is not None and not cgroup.startswith("/"):
        raise InvalidError(f"the filter 'cgroup' takes a path that starts with /, not {clean(cgroup, 80)!r}")
    return ProcessQuery(limit, keys.get("class"), cgroup, keys.get("uid"))


def list_processes(
    root: Root,
    query: ProcessQuery,
    only_user: int | None,
    policy: Policy,
    topology: Topology,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[ProcessRow, ...]:
    """What `query` asks for, the largest first. Without kernel threads, and what exits meanwhile.

    only_user: whose processes alone may be shown; None for everybody's. topology: says which nodes are DRAM,
    and which are slow. Raises GoneError when the policy has no such class.
    """
    wanted = query.service_class
    if wanted not in (None, DEFAULT_NAME, *(found.name for found in policy.classes)):
        raise GoneError(f"the policy has no class {clean(str(wanted), 80)}")
    assigner = class_assigner(policy)
    dram, slow = ({node.number for node in nodes} for nodes in (topology.dram, topology.slow))
    rows: list[ProcessRow] = []
    deadline = clock() + WHERE_SECONDS
    for process, service_class in _matching(root, query, only_user, assigner):
        nodes = None
        if dram and clock() < deadline:
            try:
                nodes = bytes_by_node(root, process.id.pid)
            except (DeniedError, MalformedError):
                pass
            except GoneError:
                continue
        # Its number may be another's by now, and that one of a user whose processes are not to be seen.
        if not same_process(root, process.id):
            continue
        in_dram, in_slow = (
            None if nodes is None else sum(amount for node, amount in nodes.items() if node in kind)
            for kind in (dram, slow)
        )
        placed = not why_not_placed(policy, process)
        rows.append(ProcessRow(process, service_class, in_dram, in_slow, placed))
        if len(rows) == query.limit:
            break
    return tuple(rows)


def _matching(
    root: Root, query: ProcessQuery, only_user: int | None, assigner: ClassAssigner
) -> Iterator[tuple[ProcessView, str]]:
    """Processes with the names of their classes, the largest first."""
    users = {user for user in (query.user, only_user) if user is not None}
    for _, pid in sorted(_sizes(root, users), reverse=True):
        try:
            process = read_process(root, pid)
        except (GoneError, DeniedError, MalformedError):
            continue
        found = assigner.find(process.cgroup, process.uid, process.command).service_class.name
        if (
            users <= {process.uid}
            and query.service_class in (None, found)
            and (query.cgroup is None or _within(process.cgroup, query.cgroup))
        ):
            yield process, found


def _sizes(root: Root, users: set[int]) -> Iterator[tuple[int, int]]:
    """Resident bytes and number of each process that belongs to every one of `users`: two reads for each
    process of the machine, so that the rest is read of few."""
    for pid in process_numbers(root):
        try:
            if users <= {read_owner(root, pid)} and (resident := read_resident(root, pid)):
                yield resident, pid
        except (GoneError, DeniedError, MalformedError):
            continue


def _within(cgroup: str, top: str) -> bool:
    top = top.rstrip("/")
    return cgroup == top or cgroup.startswith(f"{top}/")
