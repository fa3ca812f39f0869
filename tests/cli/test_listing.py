"""`tierctl list tiers`, `list processes` and `show`, against a stand-in for the daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_tierctl import ROOT, Serve, bus, serve, tierctl
from tierd.cli import render
from tierd.cli.render import Style
from tierd.cli.show import key_values

__all__ = ["bus", "serve"]

LEGEND = " PID  UID  CLASS  RESIDENT     DRAM     SLOW  DRAM%  PLACED  CGROUP\n"
FIRST = "4711  105  gold    1.0 GiB  768 MiB  256 MiB    75%  yes     /gold.slice/db.service\n"


@pytest.mark.service
def test_tiers(serve: Serve) -> None:
    serve("good")
    shown = tierctl("list", "tiers")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == (
        "TIER           KIND  NODES     USED    TOTAL  USE%  LATENCY\n"
        "memory_tier4   dram  0      1.5 GiB  2.0 GiB   75%    80 ns\n"
        "memory_tier56  slow  1-2        0 B  4.0 GiB    0%        -\n"
    )
    tiers = json.loads(tierctl("list", "tiers", "--json").stdout)["tiers"]
    assert tiers == json.loads(tierctl("--json").stdout)["tiers"] and len(tiers) == 2


@pytest.mark.service
def test_processes(serve: Serve) -> None:
    serve("good")
    shown = tierctl("list", "processes")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == (
        f"{LEGEND}{FIRST}   7  105  gold    1.0 GiB        -        -      -  no      /x\\x1b[2J\n"
    )
    assert tierctl("list", "processes", "--limit", "1").stdout == (
        f"{LEGEND}{FIRST}\nThere may be smaller ones: --limit shows up to 200.\n"
    )
    first, second = json.loads(tierctl("list", "processes", "--json").stdout)["processes"]
    assert first == {
        "pid": 4711,
        "uid": 105,
        "class": "gold",
        "cgroup": "/gold.slice/db.service",
        "resident_bytes": 1 << 30,
        "placed": True,
        "dram_bytes": 3 << 28,
        "slow_bytes": 1 << 28,
    }
    assert "dram_bytes" not in second


def asked(address: str, *arguments: str) -> list[object]:
    """What the daemon is asked by `tierctl list processes ...`."""
    fake = [sys.executable, str(Path(__file__).with_name("fake_tierd.py")), address, "good"]
    with subprocess.Popen(fake, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert tierctl("list", "processes", *arguments).returncode == 0
        line = process.stdout.readline()
        process.kill()
    return list(json.loads(line))


@pytest.mark.service
def test_what_is_asked_of_the_daemon(bus: str) -> None:
    assert asked(bus) == [{}, 20]
    assert asked(bus, "--class", "gold", "--limit", "200") == [{"class": "gold"}, 200]


@pytest.mark.parametrize("limit", ["0", "201", "-1", "x", ""])
def test_what_is_no_limit(limit: str) -> None:
    shown = tierctl("list", "processes", f"--limit={limit}")
    assert shown.returncode == 2 and "not a number from 1 to 200" in shown.stderr


@pytest.mark.service
def test_a_class_that_there_is_not_and_a_filter_that_is_not_taken(serve: Serve) -> None:
    serve("org.tierd1.Error.NoSuchObject")
    assert tierctl("list", "processes", "--class", "x").returncode == 5


def test_who_sees_their_own_is_told_so() -> None:
    style = Style()
    assert render.processes([], style) == "No such process."
    assert render.processes([], style, everybody=False) == (
        "No such process.\n\n"
        "Those of others are shown to root, and where polkit permits org.tierd1.read-processes."
    )


@pytest.mark.service
def test_show(serve: Serve) -> None:
    serve("good")
    shown = tierctl("show")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[:3] == ["Version=0.1.0", "State=converging", "Reason="]
    assert "HostedProcesses=3" in lines and "BytesPerSecond=12000000.0" in lines
    assert "Counters={ PromotedPages=105472 ; MoveSeconds=0.5 }" in lines
    assert [line for line in lines if line.startswith("Tiers=")] == [
        "Tiers={ Name=memory_tier4 ; Kind=dram ; Nodes=0 ; TotalBytes=2147483648 ; FreeBytes=536870912"
        " ; UsedBytes=1610612736 ; ReadLatencyNanoseconds=80 }",
        "Tiers={ Name=memory_tier56 ; Kind=slow ; Nodes=1 2 ; TotalBytes=4294967296"
        " ; FreeBytes=4294967296 ; UsedBytes=0 }",
    ]
    assert "\x1b" not in shown.stdout and "lacks 512 MiB\\x1b[2J" in shown.stdout


@pytest.mark.service
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-p", "State"), "State=converging\n"),
        (("--property", "Source,State"), "State=converging\nSource=hint-faults\n"),
        (("-p", "Source", "-p", "State"), "State=converging\nSource=hint-faults\n"),
        (("-p", "State", "--json"), '{\n  "state": "converging"\n}\n'),
    ],
)
def test_show_one_property(serve: Serve, arguments: tuple[str, ...], says: str) -> None:
    serve("good")
    assert tierctl("show", *arguments).stdout == says


@pytest.mark.service
def test_show_what_there_is_not(serve: Serve) -> None:
    serve("good")
    shown = tierctl("show", "-p", "State,Stat")
    assert (shown.returncode, shown.stdout) == (5, "")
    assert shown.stderr.startswith("tierctl: tierd has no property Stat (there are Version, State, ")


def test_values_of_every_kind() -> None:
    values = {"Empty": [], "Nothing": "", "Sure": True, "No": False, "Some": ["a", "b c"], "Bad": "a\nb"}
    assert list(key_values(values)) == [
        *("Empty=", "Nothing=", "Sure=yes", "No=no", "Some=a", "Some=b c", "Bad=a\\nb"),
    ]


@pytest.mark.parametrize("command", [("list", "tiers"), ("list", "processes"), ("show",)])
def test_without_a_daemon_nothing_heavy_is_imported(command: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        f"import sys, tierd.cli.main; assert tierd.cli.main.main({list(command)!r}) == 3;"
        "print(*{'numpy', 'yaml', 'jsonschema', 'psutil', 'subprocess', 'tierd.kernel'} & set(sys.modules))"
    )
    nowhere = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/nothing"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=nowhere
    )
    assert done.stdout.strip() == ""
