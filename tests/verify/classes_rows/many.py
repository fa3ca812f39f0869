"""Five hundred processes in fifty cgroups that start and die, and the class of each, by its own script."""

from __future__ import annotations

import json

from tests.verify.table import Figure, Row, Stage
from tests.vm import scenario

UNITS, CHILDREN = 10, 10
"""Of each of five kinds: cgroups, and processes in each."""
PASSES = 5
SECONDS = 30
"""For which a process lives at most."""
KINDS = {
    "gold": "--slice=gold.slice",
    "silver": "--slice=silver.slice",
    "worker": "",
    "batch": "--uid=nobody",
    "default": "",
}
_CLASSES = """classes:
  - {name: gold, match: [{unit: gold.slice}], dram: guaranteed}
  - {name: silver, match: [{cgroup: "/silver.slice/*"}], dram: {min: 10%}}
  - {name: worker, match: [{command: "work*"}], priority: 3}
  - {name: batch, match: [{user: nobody}], dram: {max: 50%}}
"""
# What the rules say of a process, and what tierd answers. Those that end meanwhile are no answer.
_ASK = r"""
import json, os, pwd, re
from gi.repository import Gio, GLib
bus = Gio.bus_get_sync(Gio.BusType.SYSTEM)
nobody = pwd.getpwnam("nobody").pw_uid

def expected(pid):
    cgroup = open(f"/proc/{pid}/cgroup").read().split("::")[1].strip()
    status = open(f"/proc/{pid}/status").read()
    if not re.match(r"^/(?:[a-z]+\.slice/)+m-[a-z]+-\d+\.service$", cgroup):
        return None
    if int(re.search(r"VmRSS:\s+(\d+)", status)[1]) < 1100:
        return None
    if cgroup.startswith("/gold.slice/"):
        return "gold"
    if cgroup.startswith("/silver.slice/"):
        return "silver"
    if open(f"/proc/{pid}/comm").read().startswith("work"):
        return "worker"
    return "batch" if int(re.search(r"Uid:\s+\d+\s+(\d+)", status)[1]) == nobody else "default"

found = {"asked": 0, "wrong": [], "by": {}}
for pid in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
    try:
        before = expected(pid)
        if before is None:
            continue
        answer = bus.call_sync("org.tierd1", "/org/tierd1", "org.tierd1.Manager", "Explain",
            GLib.Variant("(u)", (int(pid),)), None, 0, 60000, None).unpack()[0]
        after = expected(pid)
    except (OSError, TypeError, GLib.Error):
        continue
    if before == after:
        found["asked"] += 1
        found["by"][before] = found["by"].get(before, 0) + 1
        if answer["Class"] != before:
            found["wrong"].append([pid, before, answer["Class"], answer["Rule"]])
shown = bus.call_sync("org.tierd1", "/org/tierd1", "org.freedesktop.DBus.Properties", "Get",
    GLib.Variant("(ss)", ("org.tierd1.Manager", "Classes")), None, 0, 60000, None).unpack()[0]
found["shown"] = {one["Name"]: one["Processes"] for one in shown}
print(json.dumps(found))
"""
_CPU = "cat /proc/$(systemctl show -P MainPID tierd)/stat /proc/uptime"


def many(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        program = scenario.put_program(guest, "churn")
        units = [f"m-{kind}-{number}.service" for kind in KINDS for number in range(UNITS)]
        placed = ["gold.slice", "silver.slice", *units]
        policy = scenario.policy(region, units=placed, engine="minimum_process: 1MiB")
        guest.write(scenario.POLICY, policy + _CLASSES)
        try:
            # first: the kernel demotes nothing by itself, and what it needs for 500 processes has to be DRAM
            scenario.start_tierd(guest)
            for kind, options in KINDS.items():
                name = "work" if kind in ("gold", "worker") else "job"
                guest.run(
                    f"for n in $(seq 0 {UNITS - 1}); do systemd-run --quiet --unit=m-{kind}-$n {options}"
                    f" {program} --children {CHILDREN} --size 1 --seconds {SECONDS} --name {name}-$n; done",
                    timeout=300,
                )
            guest.run("sleep 20")
            begun = _cpu(guest.output(_CPU))
            answers = [guest.run("python3 -", input=_ASK, timeout=400).stdout for _ in range(PASSES)]
            ended = _cpu(guest.output(_CPU))
        finally:
            scenario.stop_tierd(guest)
            guest.run(f"systemctl stop {' '.join(units)}; systemctl reset-failed", timeout=300, check=False)
        passes = [json.loads(answer) for answer in answers]
        asked = sum(one["asked"] for one in passes)
        wrong = [answer for one in passes for answer in one["wrong"]]
        kinds = min(min(one["by"].get(kind, 0) for kind in KINDS) for one in passes)
        processes = [sum(one["shown"].values()) for one in passes]
        cpu = (ended[0] - begun[0]) / max(1.0, ended[1] - begun[1])
        text = (
            f"{asked} answers in {PASSES} passes over {len(units) * CHILDREN} processes, {len(wrong)} wrong;"
            f" {min(processes)} to {max(processes)} placed; tierd took {cpu:.1%} of a CPU, answers included"
        ) + (f": {wrong[:3]}" if wrong else "")
        holds = not wrong and asked >= 300 * PASSES and kinds >= 30 and min(processes) >= 300
        return Figure(holds, text, {"kernel": kernel, "asked": asked, "wrong": len(wrong), "cpu": cpu})

    return Row(
        f"many-processes-{kernel}",
        f"500 processes in 50 cgroups, starting and dying: the class of each, Linux {kernel}",
        "the one that the rules say, by a script of its own",
        measure,
    )


def _cpu(text: str) -> tuple[float, float]:
    """Seconds of CPU that tierd has had, and the time, in seconds."""
    stat, uptime = text.splitlines()
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100, float(uptime.split()[0])
