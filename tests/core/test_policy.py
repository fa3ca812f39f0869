"""Which processes a policy means."""

from __future__ import annotations

import pytest

from tierd.core.policy import Policy, ProcessMatch, ProcessSelection


@pytest.mark.parametrize(
    ("match", "cgroup", "expected"),
    [
        (ProcessMatch(unit="a.service"), "/system.slice/a.service", True),
        (ProcessMatch(unit="a.service"), "/system.slice/a.service/worker", True),
        (ProcessMatch(unit="a.service"), "/system.slice/aa.service", False),
        (ProcessMatch(unit="system.slice"), "/system.slice/a.service", True),
        (ProcessMatch(cgroup="/system.slice/*"), "/system.slice/a.service/worker", True),
        (ProcessMatch(cgroup="/system.slice/*"), "/user.slice/a", False),
        (ProcessMatch(cgroup="*"), "/", True),
        (ProcessMatch(cgroup="/A"), "/a", False),
        (ProcessMatch(), "/a", False),
    ],
)
def test_matches(match: ProcessMatch, cgroup: str, expected: bool) -> None:
    assert match.matches(cgroup) is expected


def test_exclude_wins() -> None:
    selection = ProcessSelection(exclude=(ProcessMatch(unit="ssh.service"),))
    assert selection.selects("/system.slice/a.service")
    assert not selection.selects("/system.slice/ssh.service")


def test_nothing_included_selects_nothing() -> None:
    assert not ProcessSelection(include=()).selects("/a")


def test_the_default_policy_selects_all_and_converts_nothing() -> None:
    assert Policy().processes.selects("/a")
    assert Policy().provision == ()
