"""tierctl as a process, against a stand-in for the daemon on a private bus."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_tierd.py")
Serve = Callable[[str], None]


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A message bus of our own, which tierctl takes for the system bus."""
    address = f"unix:path={tmp_path}/bus"
    daemon = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address", f"--address={address}"],
        stdout=subprocess.PIPE,
    )
    assert daemon.stdout is not None and daemon.stdout.readline()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    yield address
    daemon.kill()
    daemon.communicate()


@pytest.fixture
def serve(bus: str) -> Iterator[Serve]:
    """Start the stand-in in a mode of fake_tierd.py."""
    running: list[subprocess.Popen[bytes]] = []

    def start(mode: str) -> None:
        process = subprocess.Popen([sys.executable, FAKE, bus, mode], stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"

    yield start
    for process in running:
        process.kill()
        process.communicate()


def tierctl(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "tierd.cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "LANG": "C.UTF-8", "LC_ALL": "", **environment},
        timeout=60,
        check=False,
    )
    assert "Traceback" not in result.stderr + result.stdout
    return result


@pytest.mark.service
@pytest.mark.parametrize("arguments", [(), ("status",)])
def test_status(serve: Serve, arguments: tuple[str, ...]) -> None:
    serve("good")
    result = tierctl(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "● tierd 0.1.0: converging\n"
        "  Placing: 3 processes in 2 cgroups: 1.0 GiB in DRAM, 1.0 GiB in slow memory\n"
        "           (50% in DRAM)\n"
        "   Source: hint-faults (page-exact)\n"
        "    Moved: 412 MiB promoted, 0 B demoted, 11 MiB/s now\n"
        "   Policy: /etc/tierd/tierd.yaml: refused at the last reload, the older policy\n"
        "           stays in force:\n"
        "  /etc/tierd/tierd.yaml:3:1: engin: unknown key\n"
        "\n"
        "TIER           KIND  NODES     USED    TOTAL  USE%  LATENCY\n"
        "memory_tier4   dram  0      1.5 GiB  2.0 GiB   75%    80 ns\n"
        "memory_tier56  slow  1-2        0 B  4.0 GiB    0%        -\n"
        "\n"
        "Devices:\n"
        "  - region1: 512 MiB free, which no request names\n"
        "\n"
        "Missing:\n"
        "  - DAMON: large regions are found later; boot with CONFIG_DAMON\n"
    )


@pytest.mark.service
@pytest.mark.parametrize("arguments", [("--json",), ("status", "--json")])
def test_status_as_json(serve: Serve, arguments: tuple[str, ...]) -> None:
    serve("good")
    document = json.loads(tierctl(*arguments).stdout)
    assert document["running"] is True and document["state"] == "converging"
    assert document["tiers"][1] == {
        "name": "memory_tier56",
        "kind": "slow",
        "nodes": [1, 2],
        "total_bytes": 4 << 30,
        "free_bytes": 4 << 30,
        "used_bytes": 0,
    }
    assert document["counters"] == {"promoted_pages": 105472, "move_seconds": 0.5}


@pytest.mark.service
def test_plan(serve: Serve) -> None:
    serve("good")
    assert tierctl("plan").stdout == (
        "promote 4.0 MiB, node 1 to node 0, /system.slice/db.service\n"
        "    because hot: 12 accesses a second\n"
        "\n"
        "1 step: promote 4.0 MiB\n"
    )
    (step,) = json.loads(tierctl("plan", "--json").stdout)["steps"]
    assert (step["action"], step["pages"], step["source_node"], step["target_node"]) == (
        "promote",
        1024,
        1,
        0,
    )


@pytest.mark.service
def test_explain(serve: Serve) -> None:
    serve("good")
    assert tierctl("explain", "4711").stdout == (
        "Process 4711 (postgres)\n"
        "   Cgroup: /gold.slice/db.service\n"
        "    Class: class gold, by classes[0].match[0] (unit: gold.slice) (guaranteed)\n"
        "   Memory: node 0: 1.0 GiB, node 1: 8.0 KiB\n"
        "   Placed: yes\n"
        "\n"
        "What was moved:\n"
        "  - 3 s ago: 768 pages came up, used 4 to 30 times a second\n"
    )
    assert json.loads(tierctl("explain", "4711", "--json").stdout)["nodes"][1] == {"node": 1, "bytes": 8192}


@pytest.mark.parametrize("pid", ["0", "-3", "x", "99999999"])
def test_what_is_no_process_number(pid: str) -> None:
    shown = tierctl("explain", "--", pid)
    assert shown.returncode == 2 and "not the number of a process" in shown.stderr


@pytest.mark.service
def test_classes(serve: Serve) -> None:
    serve("good")
    shown = tierctl("list", "classes")
    assert shown.returncode == 1, "one promise is broken"
    assert shown.stdout == (
        "CLASS    PROMISE     PRIORITY  PROCESSES     DRAM     SLOW  DRAM%    LEAST     MOST\n"
        "gold     guaranteed         0          2  512 MiB  512 MiB    50%  1.0 GiB  1.0 GiB\n"
        "default  -                  0          2  512 MiB  512 MiB    50%      0 B  1.0 GiB\n"
        "\n"
        "Not kept:\n"
        "  - class gold (guaranteed) lacks 512 MiB\\x1b[2J\n"
        "\n"
        "Without a process:\n"
        "  - p.yaml:9:5: classes[0]: warning: class default has no process\n"
    )
    gold, rest = json.loads(tierctl("list", "classes", "--json").stdout)["classes"]
    assert gold["least_bytes"] == 1 << 30 and gold["broken"] and not rest["broken"]


@pytest.mark.service
def test_a_daemon_that_does_not_run_is_one_headline_and_status_3(bus: str) -> None:
    result = tierctl()
    assert (result.returncode, result.stderr) == (3, "")
    assert result.stdout == (
        "● tierd: not running\n"
        "      Try: systemctl start tierd\n"
        "  Offline: tierctl status --offline, history, list devices, provision plan\n"
    )
    assert json.loads(tierctl("--json").stdout) == {"running": False, "reason": "tierd is not running"}
    plan = tierctl("plan")
    assert (plan.returncode, plan.stdout) == (3, "")
    assert plan.stderr == "tierctl: tierd is not running (systemctl start tierd)\n"


def test_without_a_bus_it_says_so(tmp_path: Path) -> None:
    result = tierctl("plan", DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={tmp_path}/nothing")
    assert result.returncode == 3
    assert result.stderr.startswith("tierctl: the system bus cannot be reached: ")
    assert result.stderr.count("\n") == 1 and result.stderr.endswith("(systemctl start dbus)\n")
    status = tierctl(DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={tmp_path}/nothing")
    assert "Reason: the system bus cannot be reached: " in status.stdout
    assert "   Try: systemctl start dbus\n" in status.stdout


@pytest.mark.service
def test_a_daemon_that_hangs_is_given_up_on(serve: Serve) -> None:
    serve("silent")
    result = tierctl("status", TIERD_DBUS_TIMEOUT="0.3")
    assert result.returncode == 6
    assert result.stderr.startswith("tierctl: tierd did not answer in time (")


@pytest.mark.service
@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("org.freedesktop.DBus.Error.AccessDenied", 4, "not permitted (run it as root)"),
        ("org.tierd1.Error.NotAuthorized", 4, "the reason\\x1b[2J given (run it as root)"),
        ("org.tierd1.Error.NoSuchObject", 5, "the reason\\x1b[2J given"),
        ("org.tierd1.Error.TimedOut", 6, "the reason\\x1b[2J given"),
        ("org.tierd1.Error.InvalidPolicy", 78, "the reason\\x1b[2J given"),
        ("org.tierd1.Error.Internal", 1, "the reason\\x1b[2J given"),
        ("org.freedesktop.DBus.Error.NoReply", 6, "tierd did not answer in time"),
        ("org.freedesktop.DBus.Error.UnknownMethod", 1, "does not know this request"),
    ],
)
def test_errors_have_a_status_and_are_safe_to_print(serve: Serve, name: str, status: int, text: str) -> None:
    serve(name)
    result = tierctl("plan")
    assert (result.returncode, result.stdout) == (status, "")
    assert text in result.stderr and result.stderr.count("\n") == 1 and "\x1b" not in result.stderr


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "1e9"])
def test_a_bad_timeout_is_a_usage_error(value: str) -> None:
    result = tierctl("plan", TIERD_DBUS_TIMEOUT=value)
    assert result.returncode == 2 and "TIERD_DBUS_TIMEOUT must be seconds" in result.stderr


def test_offline_needs_no_daemon(tmp_path: Path) -> None:
    address = f"unix:path={tmp_path}/nothing"
    result = tierctl("status", "--offline", DBUS_SYSTEM_BUS_ADDRESS=address)
    assert (result.returncode, result.stderr) == (0, "")
    assert "TIER" in result.stdout or "no memory tiers" in result.stdout
    document = json.loads(tierctl("--offline", "--json", DBUS_SYSTEM_BUS_ADDRESS=address).stdout)
    assert document["running"] is None and isinstance(document["tiers"], list)


def test_check_config(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("version: 1\n")
    bad.write_text("version: 1\nengin: {}\nengine: {bandwidth: 5}\n")
    result = tierctl("check-config", str(good))
    assert (result.returncode, result.stdout) == (0, f"{good}: OK\n")
    result = tierctl("check-config", str(bad))
    assert result.returncode == 78
    assert [line.split(":")[1] for line in result.stderr.splitlines()] == ["2", "3"]


def test_check_config_as_json(tmp_path: Path) -> None:
    path = tmp_path / "draft: 1:2: x.yaml"
    path.write_text("version: 1\nengin: {}\nengine: {bandwidth: 5}\n")
    words, found = tierctl("check-config", str(path)), tierctl("check-config", "--json", str(path))
    assert (found.returncode, found.stderr) == (78, "")
    document = json.loads(found.stdout)
    assert (document["valid"], document["warnings"]) == (False, [])
    lines = ["{file}:{line}:{column}: {path}: {message}".format(**one) for one in document["problems"]]
    assert lines == words.stderr.splitlines() and [one["line"] for one in document["problems"]] == [2, 3]
    twice = "[{unit: a.slice}]"
    path.write_text(f"version: 1\nclasses: [{{name: a, match: {twice}}}, {{name: b, match: {twice}}}]\n")
    found = tierctl("check-config", "--json", str(path))
    (warning,) = json.loads(found.stdout)["warnings"]
    assert json.loads(found.stdout)["valid"] and (found.returncode, found.stderr) == (0, "")
    assert (warning["file"], warning["line"], warning["path"][:10]) == (str(path), 2, "classes[1]")
    assert not warning["message"].startswith("warning")
    (missing,) = json.loads(tierctl("check-config", "--json", "/nowhere.yaml").stdout)["problems"]
    assert (missing["file"], missing["line"], missing["path"]) == ("/nowhere.yaml", None, None)
    assert missing["message"].startswith("does not exist")


def test_a_request_that_the_policy_does_not_have(tmp_path: Path) -> None:
    draft = tmp_path / "draft.yaml"
    draft.write_text("version: 1\n")
    result = tierctl("provision", "plan", "pmem0", "--json", "--policy", str(draft))
    assert (result.returncode, result.stdout) == (5, "")
    assert result.stderr == f"tierctl: {draft} has no request named pmem0; there is none\n"
    result = tierctl("provision", "plan", "--policy", str(draft))
    assert result.returncode == 0 and "asks for no memory" in result.stdout


def test_version_help_and_wrong_arguments() -> None:
    assert tierctl("--version").stdout == "tierctl 0.1.0\n"
    help_text = tierctl("--help").stdout
    for command in ("status", "plan", "list", "provision", "check-config"):
        assert command in help_text
    assert tierctl("provision", "plan", "--help").stdout.startswith("usage: tierctl provision plan [-h] ")
    assert tierctl("stattus").returncode == 2
    assert tierctl("status", "--jsn").returncode == 2


def test_the_exit_statuses_are_documented_everywhere() -> None:
    from tierd.cli import Exit
    from tierd.cli.main import EPILOG

    man = (ROOT / "man/tierctl.1").read_text()
    for status in Exit:
        assert f"\n{status.value:4d}  " in EPILOG
        assert f".B {status.value}\n" in man


def test_asking_the_daemon_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, tierd.cli.main; assert tierd.cli.main.main(['plan']) == 3;"
        "print(*{'numpy', 'yaml', 'jsonschema', 'psutil', 'subprocess', 'tierd.kernel'} & set(sys.modules))"
    )
    nowhere = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/nothing"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=nowhere
    )
    assert result.stdout.strip() == ""
