"""A pause over the bus: bounded, in force when the call returns, and ended by another."""

from __future__ import annotations

import json
import re

import pytest
from gi.repository import Gio, GLib

from tests.service.conftest import DaemonProgram, wait_for

pytestmark = pytest.mark.service


def pauses(daemon: DaemonProgram) -> list[int]:
    lines = [json.loads(line) for line in daemon.lines]
    return [line["paused"] for line in lines if "paused" in line]


def test_nothing_is_moved_once_the_call_has_returned(daemon: DaemonProgram) -> None:
    daemon.call("Pause", ("u", 600))
    assert wait_for(lambda: pauses(daemon), "the engine")[0] in (599, 600)
    wait_for(lambda: daemon.properties()["State"] == "paused", "the state")
    reason = daemon.properties()["Reason"]
    assert re.fullmatch(r"an operator has paused it until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+", reason)
    wait_for(
        lambda: any(
            "paused (was converging)" in event["MESSAGE"] for event in daemon.events("state-changed")
        ),
        "the event",
    )
    daemon.call("Pause", ("u", 5))
    daemon.call("Resume")
    daemon.call("Resume")
    wait_for(lambda: len(pauses(daemon)) == 4, "all four")
    assert pauses(daemon)[1] in (4, 5) and pauses(daemon)[2:] == [0, 0]
    wait_for(lambda: daemon.properties()["State"] == "converging", "the state")


@pytest.mark.parametrize("seconds", [0, 86401, 4294967295])
def test_a_pause_is_bounded(daemon: DaemonProgram, seconds: int) -> None:
    with pytest.raises(GLib.Error) as caught:
        daemon.call("Pause", ("u", seconds))
    assert Gio.DBusError.get_remote_error(caught.value) == "org.tierd1.Error.InvalidArgument"
    assert f"1 to 86400 seconds, not {seconds}" in caught.value.message
    assert not pauses(daemon)
