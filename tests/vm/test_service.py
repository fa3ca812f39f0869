"""tierd.service under a real systemd: start, status, bus, journal, reload, watchdog, and who may do what."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.guest import Guest
from tierd.service import events

POLICY_PATH = "/etc/tierd/tierd.yaml"
POLICY = "version: 1\nprocesses: {include: [{unit: nothing.service}]}\n"
BAD = "version: 1\nengine:\n  mode: fast\n  speed: 9\n"
DROP_IN = "/run/systemd/system/tierd.service.d/test.conf"
OBJECT = "org.tierd1 /org/tierd1"
MANAGER = "org.tierd1.Manager"

# The daemon as installed, around an engine that stops moving after its first steps.
HANGING = """\
import time
from tierd.core.state import EngineState, State
from tierd.service import assembly

class Hanging:
    state = State(engine=EngineState.IDLE)
    steps = 0

    def step(self):
        self.steps += 1
        if self.steps > 3:
            time.sleep(3600)
        return 0.1

    def close(self):
        pass

assembly.create_engine = lambda *_: Hanging()

from tierd.__main__ import main
raise SystemExit(main([]))
"""


class Service:
    """tierd in a guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        # Only what this test run writes; the guest is shared.
        self.cursor = guest.output("journalctl -n 0 --show-cursor -o cat").split("cursor: ")[1].strip()

    def start(self) -> None:
        self.guest.run("systemctl reset-failed tierd 2>/dev/null; systemctl start tierd", timeout=240)

    def show(self, name: str) -> str:
        return self.guest.output(f"systemctl show -P {name} tierd").strip()

    def property(self, name: str, user: str = "root") -> Any:
        command = f"busctl --json=short get-property {OBJECT} {MANAGER} {name}"
        return json.loads(self.guest.output(f"runuser -u {user} -- {command}"))["data"]

    def journal(self, event: events.EventType | None = None) -> list[dict[str, Any]]:
        match = f"MESSAGE_ID={event.message_id}" if event else ""
        text = self.guest.output(f"journalctl -u tierd --after-cursor='{self.cursor}' -o json {match}")
        return [json.loads(line) for line in text.splitlines()]


pytestmark = pytest.mark.one_kernel


@pytest.fixture(scope="module")
def service(guest: Guest) -> Iterator[Service]:
    """tierd, running by a small policy; stopped, and the policy put back, at the end."""
    guest.run(f"cp -a {POLICY_PATH} /root/policy.before")
    guest.write(POLICY_PATH, POLICY)
    service = Service(guest)
    service.start()
    yield service
    guest.run(
        f"systemctl stop tierd; systemctl reset-failed tierd; mv /root/policy.before {POLICY_PATH}",
        check=False,
    )


def test_the_unit_starts_as_its_own_user_with_the_helpers_descriptors(service: Service) -> None:
    assert service.show("ActiveState") == "active" and service.show("NRestarts") == "0"
    pid = service.show("MainPID")
    assert service.guest.output(f"ps -o user= -p {pid}").strip() == "tierd"
    effective = re.search(r"CapEff:\t(\w+)", service.guest.output(f"cat /proc/{pid}/status"))
    assert effective is not None
    # CAP_DAC_READ_SEARCH 2, CAP_SYS_PTRACE 19, CAP_SYS_NICE 23 and no other
    assert int(effective[1], 16) == 1 << 2 | 1 << 19 | 1 << 23
    # One tier: the doors to settings stay shut, the generations, huge pages and two perf rings remain.
    assert int(service.show("NFileDescriptorStore")) >= 4
    # It opens and closes others meanwhile, of which ls complains.
    links = service.guest.run(f"ls -l /proc/{pid}/fd", check=False).stdout
    # Without the mount point in front: the daemon's own mount namespace does not have that mount.
    for door in ("/lru_gen", "/split_huge_pages", "anon_inode:[perf_event]"):
        assert door in links


def test_the_source_is_named_once_with_its_reason(service: Service) -> None:
    (chosen,) = service.journal(events.SOURCE_CHOSEN)
    assert chosen["TIERD_SOURCE"] == service.property("Source") == "hint faults"
    reason = service.property("SourceReason")
    assert chosen["TIERD_SOURCE_REASON"] == reason and "saw tierd touch memory of its own" in reason
    assert "PEBS and IBS (not in this CPU, or hidden)" in reason
    # 7.2 and later start DAMON_STAT by themselves; nothing of DAMON may be touched
    holder = service.guest.run("cat /sys/module/damon_stat/parameters/enabled", check=False).stdout.strip()
    assert ("DAMON (in use by damon_stat)" in reason) == (holder == "Y"), reason
    assert "Source: hint faults" in service.guest.output("tierctl status")


def test_systemctl_status_says_what_it_does(service: Service) -> None:
    text = service.show("StatusText")
    assert re.match(r"idle \(.+\): 1 tier, 0 processes in 0 cgroups, 0 MB/s, DRAM \d+ % full$", text), text
    assert service.property("StatusText").startswith("idle (")


def test_reading_is_open_to_all_and_changing_to_root_alone(service: Service) -> None:
    assert service.property("State", "nobody") == "idle"
    assert service.property("Tiers", "nobody")[0]["Kind"]["data"] == "dram"
    everything = service.guest.output(f"runuser -u nobody -- busctl introspect {OBJECT} {MANAGER}")
    assert ".StatusText" in everything and "degraded" not in everything
    plan = service.guest.run(f"runuser -u nobody -- busctl call {OBJECT} {MANAGER} GetPlan")
    assert plan.stdout.startswith("aa{sv} ")
    for command, says in (
        (f"busctl call {OBJECT} {MANAGER} Reload", "not permitted: "),
        (f"busctl call {OBJECT} {MANAGER} Pause u 60", "not permitted: "),
        (f"busctl call {OBJECT} {MANAGER} Explain u 1", "not permitted: "),
        (f"busctl set-property {OBJECT} {MANAGER} State s paused", "denied"),
    ):
        denied = service.guest.run(f"runuser -u nobody -- {command}", check=False)
        assert denied.returncode == 1 and says in denied.stderr.lower(), denied.stderr
        assert "cannot be asked" not in denied.stderr, "polkit answers"
    bus = "org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus"
    before = service.guest.output(f"busctl call {bus} GetNameOwner s org.tierd1")
    stolen = service.guest.run(
        f"runuser -u nobody -- busctl call {bus} RequestName su org.tierd1 3", check=False
    )
    assert stolen.returncode == 1 and "denied" in stolen.stderr.lower(), stolen.stderr
    assert service.guest.output(f"busctl call {bus} GetNameOwner s org.tierd1") == before
    service.guest.run(f"busctl call {OBJECT} {MANAGER} Reload")


def test_the_journal_has_fields_and_explanations(service: Service) -> None:
    started = service.journal(events.STARTED)[-1]
    assert started["TIERD_EVENT"] == "started" and started["PRIORITY"] == "6"
    assert started["TIERD_POLICY"] == POLICY_PATH and started["SYSLOG_IDENTIFIER"] == "tierd"
    assert started["MESSAGE"].startswith("tierd 0.")
    assert service.journal(events.TIER_APPEARED)[-1]["TIERD_TIER_KIND"] == "dram"
    assert all(isinstance(entry["MESSAGE"], str) for entry in service.journal())  # never an array of bytes
    explained = service.guest.output(
        f"journalctl -x -u tierd -n 1 MESSAGE_ID={events.STARTED.message_id} --no-pager"
    )
    assert f"tierd {started['TIERD_VERSION']} has read the policy {POLICY_PATH}" in explained


def test_reload(service: Service) -> None:
    version = int(service.guest.output("systemctl --version").split()[1])
    assert service.show("Type") == ("notify-reload" if version >= 253 else "notify")
    before = service.property("PolicyDigest")
    service.guest.write(POLICY_PATH, POLICY + "engine: {cooldown: 5s}\n")
    service.guest.run("systemctl reload tierd", timeout=120)
    assert service.property("PolicyDigest") != before, "it is in force when the command ends"
    service.guest.wait_for(
        f"journalctl -u tierd MESSAGE_ID={events.POLICY_ADOPTED.message_id} -q | grep -q ."
    )
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")


def test_a_bad_policy_fails_the_reload_and_the_older_one_stays(service: Service) -> None:
    before, pid = service.property("PolicyDigest"), service.show("MainPID")
    service.guest.write(POLICY_PATH, BAD)
    done = service.guest.run("systemctl reload tierd", check=False, timeout=120)
    assert done.returncode == 1
    assert service.show("ActiveState") == "active" and service.show("MainPID") == pid
    assert service.property("PolicyDigest") == before and service.property("ConfigState") == "rejected"
    service.guest.wait_for("systemctl show -P StatusText tierd | grep -q 'policy file refused'")
    refused = service.journal(events.POLICY_REJECTED)[-1]
    assert refused["PRIORITY"] == "3" and refused["SYSLOG_IDENTIFIER"] == "tierd"
    first, second = str(refused["TIERD_PROBLEMS"]).split("\n")
    assert first.startswith(f"{POLICY_PATH}:3:9: engine.mode:") and f"{POLICY_PATH}:4:3: " in second
    service.guest.write(POLICY_PATH, POLICY)
    service.guest.run(f"busctl call {OBJECT} {MANAGER} Reload")
    assert service.property("ConfigState") == "current"


def test_a_second_daemon_and_an_ordinary_user_are_told_in_one_line(service: Service) -> None:
    second = service.guest.run("tierd", check=False, timeout=120)
    assert second.returncode == 75 and "another tierd is running" in second.stderr
    ordinary = service.guest.run("runuser -u nobody -- tierd", check=False, timeout=120)
    assert ordinary.returncode == 77 and "CAP_SYS_PTRACE" in ordinary.stderr
    for done in (second, ordinary):
        assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


def test_the_unit_is_hardened(service: Service) -> None:
    text = service.guest.output("systemd-analyze security --no-pager tierd.service", timeout=120)
    exposure = re.search(r"exposure level for tierd.service: ([\d.]+)", text)
    assert exposure is not None and float(exposure[1]) <= 2.0


def test_a_stop_is_clean(service: Service) -> None:
    service.guest.run("systemctl stop tierd", timeout=120)
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
    assert service.show("NFileDescriptorStore") == "0"
    assert service.journal(events.STOPPED)[-1]["MESSAGE"] == "tierd stopped; memory stays where it is"
    assert service.journal(events.ENGINE_FAILED) == [] and service.journal(events.INTERNAL) == []
    assert not [entry for entry in service.journal() if "Traceback" in str(entry["MESSAGE"])]


def test_a_start_with_a_bad_policy_fails_once_with_78(service: Service) -> None:
    service.guest.write(POLICY_PATH, BAD)
    done = service.guest.run("systemctl start tierd", check=False, timeout=240)
    assert done.returncode == 1
    assert (service.show("ExecMainStatus"), service.show("ActiveState")) == ("78", "failed")
    assert service.show("NRestarts") == "0" and service.show("NFileDescriptorStore") == "0"
    failed = service.journal(events.START_FAILED)[-1]
    assert failed["PRIORITY"] == "3" and failed["TIERD_EXIT_STATUS"] == "78"
    assert len(str(failed["TIERD_PROBLEMS"]).split("\n")) == 2
    service.guest.write(POLICY_PATH, POLICY)


def test_an_engine_that_hangs_is_started_again_by_the_watchdog(service: Service) -> None:
    guest = service.guest
    guest.run("mkdir -p /opt/tierd-test " + DROP_IN.rpartition("/")[0])
    guest.write("/opt/tierd-test/hanging.py", HANGING)
    guest.write(
        DROP_IN,
        "[Service]\nWatchdogSec=4\nExecStart=\nExecStart=/usr/bin/python3 /opt/tierd-test/hanging.py\n",
    )
    guest.run("systemctl daemon-reload")
    try:
        service.start()
        guest.wait_for("test $(systemctl show -P NRestarts tierd) -ge 1", timeout=240)
        stalled = service.journal(events.ENGINE_STALLED)
        assert stalled and float(stalled[0]["TIERD_SECONDS"]) >= 2
        assert any("Watchdog timeout" in str(entry["MESSAGE"]) for entry in service.journal())
    finally:
        guest.run(
            f"systemctl stop tierd; rm -rf /opt/tierd-test {DROP_IN}; systemctl daemon-reload", timeout=120
        )
