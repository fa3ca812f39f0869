"""Clocks that jump, pauses of all kinds, and services that are gone for a while."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.contenders import guest_time
from tests.faults import inject
from tests.faults.case import SETTINGS, Case, Scene, Seen
from tests.vm.guest import GuestError

PAUSE, FREEZE = 30, 75
"""Seconds; the watchdog of the unit waits for 60."""
STOPPED_SECONDS = 20
RESTARTS = 5
_READY = "busctl status org.tierd1"


def _stepped(step: str) -> Callable[[Scene], Seen]:
    def play(scene: Scene) -> Seen:
        faults = []
        with inject.clock(scene.guest, step):
            try:
                text = f"placing after {scene.comes_up():.0f} s"
            except GuestError:
                text = ""
                faults.append("tierd places nothing while the clock is wrong")
            report = scene.guest.run("tierctl report", check=False, timeout=120)
            if report.returncode:
                faults.append(f"tierctl report: exit status {report.returncode}: {report.stderr[-200:]}")
        return Seen(1, faults, text)

    return play


def _paused(scene: Scene) -> Seen:
    """The clocks of the server stand still meanwhile."""
    before = guest_time(scene.guest)
    with inject.paused(scene.guest):
        time.sleep(PAUSE)
    passed = guest_time(scene.guest) - before
    return Seen(int(passed < PAUSE), (), f"{PAUSE} s, of which the server saw {passed:.0f}")


def _frozen(scene: Scene) -> Seen:
    """They go on meanwhile, as in a suspended host: to the server it is one long moment."""
    before = guest_time(scene.guest)
    os.kill(scene.guest.pid, signal.SIGSTOP)
    try:
        time.sleep(FREEZE)
        state = Path(f"/proc/{scene.guest.pid}/stat").read_text().rpartition(")")[2].split()[0]
    finally:
        os.kill(scene.guest.pid, signal.SIGCONT)
    jumped = guest_time(scene.guest) - before
    again = int(scene.guest.output("systemctl show -P NRestarts tierd"))
    return Seen(
        int(state == "T" and jumped >= FREEZE), (), f"a jump of {jumped:.0f} s, {again} restarts so far"
    )


def _stopped(unit: str, seconds: int, busy: str = "true") -> Callable[[Scene], Seen]:
    """busy: what goes on in the guest meanwhile."""

    def play(scene: Scene) -> Seen:
        with inject.frozen(scene.guest, unit):
            scene.guest.run(f"timeout 20 sh -c {busy!r}; sleep {seconds}", timeout=seconds + 90)
        return Seen(1, (), f"{seconds} s")

    return play


def _restarted(unit: str, times: int) -> Callable[[Scene], Seen]:
    def play(scene: Scene) -> Seen:
        pid = f"systemctl show -P MainPID {unit}"
        had = {scene.guest.output(pid)}
        for _ in range(times):
            scene.guest.run(f"systemctl restart {unit}; sleep 3", timeout=120)
            had.add(scene.guest.output(pid))
        faults = []
        try:
            scene.guest.wait_for(_READY, timeout=60)
        except GuestError:
            faults.append("the name on the bus does not come back")
        return Seen(len(had) - 1, faults, f"{unit} {len(had) - 1} times another process")

    return play


def _without(unit: str) -> Callable[[Scene], Seen]:
    def play(scene: Scene) -> Seen:
        guest, faults = scene.guest, []
        guest.run(f"systemctl mask --runtime --now {unit}", timeout=60)
        try:
            state = guest.run(f"systemctl is-active {unit}", check=False).stdout.strip()
            if guest.run("tierctl status", check=False, timeout=120).returncode:
                faults.append("tierctl status does not answer")
            denied = guest.run("runuser -u nobody -- tierctl pause 60s", check=False, timeout=120)
            if not denied.returncode:
                faults.append("somebody may pause tierd of whom nobody knows what he may do")
        finally:
            guest.run(f"systemctl unmask --runtime {unit}", timeout=60)
        return Seen(int(state != "active"), faults)

    return play


def _full_run(scene: Scene) -> Seen:
    guest, faults = scene.guest, []
    with inject.full(guest, "/run"):
        done = guest.run("systemctl restart tierd", check=False, timeout=240)
        state = scene.server.state()
        told = guest.output("journalctl -o cat -u tierd -n 40 | grep -c 'No space left' || true")
    if done.returncode and told == "0":
        faults.append("tierd does not start, and nobody is told why")
    scene.server.start()
    return Seen(1, faults, f"tierd was {state} meanwhile")


_FLOOD = "while :; do logger -t noise 0123456789abcdef; done"
CASES = (
    Case("clock-forward", "F7", "the wall clock ten years ahead: placing goes on, reports are shown",
         _stepped("10 years")),
    Case("clock-back", "F7", "the wall clock ten years back: placing goes on, reports are shown",
         _stepped("10 years ago")),
    Case("server-paused", "F7", f"the whole server stopped for {PAUSE} s, with its clocks", _paused),
    Case("server-frozen", "F7", f"the whole server stopped for {FREEZE} s, and its clocks go on", _frozen,
         restarts=None),
    Case("daemon-stopped", "F11", f"the daemon stopped for {STOPPED_SECONDS} s",
         _stopped("tierd", STOPPED_SECONDS)),
    Case("daemon-hung", "F11", "the daemon stopped for longer than the watchdog waits: started again, once",
         _stopped("tierd", FREEZE), restarts=1),
    Case("dbus-restarts", "G9", f"dbus started anew {RESTARTS} times: the name comes back",
         _restarted("dbus", RESTARTS)),
    Case("dbus-restarts-50", "G9", "dbus started anew 50 times: the name comes back",
         _restarted("dbus", 50), long=True),
    Case("journal-restarts", "G9", f"the journal started anew {RESTARTS} times",
         _restarted("systemd-journald", RESTARTS)),
    Case("journal-hangs", "F11", f"a journal that takes nothing for {FREEZE} s, with its queue full",
         _stopped("systemd-journald", FREEZE, _FLOOD)),
    Case("run-full", "F8", "a restart with /run full: told, or done without", _full_run, restarts=None),
    Case("no-polkit", "G1", "without polkit everybody may look and nobody but root may order",
         _without("polkit")),
    SETTINGS,
)  # fmt: skip
