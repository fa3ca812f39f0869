"""What can be made to go wrong in a guest, for the length of a `with` block. Each raises HostError when it
does not come about or cannot be mended."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.bench.contenders import changed
from tests.faults.case import Scene
from tests.vm import host, scenario
from tests.vm.guest import Guest
from tests.vm.qmp import Qmp

_LOG = "/run/strace.txt"
_COUNT = f"grep -cE 'INJECTED|DELAYED' {_LOG} || true"
_SWAP = "/var/swap"


@dataclass
class Injected:
    """calls: how many were made to fail or to take longer, by strace's own log; known at the end."""

    guest: Guest
    calls: int = 0

    def wait(self, calls: int = 1, seconds: float = 90) -> None:
        """Until so many have been; raises GuestError when they are not in time."""
        self.guest.wait_for(f"[ $({_COUNT}) -ge {calls} ]", timeout=seconds)

    def log(self) -> str:
        """What strace has written, a line for each call."""
        return self.guest.output(f"cat {_LOG}")


@contextlib.contextmanager
def strace(guest: Guest, fault: str, *paths: str) -> Iterator[Injected]:
    """System calls of the daemon that go wrong. fault: as strace(1) has it: "move_pages:error=ENOMEM".
    paths: only calls on a file by one of these names."""
    pid = guest.output("systemctl show -P MainPID tierd")
    only = " ".join(f"-P {shlex.quote(path)}" for path in paths)
    guest.run(
        f"rm -f {_LOG}; touch {_LOG}; systemd-run --quiet --unit=strace strace -f -qq -o {_LOG} -p {pid}"
        f" {only} -e trace={fault.partition(':')[0]} -e inject={fault}"
    )
    injected = Injected(guest)
    try:
        guest.wait_for(f"grep -q '^TracerPid:.[1-9]' /proc/{pid}/status", timeout=30)
        yield injected
    finally:
        guest.run("systemctl stop strace; systemctl reset-failed strace", check=False, timeout=120)
        injected.calls = int(guest.output(_COUNT))


@contextlib.contextmanager
def written(guest: Guest, settings: Mapping[str, str]) -> Iterator[None]:
    """Kernel settings that somebody else writes, by their paths."""
    with changed(guest, settings):
        wrong = [path for path, value in settings.items() if not reads(guest, path, value)]
        if wrong:
            raise host.HostError(f"not written in the guest: {', '.join(wrong)}")
        yield


def reads(guest: Guest, path: str, value: str) -> bool:
    """Whether a setting has this value, be it written in another base."""
    found = guest.output(["cat", path])
    try:
        return int(found, 0) == int(value, 0)
    except ValueError:
        return found == value


@contextlib.contextmanager
def clock(guest: Guest, step: str) -> Iterator[None]:
    """The wall clock stepped, by what date(1) understands: "10 years ago"."""
    now = "echo $(( $(date +%s) - $(cut -d. -f1 /proc/uptime) ))"
    right = int(guest.output(now))
    guest.run(["date", "-s", step])
    try:
        if abs(int(guest.output(now)) - right) < 60:
            raise host.HostError(f"the clock was not stepped by {step}")
        yield
    finally:
        guest.run(f"date -s @$(( {right} + $(cut -d. -f1 /proc/uptime) ))")


@contextlib.contextmanager
def frozen(guest: Guest, unit: str) -> Iterator[None]:
    """Every process of a unit stopped, by SIGSTOP."""
    guest.run(f"systemctl kill --kill-whom=all --signal=STOP {unit}")
    try:
        guest.wait_for(f"grep -q '^State:.T' /proc/$(systemctl show -P MainPID {unit})/status", timeout=20)
        yield
    finally:
        # it may have been killed meanwhile
        guest.run(f"systemctl kill --kill-whom=all --signal=CONT {unit}", check=False)


@contextlib.contextmanager
def paused(guest: Guest) -> Iterator[None]:
    """The whole server stopped, its clocks too."""
    with Qmp(guest.qmp) as qmp:
        qmp.execute("stop")
        try:
            if qmp.execute("query-status")["status"] != "paused":
                raise host.HostError("the server was not stopped")
            yield
        finally:
            qmp.execute("cont")


@contextlib.contextmanager
def full(guest: Guest, directory: str) -> Iterator[None]:
    """A file system on which nothing more can be written."""
    filler = f"{directory}/filler"
    fill = f"for size in 64K 1K 1; do dd if=/dev/zero of={filler}.$size bs=$size status=none; done"
    guest.run(fill, check=False, timeout=300)
    try:
        left = int(guest.output(f"df --output=avail {directory} | tail -n 1"))
        if left > 4:
            raise host.HostError(f"{left} KiB are left in {directory}")
        yield
    finally:
        guest.run(f"rm -f {filler}.*")


@contextlib.contextmanager
def hidden(guest: Guest, path: str, mount: str) -> Iterator[None]:
    """Something mounted over a file or directory. mount: arguments of mount(8): "-t tmpfs tmpfs"."""
    count = f"grep -cF ' {path} ' /proc/self/mountinfo || true"
    before = int(guest.output(count))
    guest.run(f"mount {mount} {path}")
    try:
        if int(guest.output(count)) <= before:
            raise host.HostError(f"nothing is mounted over {path}")
        yield
    finally:
        guest.run(f"umount {path}")


@contextlib.contextmanager
def little_room(guest: Guest, node: int, mib: int) -> Iterator[None]:
    """Memory of a node taken by reserved huge pages, which nobody can have and nobody can move out of the
    way, until about so much is free."""
    base = f"/sys/devices/system/node/node{node}"
    count = f"{base}/hugepages/hugepages-2048kB/nr_hugepages"
    guest.run("sync; echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory", timeout=180)
    free = int(guest.output(f"awk '/MemFree/ {{print int($4 / 1024)}}' {base}/meminfo"))
    wanted = max(0, free - mib) // 2
    guest.run(f"echo {wanted} > {count}", timeout=180)
    try:
        if int(guest.output(["cat", count])) * 2 < wanted:
            raise host.HostError(f"less than half of {wanted} huge pages could be reserved on node {node}")
        yield
    finally:
        guest.run(f"echo 0 > {count}")


@contextlib.contextmanager
def swap(guest: Guest, mib: int = 512) -> Iterator[None]:
    """A file to swap to."""
    guest.run(
        f"fallocate -l {mib}M {_SWAP} && chmod 600 {_SWAP} && mkswap -q {_SWAP} && swapon {_SWAP}",
        timeout=120,
    )
    try:
        yield
    finally:
        guest.run(f"swapoff {_SWAP} && rm {_SWAP}", timeout=300)


@contextlib.contextmanager
def policy(scene: Scene, text: str) -> Iterator[None]:
    """Another policy, by a reload."""
    try:
        _reload(scene, text)
        yield
    finally:
        _reload(scene, scene.policy())


def _reload(scene: Scene, text: str) -> None:
    scene.guest.write(scenario.POLICY, text)
    scene.guest.run("systemctl reload tierd", timeout=120)
