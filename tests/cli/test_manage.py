"""`tierctl pause`, `resume` and `reload`, against a stand-in for the daemon."""

from __future__ import annotations

import pytest

from tests.cli.test_tierctl import Serve, bus, serve, tierctl

__all__ = ["bus", "serve"]


@pytest.mark.service
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pause",), "nothing is moved for 10min; tierctl resume ends it\n"),
        (("pause", "90s"), "nothing is moved for 90s; tierctl resume ends it\n"),
        (("resume",), ""),
        (("reload",), ""),
    ],
)
def test_orders(serve: Serve, arguments: tuple[str, ...], says: str) -> None:
    serve("good")
    shown = tierctl(*arguments)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, says, "")


@pytest.mark.service
@pytest.mark.parametrize("command", ["pause", "resume", "reload"])
def test_who_may_not_is_told(serve: Serve, command: str) -> None:
    serve("org.tierd1.Error.NotAuthorized")
    shown = tierctl(command)
    assert shown.returncode == 4 and shown.stdout == "" and "run it as root" in shown.stderr


@pytest.mark.service
def test_a_bad_policy_is_the_caller_s_to_mend(serve: Serve) -> None:
    serve("org.tierd1.Error.InvalidPolicy")
    assert tierctl("reload").returncode == 78


@pytest.mark.service
def test_without_a_daemon(bus: str) -> None:
    assert tierctl("pause").returncode == 3


@pytest.mark.parametrize("text", ["10", "5 m", "-3s", "10fortnights"])
def test_what_is_no_duration(text: str) -> None:
    shown = tierctl("pause", "--", text)
    assert shown.returncode == 2 and "usage: tierctl pause" in shown.stderr
