"""GetHeat on a private bus: its rows, its errors, and who may ask."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from gi.repository import Gio, GLib

from tests.service.conftest import DaemonProgram, wait_for

pytestmark = pytest.mark.service

Start = Callable[..., DaemonProgram]
KEYS = {"Start", "End", "Rate", "KnownPages", "RememberedPages", "Pages", "DramPages"}


def heat(daemon: DaemonProgram, pid: int, bins: int = 32) -> list[dict[str, Any]]:
    (rows,) = daemon.call("GetHeat", ("u", pid), ("u", bins))
    return list(rows)


def refusal(daemon: DaemonProgram, pid: int, bins: int = 32) -> tuple[str, str]:
    with pytest.raises(GLib.Error) as caught:
        heat(daemon, pid, bins)
    name = Gio.DBusError.get_remote_error(caught.value)
    return name.removeprefix("org.tierd1.Error."), caught.value.message


def test_over_the_bus(daemon: DaemonProgram) -> None:
    rows = heat(daemon, os.getpid())
    assert 1 < len(rows) <= 32
    first, *others = rows
    assert set(first) == KEYS and first["Rate"] == 5.0
    assert (first["KnownPages"], first["RememberedPages"]) == (1, 1)
    assert {frozenset(row) for row in others} == {frozenset(KEYS - {"Rate"})}, "no rate is known of these"
    bounds = [bound for row in rows for bound in (row["Start"], row["End"])]
    assert bounds == sorted(bounds) and all(bound % 4096 == 0 for bound in bounds)
    assert sum(row["Pages"] for row in rows) > 1000
    assert all(row["DramPages"] <= row["Pages"] <= (row["End"] - row["Start"]) // 4096 for row in rows)


def test_without_a_second_tier_nobody_is_asked_where_pages_are(start_daemon: Start) -> None:
    daemon = start_daemon("--untiered").on_bus()
    assert set(heat(daemon, os.getpid())[0]) <= KEYS


def test_what_cannot_be_had(daemon: DaemonProgram) -> None:
    assert refusal(daemon, (1 << 22) - 1)[0] == "NoSuchObject"
    name, words = refusal(daemon, daemon.process.pid)
    assert name == "Failed" and "it is tierd" in words
    name, words = refusal(daemon, 1)
    assert name == "Failed" and "has not begun to place process 1 yet (try again" in words
    for bins in (0, 257):
        name, words = refusal(daemon, os.getpid(), bins)
        assert name == "InvalidArgument" and f"bins are 1 to 256, not {bins}" in words


def test_a_busy_engine_is_not_waited_for_without_end(daemon: DaemonProgram) -> None:
    daemon.order("hang", seconds=20)
    wait_for(lambda: '{"hangs": true}' in daemon.lines, "the hang")
    name, words = refusal(daemon, os.getpid())
    assert name == "TimedOut" and "has not answered after 2 s" in words


def test_addresses_are_for_whom_polkit_permits_them_even_of_ones_own(start_daemon: Start) -> None:
    daemon = start_daemon("--trust-nobody").on_bus()
    daemon.call("Explain", ("u", os.getpid()))
    assert refusal(daemon, os.getpid())[0] == "NotAuthorized"
