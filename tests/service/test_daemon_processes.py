"""ListProcesses and Explain on a private bus: what rows have, and who sees what is of others."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from gi.repository import Gio, GLib

from tests.service.conftest import DaemonProgram

pytestmark = pytest.mark.service

MIB = 1 << 20
Start = Callable[..., DaemonProgram]


def asked(daemon: DaemonProgram, keys: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    (found,) = daemon.call("ListProcesses", ("a{sv}", keys or {}), ("u", 200))
    return list(found)


def test_over_the_bus(daemon: DaemonProgram) -> None:
    found = {row["Pid"]: row for row in asked(daemon)}
    mine = found[os.getpid()]
    assert set(mine) <= {
        *("Pid", "Uid", "Class", "Cgroup", "ResidentBytes", "DramBytes", "SlowBytes", "Placed"),
    }
    assert (mine["Uid"], mine["Class"]) == (os.getuid(), "default") and mine["ResidentBytes"] > MIB
    assert found[daemon.process.pid]["Placed"] is False, "tierd leaves itself alone"
    uid = GLib.Variant("u", os.getuid())
    assert os.getpid() in {row["Pid"] for row in asked(daemon, {"uid": uid})}
    with pytest.raises(GLib.Error) as caught:
        asked(daemon, {"command": GLib.Variant("s", "x")})
    assert Gio.DBusError.get_remote_error(caught.value) == "org.tierd1.Error.InvalidArgument"
    with pytest.raises(GLib.Error) as caught:
        asked(daemon, {"class": GLib.Variant("s", "x")})
    assert Gio.DBusError.get_remote_error(caught.value) == "org.tierd1.Error.NoSuchObject"


@pytest.mark.skipif(os.getuid() != 0, reason="it takes root to run something as another user")
@pytest.mark.parametrize("arguments", [(), ("--trust-nobody",)])
def test_who_is_not_permitted_sees_their_own_alone(start_daemon: Start, arguments: tuple[str, ...]) -> None:
    daemon = start_daemon(*arguments).on_bus()
    with subprocess.Popen(["sleep", "60"], user=65534) as other:
        try:
            seen = {row["Pid"] for row in asked(daemon, {"uid": GLib.Variant("u", 65534)})}
            assert (other.pid in seen) if not arguments else (seen == set())
            if arguments:
                assert {row["Uid"] for row in asked(daemon)} == {0}
                with pytest.raises(GLib.Error) as caught:
                    daemon.call("Explain", ("u", other.pid))
                assert Gio.DBusError.get_remote_error(caught.value) == "org.tierd1.Error.NotAuthorized"
            else:
                assert daemon.call("Explain", ("u", other.pid))[0]["Uid"] == 65534
            assert daemon.call("Explain", ("u", os.getpid()))[0]["Pid"] == os.getpid()
        finally:
            other.kill()
