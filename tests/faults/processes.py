"""Processes that tierd places and that do not behave: numbers used again, storms, changes of identity, names
made to deceive, and ends at the worst moment."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.faults import inject
from tests.faults.case import COMES_UP, FORGED, MIB, SETTINGS, Case, Scene, Seen
from tests.faults.names import NAMES
from tests.vm import scenario
from tests.vm.records import PAGE
from tests.vm.test_service import Service

HERE = Path(__file__).parent
REUSES = 10
STORM_SECONDS = 40
LEAST_ENDS = 1000
VANISHED = 200
KILLS = 5
STOPPED_SECONDS = 20
COUNTED_NEWCOMERS, APART = 3, 0.01
_OTHER = "/sys/fs/cgroup/system.slice/other.service"
_COUNTERS = "busctl --json=short get-property org.tierd1 /org/tierd1 org.tierd1.Manager Counters"
_SLICE = "/sys/fs/cgroup/twins.slice"
_RUN = "systemd-run --quiet --unit={unit} --property=CPUWeight=10 {more}"
# The name of one is not UTF-8, and the other is its twin. Cold memory of both is touched once, in DRAM.
_TWINS = r"""
rm -f /run/twins
echo '+cpuset +memory' > /sys/fs/cgroup/cgroup.subtree_control
mkdir TWINS
echo '+cpuset +memory' > TWINS/cgroup.subtree_control
for name in "$(printf 'odd\377')" even; do
  at="TWINS/$name"
  mkdir "$at"
  echo 0 > "$at/cpuset.mems"
  (echo $BASHPID > "$at/cgroup.procs"; exec python3 -c "
import time
memory = bytearray(60 << 20)
for at in range(0, len(memory), 4096): memory[at] = 1
print('ready', file=open('/run/twins', 'a'), flush=True)
time.sleep(10000)" < /dev/null > /dev/null 2>&1) &
done
"""
_NO_TWINS = """
echo 1 > TWINS/cgroup.kill
for try in $(seq 50); do rmdir TWINS/*/ TWINS && break; sleep 0.1; done 2>/dev/null
"""
_VANISH = """
for n in $(seq TIMES); do
  at=/sys/fs/cgroup/system.slice/other.service/v$n
  mkdir $at && (echo $BASHPID > $at/cgroup.procs; head -c 8M /dev/zero | tail -c 5M | wc -c > /dev/null)
  rmdir $at && gone=$((gone + 1))
done
echo $((gone)) > /run/vanished
"""
# Becomes another program every 4 s with the same number, and another user's the first time.
_CHANGING = """
import mmap, os, sys, time
number = int(sys.argv[1])
memory = mmap.mmap(-1, 32 << 20)
until = time.monotonic() + 4
while time.monotonic() < until:
    for at in range(0, len(memory), 4096): memory[at] = 1
    time.sleep(0.05)
print(number, flush=True)
if number == 1: os.setuid(65534)
os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:-1], str(number + 1)])
"""


def _pid_reuse(scene: Scene) -> Seen:
    guest = scene.guest
    guest.put(HERE / "reuse.py", "/usr/local/lib/reuse.py")
    guest.run(_RUN.format(unit="other", more="sleep 10000"))
    try:
        said = guest.output(f"python3 /usr/local/lib/reuse.py {REUSES} {_OTHER}", timeout=60 * REUSES)
    finally:
        scene.stop("other")
    found = json.loads(said)
    faults = [f"{found[what]} newcomers {what}" for what in ("split", "moved") if found[what]]
    if not found["placed"]:
        faults.append("tierd did nothing to those whose numbers were used again")
    return Seen(found["used"], faults, f"{found['placed']} were placed before")


def _not_utf_8(scene: Scene) -> Seen:
    guest = scene.guest
    guest.run(_TWINS.replace("TWINS", _SLICE))
    try:
        guest.wait_for("[ $(wc -l < /run/twins) -eq 2 ]", timeout=90)
        before = scene.counter("pgdemote_")
        with inject.little_room(guest, 0, 150):
            scene.newcomer()
            guest.run("sleep 25")
            accounts = guest.output(f"cat {_SLICE}/{{even,odd*}}/memory.numa_stat | grep '^anon '")
        demoted = scene.counter("pgdemote_") - before
    finally:
        guest.run(_NO_TWINS.replace("TWINS", _SLICE), check=False)
    # up to 6.15 the kernel itself takes pages of both down
    even, odd = (int(found) for found in re.findall(r"N1=(\d+)", accounts))
    faults = [f"{(odd - even) >> 20} MiB more of it on the slow node"] if odd > even + MIB else []
    return Seen(int(demoted > 0), faults, f"{demoted} pages demoted meanwhile, {even} bytes of its twin")


def _fork_storm(scene: Scene) -> Seen:
    guest = scene.guest
    program = scenario.put_program(guest, "churn")
    count = "awk '/^processes/ {print $2}' /proc/stat"
    with inject.written(guest, {"/proc/sys/kernel/pid_max": "1200"}):
        before = int(guest.output(count))
        more = f"{program} --children 60 --size 1 --seconds 0.3"
        guest.run(_RUN.format(unit="other", more=more))
        guest.run(f"sleep {STORM_SECONDS}")
        scene.stop("other")
        ended = int(guest.output(count)) - before
    return Seen(int(ended >= LEAST_ENDS), (), f"{ended} processes in {STORM_SECONDS} s, of 1,200 numbers")


def _vanish(scene: Scene) -> Seen:
    guest = scene.guest
    guest.write("/run/vanish.sh", _VANISH.replace("TIMES", str(VANISHED)))
    more = "--property=Delegate=yes bash /run/vanish.sh"
    guest.run("rm -f /run/vanished; " + _RUN.format(unit="other", more=more))
    try:
        guest.wait_for("[ -s /run/vanished ]", timeout=240)
    finally:
        scene.stop("other")
    gone = int(guest.output("cat /run/vanished"))
    return Seen(int(gone == VANISHED), (), f"{gone} cgroups came and went")


def _changing(scene: Scene) -> Seen:
    guest = scene.guest
    guest.write("/run/changing.py", _CHANGING)
    more = "--property=StandardOutput=file:/run/changing.txt python3 /run/changing.py 1"
    guest.run("rm -f /run/changing.txt; " + _RUN.format(unit="other", more=more))
    guest.run("sleep 30")
    changes = len(guest.output("cat /run/changing.txt").splitlines())
    user = guest.output("stat -c %u /proc/$(systemctl show -P MainPID other)")
    scene.stop("other")
    return Seen(changes if user == "65534" else 0, (), f"{changes} times another program, as user {user}")


def _zombie_leader(scene: Scene) -> Seen:
    guest = scene.guest
    program = scenario.put_program(guest, "owner")
    guest.run(_RUN.format(unit="other", more=f"--property=Type=exec {program} --zombie"))
    guest.run("sleep 15")
    pid = guest.output(f"head -n 1 {_OTHER}/cgroup.procs 2>/dev/null || true") or "0"
    state = guest.output(f"awk '/^State/ {{print $2}}' /proc/{pid}/status 2>/dev/null || true")
    threads = guest.output(f"ls /proc/{pid}/task 2>/dev/null | wc -l")
    scene.stop("other")
    return Seen(int(state == "Z" and int(threads) > 1), (), f"state {state or '-'} of {threads} threads")


def _stopped(scene: Scene) -> Seen:
    with inject.frozen(scene.guest, "load"):
        scene.guest.run(f"sleep {STOPPED_SECONDS}")
        scene.comes_up()
    return Seen(1, (), f"{STOPPED_SECONDS} s and longer")


def _exit_in_a_move(scene: Scene) -> Seen:
    scene.newcomer("other")
    with inject.strace(scene.guest, "move_pages:delay_exit=200000") as injected:
        for number in range(1, KILLS + 1):
            injected.wait(number)
            scene.guest.run("systemctl kill --signal=KILL other", check=False)
            scene.newcomer("other")
    scene.stop("other")
    return Seen(injected.calls, (), f"{KILLS} processes killed while calls of move_pages took 200 ms longer")


def _hidepid(scene: Scene) -> Seen:
    guest = scene.guest
    guest.run("mount -o remount,hidepid=2 /proc")
    try:
        hidden = guest.run("runuser -u nobody -- ls -d /proc/1", check=False).returncode != 0
        scene.comes_up()
    finally:
        guest.run("mount -o remount,hidepid=0 /proc")
    return Seen(int(hidden), (), "placing meanwhile")


def _hostile_names(scene: Scene) -> Seen:
    guest, journal = scene.guest, Service(scene.guest)
    guest.put(HERE / "names.py", "/run/names.py")
    guest.run(_RUN.format(unit="other", more="python3 /run/names.py"))
    try:
        guest.run("sleep 20")
        pids = guest.output(f"cat {_OTHER}/cgroup.procs").split()
        shown = guest.output("tierctl list processes", timeout=120)
        explained = [
            guest.run(["tierctl", "explain", pid], check=False, timeout=60).stdout for pid in pids[1:4]
        ]
    finally:
        scene.stop("other")
    entries = journal.journal()
    lines = [line for text in (shown, *explained) for line in text.split("\n")]
    forged = sum(str(entry.get("MESSAGE")).lstrip().startswith("FORGED") for entry in entries)
    forged += sum(line.startswith("FORGED") for line in lines)
    odd = sum(not isinstance(entry.get("MESSAGE"), str) for entry in entries)
    raw = sum("\x1b" in line or "\r" in line for line in lines)
    faults = [f"{count} {words}" for count, words in (
        (forged, "forged lines"), (odd, "messages that are no text"), (raw, "lines with control characters"),
    ) if count]  # fmt: skip
    return Seen(
        len(pids) - 1, faults, f"{len(entries)} entries, {len(lines)} lines", {FORGED: (forged, len(NAMES))}
    )


def _movement(scene: Scene) -> tuple[int, int]:
    """Base pages moved so far, by the kernel's account and by tierd's own, which is what is tried here."""
    scene.guest.run("tierctl pause 120s; sleep 3", timeout=90)
    told = json.loads(scene.guest.output(_COUNTERS))["data"]
    found = scene.counter("pgmigrate_success")
    scene.guest.run("tierctl resume", timeout=60)
    return found, sum(int(told[name]["data"]) for name in ("PromotedPages", "DemotedPages"))


def _counters(scene: Scene) -> Seen:
    kernel, tierd = _movement(scene)
    for _ in range(COUNTED_NEWCOMERS):
        scene.comes_up("other")
    kernel, tierd = (now - before for now, before in zip(_movement(scene), (kernel, tierd), strict=True))
    scene.stop("other")
    apart = abs(tierd - kernel) / max(1, kernel)
    faults = [f"{apart:.1%} apart"] if apart > APART else []
    text = f"{kernel} pages moved by the kernel's account, {tierd} by tierd's"
    return Seen(int(kernel >= COUNTED_NEWCOMERS * COMES_UP // PAGE), faults, text)


CASES = (
    Case("pid-reuse", "E1", "who gets the number of a process that tierd placed is not split and not moved",
         _pid_reuse),
    Case("cgroup-not-utf8", "E7", "a cgroup whose name is not UTF-8 keeps its cpuset, as its twin does",
         _not_utf_8),
    Case("fork-storm", "C12", "sixty processes that live for a third of a second, with few numbers",
         _fork_storm),
    Case("cgroups-vanish", "E5", f"{VANISHED} cgroups that vanish with their processes", _vanish),
    Case("exec-setuid", "E2", "a process that becomes another program, and another user's", _changing),
    Case("zombie-leader", "E3", "a process whose first thread has ended", _zombie_leader),
    Case("sigstop", "C12", "a load that is stopped, while others go on", _stopped),
    Case("exit-in-a-move", "C12", "processes killed while their pages are moved", _exit_in_a_move),
    Case("hidepid", "E8", "a /proc that shows nobody the processes of others", _hidepid),
    Case("hostile-names", "E7", f"{len(NAMES)} names made to forge lines", _hostile_names),
    Case("counters", "G10", f"tierd counts what the kernel counts, within {APART:.0%}", _counters),
    SETTINGS,
)  # fmt: skip
