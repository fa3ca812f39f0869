"""Kernel settings in a real server: tierd changes some while it runs, and leaves none changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.guest import Guest

DROP_IN = "/run/systemd/system/tierd.service.d/test.conf"
BALANCING = "/proc/sys/kernel/numa_balancing"
RATE_LIMIT = "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
POLICY = """\
version: 1
processes: {{include: [{{unit: nothing.service}}]}}
engine: {{mode: place}}
provision:
  - {{name: settings, region: {{iset_id: "{iset_id:#x}"}}, size: 512MiB, mode: apply}}
"""

# Every file that can be read below these, so that a setting nobody thought of is compared as well.
SNAPSHOT = r"""
import json, os
TREES = (
    "/proc/sys/kernel", "/proc/sys/vm", "/sys/kernel/mm", "/sys/kernel/debug/sched",
    "/sys/devices/system/memory/auto_online_blocks", "/sys/module/memory_hotplug/parameters",
    "/sys/module/damon_stat/parameters", "/sys/module/damon_reclaim/parameters",
    "/sys/module/damon_lru_sort/parameters",
)
found = {}
for tree in TREES:
    files = [tree] if os.path.isfile(tree) else [
        os.path.join(where, name) for where, _, names in os.walk(tree) for name in names
    ]
    for path in files:
        try:
            if os.stat(path).st_mode & 0o444:
                with open(path, "rb") as file:
                    found[path] = file.read(65536).decode(errors="replace").strip()
        except OSError:
            pass
print(json.dumps(found))
"""
# Counters, identifiers and statistics, which change by themselves.
NOT_A_SETTING = re.compile(
    r"/random/|/ns_last_pid|/pty/nr|/stats/|/full_scans|/pages_collapsed|/ksm/|/nr_hugepages|/free_hugepages"
    r"|/debug/sched/debug|/debug/sched/domains|/debug/sched/.*/stats|/tainted|/perf_event_max_sample_rate"
    r"|/damon_stat/parameters/(?!enabled$)|/hung_task_detect_count|/cad_pid|/mm/lru_gen/.*stat|/stat_refresh|/oops_count|/warn_count"
)


class Server:
    """The guest with tierd, and what a test does with it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def settings(self) -> dict[str, str]:
        values: dict[str, str] = json.loads(self.guest.run("python3 -", input=SNAPSHOT).stdout)
        return {path: value for path, value in values.items() if not NOT_A_SETTING.search(path)}

    def read(self, path: str) -> str:
        return self.guest.run(f"cat {path}").stdout.strip()

    def start(self) -> None:
        self.guest.run("systemctl reset-failed tierd 2>/dev/null; systemctl start tierd", timeout=180)

    def stop(self) -> None:
        self.guest.run("systemctl stop tierd", timeout=120)

    def kill(self) -> None:
        self.guest.run("systemctl kill --kill-whom=main --signal=KILL tierd")

    def state(self) -> str:
        return self.guest.run("systemctl is-active tierd", check=False).stdout.strip()

    def main_pid(self) -> int:
        return int(self.guest.run("systemctl show -P MainPID tierd").stdout)

    def drop_in(self, text: str) -> None:
        self.guest.run(f"mkdir -p {DROP_IN.rpartition('/')[0]}")
        self.guest.write(DROP_IN, f"[Service]\n{text}\n")
        self.guest.run("systemctl daemon-reload")

    def no_drop_in(self) -> None:
        self.guest.run(f"rm -f {DROP_IN}; systemctl daemon-reload")

    def journal(self) -> str:
        return self.guest.run("journalctl -u tierd --no-pager -o cat -b").stdout

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.guest.run("tierctl status --json", timeout=180).stdout))


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Settings that are not as they were: path, then the value before and after."""
    paths = sorted(before.keys() | after.keys())
    return {p: (before.get(p), after.get(p)) for p in paths if before.get(p) != after.get(p)}


@pytest.fixture(scope="module")
def untiered(changing_guest: Guest) -> Server:
    """tierd stopped, and DRAM alone."""
    region = json.loads(changing_guest.run("ndctl list -R").stdout)[0]
    changing_guest.write("/etc/tierd/tierd.yaml", POLICY.format(iset_id=region["iset_id"] % 2**64))
    return Server(changing_guest)


@pytest.fixture(scope="module")
def tiered(untiered: Server) -> Server:
    """tierd stopped, and slow memory online behind DRAM. Tests of one tier come before, in file order."""
    untiered.guest.run("systemctl start tierd-convert@settings", timeout=180)
    return untiered


@pytest.fixture
def server(tiered: Server) -> Iterator[Server]:
    tiered.stop()
    yield tiered
    tiered.no_drop_in()
    tiered.stop()


@pytest.mark.slow
@pytest.mark.one_kernel
def test_one_tier_leaves_every_setting_alone(untiered: Server) -> None:
    before = untiered.settings()
    untiered.start()
    running = untiered.settings()
    untiered.stop()
    assert differences(before, running) == {}
    assert differences(before, untiered.settings()) == {}


def test_after_a_stop_every_setting_is_as_before(server: Server) -> None:
    before = server.settings()
    server.start()
    running = differences(before, server.settings())
    # Without these the comparison would prove nothing.
    assert running[BALANCING] == ("0", "2")
    assert running[RATE_LIMIT] == ("65536", "0")
    assert running[DEMOTION] == ("false", "true")
    _assert_doors_are_held(server)
    server.stop()
    assert differences(before, server.settings()) == {}
    assert server.guest.run("ls /run/tierd/settings.json", check=False).returncode != 0
    assert server.guest.run("systemctl show -P NFileDescriptorStore tierd").stdout.strip() == "0"


@pytest.mark.slow
@pytest.mark.one_kernel
def test_demotion_follows_the_mode_of_the_policy(server: Server) -> None:
    before = server.settings()
    change = "sed -i 's/mode: {}/mode: {}/' /etc/tierd/tierd.yaml"
    server.guest.run(change.format("place", "observe"))
    server.start()
    assert (server.read(BALANCING), server.read(DEMOTION)) == ("2", "false")
    server.guest.run(f"{change.format('observe', 'place')} && systemctl reload tierd")
    server.guest.wait_for(f"grep -q true {DEMOTION}", timeout=60)
    server.guest.run(f"{change.format('place', 'observe')} && systemctl reload tierd")
    server.guest.wait_for(f"grep -q false {DEMOTION}", timeout=60)
    server.guest.run(change.format("observe", "place"))
    server.stop()
    assert differences(before, server.settings()) == {}


def _assert_doors_are_held(server: Server) -> None:
    """The daemon is an ordinary user and has what only root may open."""
    pid = server.main_pid()
    assert server.guest.run(f"stat -c %U /proc/{pid}").stdout.strip() == "tierd"
    held = server.guest.run(f"readlink /proc/{pid}/fd/*", check=False).stdout  # some close meanwhile
    for door in ("lru_gen", "split_huge_pages", "scan_size_mb", "demotion_enabled"):
        assert door in held, held
    assert held.count("anon_inode:[perf_event]") >= 2, held  # mapping one makes a second descriptor of it


def test_after_a_kill_every_setting_is_as_before(server: Server) -> None:
    before = server.settings()
    server.drop_in("Restart=no")
    server.start()
    assert server.read(BALANCING) == "2"
    server.kill()
    server.guest.wait_for("systemctl is-failed tierd", timeout=60)
    assert differences(before, server.settings()) == {}


@pytest.mark.slow
@pytest.mark.one_kernel
def test_a_killed_daemon_comes_back_and_forgets_nothing(server: Server) -> None:
    before = server.settings()
    server.start()
    killed = server.main_pid()
    server.kill()
    server.guest.wait_for(
        f"systemctl is-active tierd && test $(systemctl show -P MainPID tierd) != {killed}", timeout=180
    )
    assert server.read(BALANCING) == "2"
    server.stop()
    assert differences(before, server.settings()) == {}


@pytest.mark.one_kernel
def test_a_crash_that_nobody_cleaned_up_after_is_made_good_by_the_next_run(server: Server) -> None:
    before = server.settings()
    server.drop_in("Restart=no\nExecStopPost=")
    server.start()
    server.kill()
    server.guest.wait_for("systemctl is-failed tierd", timeout=60)
    assert server.read(BALANCING) == "2", "the crash was cleaned up after, and the test proves nothing"
    server.no_drop_in()
    server.start()
    assert not any("kernel tiering is on" in line for line in server.status()["missing"])
    server.stop()
    assert differences(before, server.settings()) == {}


@pytest.mark.slow
@pytest.mark.one_kernel
def test_a_setting_that_somebody_else_changed_meanwhile_stays(server: Server) -> None:
    before = server.settings()
    server.start()
    server.guest.run(f"echo 1234 > {RATE_LIMIT}")
    server.stop()
    assert differences(before, server.settings()) == {RATE_LIMIT: ("65536", "1234")}
    assert f"{RATE_LIMIT}: left at 1234, which somebody else has set (it was 65536)" in server.journal()
    server.guest.run(f"echo 65536 > {RATE_LIMIT}")


@pytest.mark.one_kernel
def test_kernel_tiering_of_somebody_else_is_named_and_left_alone(server: Server) -> None:
    server.guest.run(f"echo 2 > {BALANCING}")
    try:
        before = server.settings()
        server.start()
        assert differences(before, server.settings()) == {}
        assert any("kernel tiering is on and not ours" in line for line in server.status()["missing"])
        server.stop()
        assert differences(before, server.settings()) == {}
    finally:
        server.guest.run(f"echo 0 > {BALANCING}")
