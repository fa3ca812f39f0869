"""A share that changes while a workload runs, and one that is to be the same after every reboot."""

from __future__ import annotations

import hashlib
import time

from tests.verify.provisioning_rows.server import Witnessed, ready
from tests.verify.table import Figure, Row, Stage
from tests.vm import host
from tests.vm.guest import Guest, GuestError

WORKLOAD = "/run/checksummed"
WORKLOAD_MIB = 640
STEPS = (("2GiB", 16), ("all but 3GiB", 7), ("1280MiB", 10), ("640MiB", 5), ("1GiB", 8))
"""Sizes one after the other, with the blocks that each comes to. A file system is made of what the second
gives back."""
FILE_SYSTEM_AFTER = 1
REBOOTS, MANY_REBOOTS = 3, 20

_MAKE_FILE_SYSTEM = """
ndctl create-namespace -r {region} -m fsdax -s 512M -n data && udevadm settle
device=$(ndctl list -N | python3 -c 'import json, sys
print([n["blockdev"] for n in json.load(sys.stdin) if n.get("name") == "data"][0])')
echo /dev/$device > /run/device
mke2fs -q -F -t ext4 /dev/$device && mkdir -p /mnt/data && mount /dev/$device /mnt/data &&
head -c 64M /dev/urandom > /mnt/data/file && sha256sum /mnt/data/file > /run/sum && umount /mnt/data
"""
_FILE_SYSTEM_HOLDS = (
    "mount $(cat /run/device) /mnt/data && sha256sum -c /run/sum; code=$?; umount /mnt/data;"
    " e2fsck -fn $(cat /run/device) && exit $code"
)


def growth(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        server = ready(stage, kernel)
        guest = server.guest
        guest.put(host.ROOT / "tests/vm/checksummed.py", f"{WORKLOAD}.py")
        faults = [f"1GiB: exit status {code}"] if (code := server.converted("1GiB")) else []
        guest.run(f"systemd-run --unit=load python3 {WORKLOAD}.py {WORKLOAD_MIB} {WORKLOAD}.status")
        guest.wait_for(f"[ -s {WORKLOAD}.status ]", timeout=180)
        used = "awk '/MemUsed/ {print $4}' /sys/devices/system/node/node1/meminfo"
        placed = int(guest.output(used)) >> 10
        sizes = []
        for number, (size, blocks) in enumerate(STEPS):
            code = server.converted(size)
            faults += [f"{size}: exit status {code}"] if code else []
            faults += [f"{size}: {words}" for words in server.state().faults(blocks)]
            sizes.append(server.blocks().count("online Movable"))
            if number == FILE_SYSTEM_AFTER:
                guest.run(_MAKE_FILE_SYSTEM.format(region=server.region.name), timeout=240)
            if number >= FILE_SYSTEM_AFTER and guest.run(_FILE_SYSTEM_HOLDS, check=False).returncode:
                faults.append(f"{size}: the file system has changed")
        guest.run("systemctl stop load", timeout=240)
        rounds, bad, state = guest.output(f"cat {WORKLOAD}.status").split()
        guest.run("systemctl reset-failed load", check=False)
        text = (
            f"{' '.join(map(str, sizes))} blocks in turn under {WORKLOAD_MIB} MiB in use, {placed} of them"
            f" on the slow node at first: {bad} bad chunks in {rounds} rounds, {len(faults)} faults"
        ) + (": " + "; ".join(faults[:3]) if faults else "")
        holds = not faults and bad == "0" and state == "ended" and int(rounds) > 100 and placed > 500
        return Figure(holds, text, {"kernel": kernel, "faults": faults, "rounds": int(rounds)})

    return Row(
        f"growth-{kernel}",
        "grow, shrink, grow, shrink, grow under a workload that checks itself, and a file system in the"
        f" space that is given back, Linux {kernel}",
        "0 bad chunks, the file system whole",
        measure,
    )


def reboots(kernel: str, count: int) -> Row:
    def measure(stage: Stage) -> Figure:
        server = ready(stage, kernel)
        guest = server.guest
        others = {"data": server.sentinel()}
        faults = [f"exit status {code}"] if (code := server.converted("512MiB")) else []
        # two slices, which is more to bring back than one
        faults += [f"exit status {code}"] if (code := server.converted("1GiB")) else []
        guest.run("systemctl enable tierd-convert@test")
        before, sums = _everything(server), server.checksums(others)
        seconds, same = [], 0
        for number in range(count):
            host.say(f"reboot {number + 1} of {count}")
            seconds.append(_reboot(guest))
            now = _everything(server)
            same += now == before
            if now != before:
                faults.append(f"reboot {number + 1}: {now}, and it was {before}")
            faults += [f"reboot {number + 1}: {words}" for words in server.state().faults(8)]
        if server.checksums(others) != sums:
            faults.append("what others have has changed")
        guest.run("systemctl disable tierd-convert@test")
        text = (
            f"the same state {same} of {count} times, ready {max(seconds):.0f} s after the unit began at the"
            " latest"
        ) + (": " + "; ".join(faults[:2]) if faults else "")
        return Figure(same == count and not faults, text, {"kernel": kernel, "faults": faults})

    return Row(
        f"reboots-{count}-{kernel}",
        f"{count} reboots with a share of two slices and a namespace of somebody else's, Linux {kernel}",
        "the same state every time",
        measure,
        long=count > REBOOTS,
    )


def _everything(server: Witnessed) -> str:
    """What there is, by what stays over a reboot: labels, UUIDs, places, memory, what others hold."""
    held = sorted((h.label, h.uuid, h.start, h.size) for h in server.held().values())
    blocks = server.guest.output("ls -d /sys/devices/system/node/node1/memory[0-9]* | xargs -n1 basename")
    words = f"{held} {' '.join(blocks.split())} {server.state()}"
    return f"{words[:60]}... {hashlib.sha256(words.encode()).hexdigest()[:12]}"


def _reboot(guest: Guest) -> float:
    """Seconds that the unit took after the boot, by systemd's own clock."""
    before = guest.output("cat /proc/sys/kernel/random/boot_id")
    guest.run("systemctl reboot --no-block", check=False)
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            if not guest.connected():
                guest.connect()
            if guest.run("cat /proc/sys/kernel/random/boot_id", timeout=30).stdout.strip() != before:
                break
        except GuestError:
            pass
        time.sleep(1)
    else:
        raise GuestError(f"the guest did not come back\n{guest.serial_tail()}")
    guest.wait_for("systemctl is-active tierd-convert@test", timeout=240)
    shown = guest.output(
        "systemctl show -P ExecMainExitTimestampMonotonic -P ExecMainStartTimestampMonotonic"
        " tierd-convert@test"
    ).split()
    first, last = sorted(int(word) for word in shown)
    return (last - first) / 1e6
