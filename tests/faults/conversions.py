"""Conversions on a bad day: disks that are full or read-only, a kernel that refuses blocks, others who
mount, put online or hold what is to be taken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from tests.faults import inject
from tests.faults.case import LOST, ZONE, Seen, figure, row
from tests.verify.provisioning_rows.server import RUN, State, Witnessed, ready
from tests.verify.provisioning_rows.zones import LYING_DAXCTL
from tests.verify.table import Figure, Row, Stage
from tests.vm.test_consent import Store

BLOCKS = 4
SIZE = f"{BLOCKS * 128}MiB"
RACES = 5
_STATE = "/var/lib/tierd"
_ERRORS = "/sys/kernel/debug/notifier-error-inject/memory/actions"
_NO_MEMORY, _BUSY = "-12", "-16"
_MAKE_EXT4 = "mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 {device} 64M"
_ONLINER = (
    "systemd-run --quiet --expand-environment=no --unit=onliner sh -c 'while :; do for b in"
    " /sys/devices/system/memory/memory*/state; do grep -qx offline $b && echo online > $b; done; done'"
)
_RACER = (
    "systemd-run --quiet --unit=racer sh -c 'while :; do mount {device} /mnt && {{ date > /mnt/file; sync;"
    " umount /mnt; }}; done'"
)

# The step goes wrong, and from then on not a byte more can be written: not even to the record's last page.
_FULL_DISK = LYING_DAXCTL.replace(
    "exit $code",
    f'[ "$3" != system-ram ] || {{ dd if=/dev/zero of={_STATE}/filler bs=1K status=none;'
    f" yes '' | head -c 4096 >> {_STATE}/conversions.jsonl; }} 2>/dev/null\nexit $code",
)

Play = Callable[[Witnessed], Seen]


def _stray(state: State) -> int:
    return sum(block != "online Movable" for block in state.blocks if block.startswith("online"))


def _full_disk(server: Witnessed) -> Seen:
    """A step goes wrong, and its undoing cannot be recorded."""
    guest = server.guest
    server.replace_tool("daxctl", _FULL_DISK)
    server.want(SIZE)
    try:
        with inject.hidden(guest, _STATE, "-t tmpfs -o size=64k tmpfs"):
            done = guest.run(RUN, check=False, timeout=300)
            left = guest.output(f"df --output=avail {_STATE} | tail -n 1").strip()
    finally:
        server.restore_tool("daxctl")
    state, said = server.state(), done.stderr
    faults = [words for words in state.faults(0) if "policy" in words]
    # what the kernel itself uses by now cannot be taken back, and must be told
    if state.blocks and "stay online" not in said and "in use" not in said:
        faults.append(f"{len(state.blocks)} blocks stay, and nothing is said: {said[-200:]}")
    if not done.returncode:
        faults.append("success is told")
    return Seen(int(left == "0"), faults, f"exit status {done.returncode}", {ZONE: (0, BLOCKS)})


def _read_only(server: Witnessed) -> Seen:
    guest, before = server.guest, server.shape()
    with inject.hidden(guest, _STATE, f"--bind -o ro {_STATE}"):
        refused = guest.run(f"touch {_STATE}/x", check=False).returncode != 0
        code = server.converted(SIZE)
    faults = [] if code else ["success is told"]
    if server.shape() != before:
        faults.append("something was changed that could not be recorded")
    return Seen(int(refused), faults, f"exit status {code}")


@contextlib.contextmanager
def _notifier(server: Witnessed, action: str, error: str) -> Iterator[None]:
    """The kernel's own module that has memory blocks refused, as a driver may."""
    server.guest.run("modprobe memory-notifier-error-inject")
    with inject.written(server.guest, {f"{_ERRORS}/{action}/error": error}):
        yield


def _refused_online(server: Witnessed) -> Seen:
    with _notifier(server, "MEM_GOING_ONLINE", _NO_MEMORY):
        code = server.converted(SIZE)
        state = server.state()
    faults = [] if code else ["success is told"]
    faults += [words for words in state.faults(0) if "policy" in words]
    again = server.converted(SIZE)
    faults += [f"afterwards: {words}" for words in server.state().faults(BLOCKS)]
    online = state.blocks.count("online Movable")
    return Seen(int(online < BLOCKS), faults, f"exit status {code}, then {again}",
                {ZONE: (_stray(server.state()), BLOCKS)})  # fmt: skip


def _refused_offline(server: Witnessed) -> Seen:
    server.converted(SIZE)
    with _notifier(server, "MEM_GOING_OFFLINE", _BUSY):
        server.want("none")
        code = server.guest.run(f"{RUN} --drain 15", check=False, timeout=300).returncode
        faults = [f"meanwhile: {words}" for words in server.state().faults(BLOCKS)]
    if not code:
        faults.append("success is told")
    again = server.converted("none")
    faults += [f"afterwards: {words}" for words in server.state().faults(0)]
    return Seen(int(code != 0), faults, f"exit status {code}, then {again}")


def _onliner(server: Witnessed) -> Seen:
    """What a rule of udev does on other distributions."""
    server.guest.run(_ONLINER)
    try:
        code = server.converted(SIZE)
        busy = server.guest.run("systemctl is-active onliner", check=False).returncode == 0
    finally:
        server.guest.run("systemctl stop onliner; systemctl reset-failed onliner", check=False)
    state = server.state()
    stray = _stray(state)
    faults = [words for words in state.faults(len(state.blocks)) if "policy" in words]
    if stray:
        faults.append(f"{stray} blocks outside ZONE_MOVABLE")
    if code and state.blocks:
        faults.append(f"exit status {code}, and {len(state.blocks)} blocks are left")
    return Seen(int(busy), faults, f"exit status {code}", {ZONE: (stray, max(BLOCKS, len(state.blocks)))})


def _store(server: Witnessed) -> Store:
    """A namespace with an ext4, and consent to its destruction."""
    store = Store(server.guest, server.region)
    store.make("fsdax")
    store.guest.run(_MAKE_EXT4.format(device=store.device) + "; udevadm settle", timeout=60)
    store.want("{destroy: ext4}")
    return store


def _racer(server: Witnessed) -> Seen:
    """Somebody mounts and unmounts what is to be taken: it is refused, or taken while nobody has it."""
    raced = lost = taken = 0
    for _ in range(RACES):
        store = _store(server)
        store.guest.run("dmesg -C; " + _RACER.format(device=store.device))
        try:
            code = store.convert()
            raced += store.guest.run("systemctl is-active racer", check=False).returncode == 0
        finally:
            store.guest.run("systemctl stop racer; umount /mnt; systemctl reset-failed racer", check=False)
        taken += code == 0
        broken = store.guest.output("dmesg | grep -cE 'EXT4-fs error|I/O error' || true")
        if code == 0:
            lost += broken != "0"
        else:
            whole = store.guest.run(f"e2fsck -fp {store.device}", check=False, timeout=60).returncode
            lost += whole > 1  # 1: it was not unmounted cleanly, and is whole
    return Seen(raced, (), f"{taken} taken, {RACES - taken} refused", {LOST: (lost, RACES)})


def _another_loop(server: Witnessed) -> Seen:
    """A loop device over another file of the same device."""
    store = _store(server)
    guest = store.guest
    guest.run(
        f"mknod /run/another b $(stat -c '0x%t 0x%T' {store.device}) && losetup -f /run/another &&"
        " mount $(losetup -nO NAME -j /run/another) /mnt"
    )
    try:
        used = guest.run("mountpoint -q /mnt", check=False).returncode == 0
        code = store.convert()
        whole = guest.run("date > /mnt/file && sync && cat /mnt/file", check=False).returncode == 0
    finally:
        guest.run("umount /mnt; losetup -D; rm -f /run/another", check=False)
    faults = [] if code else ["it was taken under its user"]
    return Seen(int(used), faults, f"exit status {code}", {LOST: (int(not whole), 1)})


def _target(server: Witnessed) -> Seen:
    """A device that the kernel itself serves to others, without holding it as processes do."""
    store = _store(server)
    guest, base = store.guest, "/sys/kernel/config/nvmet/subsystems/test"
    guest.run(
        f"modprobe nvmet && mkdir -p {base}/namespaces/1 && echo -n {store.device} >"
        f" {base}/namespaces/1/device_path && echo 1 > {base}/namespaces/1/enable"
    )
    try:
        used = guest.output(f"cat {base}/namespaces/1/enable") == "1"
        before = store.checksum()
        code = store.convert()
        same = not code or store.checksum() == before
    finally:
        guest.run(f"echo 0 > {base}/namespaces/1/enable; rmdir {base}/namespaces/1 {base}", check=False)
    faults = [] if code else ["it was taken under its user"]
    return Seen(int(used), faults, f"exit status {code}", {LOST: (int(code == 0 or not same), 1)})


_PLAYS: tuple[tuple[str, str, str, Play], ...] = (
    ("disk-full", "B1", "blocks in the wrong zone while nothing can be recorded: undone, or told",
     _full_disk),
    ("disk-read-only", "B1", "a record that cannot be written: nothing is done", _read_only),
    ("blocks-refused", "B6", "the kernel refuses blocks: told, and the next run gets over it",
     _refused_online),
    ("blocks-stay", "B6", "the kernel does not let blocks go: all stay, and the next run gets over it",
     _refused_offline),
    ("onliner", "B1", "somebody puts every block online at once", _onliner),
    ("racer", "A7", f"somebody mounts what is to be taken, {RACES} times", _racer),
    ("another-loop", "A5", "a file system on a loop device over another name of the device", _another_loop),
    ("target", "A5", "a device that the kernel serves to others", _target),
)  # fmt: skip


def _measure(play: Play, kernel: str, stage: Stage) -> Figure:
    server = ready(stage, kernel)
    try:
        found = figure(play(server), kernel)
        dirty = not found.holds or _stray(server.state()) > 0
    except BaseException:
        stage.close()
        raise
    if dirty:  # what the kernel itself uses outside ZONE_MOVABLE stays until it boots
        stage.close()
    return found


def rows(kernel: str) -> Iterator[Row]:
    for name, catalogue, promise, play in _PLAYS:
        yield row(f"conversions-{name}", catalogue, promise, kernel, partial(_measure, play, kernel))
