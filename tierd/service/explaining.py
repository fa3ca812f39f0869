"""Why one process has the memory that it has: its class, by which rule, where it is, and what was moved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tierd.config.users import user_ids
from tierd.core.assignment import ClassAssigner
from tierd.core.model import ProcessView
from tierd.core.policy import Policy
from tierd.core.state import State
from tierd.core.text import clean, size
from tierd.errors import DeniedError
from tierd.kernel.paths import Root
from tierd.kernel.processes import read_process
from tierd.kernel.residence import bytes_by_node


@dataclass(frozen=True, slots=True)
class Explanation:
    """process: as it is now. service_class: the name of its class. rule: which decided, in words.
    promise: to the class, of DRAM. nodes: bytes of it on each node. placed: whether tierd moves it;
    why_not: in words, where it does not. fates: what last became of pages of it, and of its cgroup, a
    sentence each."""

    process: ProcessView
    service_class: str
    rule: str
    promise: str
    nodes: Mapping[int, int]
    placed: bool
    why_not: str
    fates: tuple[str, ...]


def class_assigner(policy: Policy) -> ClassAssigner:
    """The rules of `policy`, with the users that they name looked up."""
    named = [rule.user for c in policy.classes for rule in c.match if isinstance(rule.user, str)]
    return ClassAssigner(policy.classes, user_ids(named))


def why_not_placed(policy: Policy, process: ProcessView) -> str:
    """Why tierd does not move `process`, in words; empty when it does."""
    if process.id.pid == os.getpid():
        return "tierd leaves itself alone"
    if process.cgroup == "/":  # selected_processes does not look there
        return "it is in no cgroup but the root"
    if not policy.processes.selects(process.cgroup):
        return "the policy does not select its cgroup"
    if process.resident < policy.engine.minimum_process:
        return f"it is smaller than minimum_process ({size(policy.engine.minimum_process)})"
    return ""


def explain(
    root: Root, pid: int, policy: Policy, state: State, now: float, only_user: int | None = None
) -> Explanation:
    """For `tierctl explain`. now: on the clock of `state.monotonic`. only_user: whose processes alone may be
    explained; None for everybody's.

    Raises GoneError, DeniedError and MalformedError when the process cannot be looked at, DeniedError also
    for one of another user, before what takes long is read of it.
    """
    process = read_process(root, pid)
    if only_user not in (None, process.uid):
        raise DeniedError(f"not permitted: process {pid} is another user's")
    found = class_assigner(policy).find(process.cgroup, process.uid, process.command)
    why_not = why_not_placed(policy, process)
    return Explanation(
        process,
        found.service_class.name,
        found.words,
        found.service_class.dram.words,
        bytes_by_node(root, pid),
        not why_not,
        why_not,
        tuple(
            f"{max(0, now - when):.0f} s ago: {clean(words, 400)}"
            for when, words in state.fates.get(pid, ())
        ),
    )
