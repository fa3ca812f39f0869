"""Namespaces of tierd's own label that somebody uses: nothing is called, nobody is killed."""

from __future__ import annotations

from dataclasses import dataclass

from tests.verify.provisioning_rows.server import Witnessed, ready
from tests.verify.table import Figure, Row, Stage

SIZE = "512MiB"

_HOLD = "systemd-run -q --unit=user python3 -c '{program}'; sleep 3"
_OPEN = 'import os, time; f = os.open("{device}", os.O_RDWR); time.sleep(10000)'
_MAP = (
    'import mmap, os, time; f = os.open("{device}", os.O_RDWR); m = mmap.mmap(f, 2 << 20, mmap.MAP_SHARED);'
    " os.close(f); m[0] = 1; time.sleep(10000)"
)
_EXT4 = (
    # else the kernel goes on to write what mke2fs left out while it is mounted
    "mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 {device} && mkdir -p /mnt/x && "
)


@dataclass(frozen=True)
class Case:
    """One way of using a device. mode: of the namespace. begin, end: shell, with {device}. alive: a
    condition that holds as long as nobody was harmed."""

    name: str
    mode: str
    begin: str
    alive: str
    end: str


CASES = (
    Case("dax device open", "devdax", _HOLD.format(program=_OPEN), "systemctl is-active user",
         "systemctl stop user"),
    Case("dax device mapped, and closed", "devdax", _HOLD.format(program=_MAP), "systemctl is-active user",
         "systemctl stop user"),
    Case("mounted", "fsdax", _EXT4 + "mount {device} /mnt/x",
         "mountpoint /mnt/x", "umount /mnt/x"),
    Case("mounted in another mount namespace", "fsdax",
         _EXT4 + "systemd-run -q --unit=user unshare -m sh -c 'mount {device} /mnt/x &&"
         " exec sleep 10000'; sleep 3; ! mountpoint -q /mnt/x",
         "systemctl is-active user && grep -q /mnt/x /proc/$(systemctl show -P MainPID user)/mountinfo",
         "systemctl stop user"),
    Case("LVM active", "fsdax", "pvcreate -q -y {device} && vgcreate -q vx {device} && lvcreate -q -y"
         " -l 100%FREE -n lx vx", "dmsetup info vx-lx", "vgchange -q -an vx && vgremove -q -y vx"),
    Case("swap on", "fsdax", "mkswap -q {device} && swapon {device}", "grep -q {device} /proc/swaps",
         "swapoff {device}"),
    Case("block device open", "fsdax", _HOLD.format(program=_OPEN), "systemctl is-active user",
         "systemctl stop user"),
)  # fmt: skip


def in_use(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        server = ready(stage, kernel)
        faults: list[str] = []
        runs = refused = called = killed = 0
        mode = device = ""
        for case in CASES:
            if case.mode != mode:
                mode, device = case.mode, _namespace(server, case.mode)
            server.guest.run(case.begin.replace("{device}", device), timeout=120)
            alive = case.alive.replace("{device}", device)
            if server.guest.run(alive, check=False).returncode:
                faults.append(f"{case.name}: could not be brought about")
            held = server.held()
            sums = server.checksums(held) if case.mode == "fsdax" else {}
            server.record_calls()
            server.calls()
            # wanted as memory, and wanted back: both would take it
            for size in (SIZE, "none"):
                runs += 1
                refused += server.converted(size) in (1, 69)
                calls = server.calls()
                called += len(calls)
                faults += [f"{case.name}, {size}: {call}" for call in calls]
            for tool in ("ndctl", "daxctl"):
                server.restore_tool(tool)
            if server.guest.run(alive, check=False).returncode:
                killed += 1
                faults.append(f"{case.name}: is no longer so")
            elif server.held() != held or (sums and server.checksums(held) != sums):
                faults.append(f"{case.name}: what it holds has changed")
            server.guest.run(case.end.replace("{device}", device), check=False, timeout=60)
        worked = _let_go(server)
        text = (
            f"{refused} of {runs} runs refused, {called} calls of ndctl or daxctl, {killed} users harmed;"
            f" unused, it is {'given back' if worked else 'NOT given back'}"
        ) + (": " + "; ".join(faults[:3]) if faults else "")
        holds = refused == runs == 2 * len(CASES) and not faults and worked
        return Figure(holds, text, {"kernel": kernel, "faults": faults, "cases": [c.name for c in CASES]})

    return Row(
        f"in-use-{kernel}",
        "a namespace of tierd's own label that is mounted (in another mount namespace too), LVM, swap, open"
        f" or mapped, wanted as memory and wanted back, Linux {kernel}",
        "refused, 0 calls recorded, 0 processes killed",
        measure,
    )


def _namespace(server: Witnessed, mode: str) -> str:
    """A slice that tierd made, devdax again as after a reboot, or made anew in `mode` by somebody; its
    device."""
    guest = server.guest
    guest.run(
        "for n in $(ndctl list -Ni | grep -o 'namespace[0-9.]*'); do"
        " [ $(cat /sys/bus/nd/devices/$n/size) = 0 ] || ndctl destroy-namespace -f $n; done; true"
    )
    guest.run("rm -f /var/lib/tierd/conversions.jsonl")
    if server.converted(SIZE):
        raise AssertionError("a share could not be made")
    guest.run(
        "daxctl reconfigure-device -m devdax -f dax0.0 || daxctl reconfigure-device -m devdax -f"
        " $(ls /sys/bus/dax/drivers/kmem | grep ^dax); udevadm settle",
        timeout=120,
    )
    (held,) = server.held().values()
    if mode == "devdax":
        return "/dev/" + guest.output("ls /sys/bus/dax/devices")
    guest.run(
        f"ndctl create-namespace -e {held.name} -f -m fsdax -n {held.label} && udevadm settle", timeout=120
    )
    return "/dev/" + guest.output("cd /sys/block; ls -d pmem*")


def _let_go(server: Witnessed) -> bool:
    """A slice that nobody uses is given back, so that it is the use that was refused."""
    _namespace(server, "devdax")
    return server.converted("none") == 0 and not server.held()
