"""The daemon looks at the devices now and then, and shows what an operator should know of them."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest

from tests.service.conftest import DaemonProgram, wait_for
from tierd.core.policy import Policy
from tierd.errors import MalformedError, in_words
from tierd.service import devices
from tierd.service.devices import DeviceWatch


def test_the_watch_tells_changes_only_and_goes_on_after_an_error() -> None:
    looks = iter([(), ("a",), ("a",), KeyError("x"), ("b",), ("b",), None])
    told: list[tuple[str, ...]] = []
    failed: list[str] = []
    over = threading.Event()

    def look() -> tuple[str, ...]:
        found = next(looks)
        if found is None:
            watch.stop()
            over.set()
            return ("b",)
        if isinstance(found, KeyError):
            raise found
        return found

    watch = DeviceWatch(look, told.append, lambda error: failed.append(type(error).__name__), seconds=0.0)
    watch.start()
    assert over.wait(5)
    trouble = "the devices cannot be looked at: internal error: KeyError"
    assert (told, failed) == ([("a",), (trouble,), ("b",)], ["KeyError"])


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files", "/sys/bus/nd/devices"), MalformedError("odd")]
)
def test_devices_that_cannot_be_looked_at_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The watch goes on: it would end for good with what it does not expect."""

    def fail(root: object) -> object:
        raise error

    monkeypatch.setattr(devices, "read_regions", fail)
    (said,) = devices.read_notices(Policy())
    assert said == f"the devices cannot be looked at: {in_words(error)}"


def test_the_daemon_shows_them_and_follows_the_policy(
    start_daemon: Callable[..., DaemonProgram],
) -> None:
    daemon = start_daemon("--new-region").on_bus()
    wait_for(lambda: daemon.properties()["Notices"] == ["region9 is new, place"], "the notices")
    daemon.policy.write_text("version: 1\nengine:\n  mode: observe\n")
    daemon.call("Reload")
    wait_for(lambda: daemon.properties()["Notices"] == ["region9 is new, observe"], "the next look")
