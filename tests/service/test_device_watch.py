"""The daemon looks at the devices now and then, and shows what an operator should know of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.service.conftest import DaemonProgram, wait_for
from tierd.service.devices import DeviceWatch


def test_the_watch_tells_changes_only() -> None:
    looks = iter([(), ("a",), ("a",), ("b",), ("b",)])
    told: list[tuple[str, ...]] = []
    failed = threading.Event()
    watch = DeviceWatch(lambda: next(looks), told.append, lambda error: failed.set(), seconds=0.0)
    watch.start()
    assert failed.wait(5)
    assert told == [("a",), ("b",)]


def test_the_daemon_shows_them_and_follows_the_policy(
    start_daemon: Callable[..., DaemonProgram],
) -> None:
    daemon = start_daemon("--new-region").on_bus()
    wait_for(lambda: daemon.properties()["Notices"] == ["region9 is new, place"], "the notices")
    daemon.policy.write_text("version: 1\nengine:\n  mode: observe\n")
    daemon.call("Reload")
    wait_for(lambda: daemon.properties()["Notices"] == ["region9 is new, observe"], "the next look")
