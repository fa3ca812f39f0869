"""The virtual server with persistent memory: what it is made of, how it starts, and how it ends."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm import host, image
from tests.vm.guest import Guest
from tests.vm.qmp import Qmp

# A boot takes 20 s; the rest is patience with a machine whose cores are busy.
BOOT_SECONDS = 300


@dataclass(frozen=True)
class Machine:
    """A server to boot. Sizes in MiB, latencies in ns, bandwidths in GB/s.

    Each socket has `dram` of its own, an equal part of the `cpus`, and a node for PMEM; the nodes of DRAM
    are numbered first. One `pmem` entry is one NVDIMM, and sockets take turns. Its region is the size minus
    2 MiB of labels and must be a multiple of 16 MiB, or the kernel refuses it as misaligned.
    accessed_bits: whether what a page was used for is seen in its page table. QEMU's emulated TLB hides
    that unless each entry into the kernel empties it (pti=on), with which all takes half as long again:
    machines on which no memory is placed go without.
    """

    kernel: str = "7.3"
    dram: int = 1280
    pmem: tuple[int, ...] = (4098,)
    cpus: int = 2
    sockets: int = 1
    cpu: str = "max"
    dram_latency: int = 80
    pmem_latency: int = 300
    dram_bandwidth: int = 100
    pmem_bandwidth: int = 30
    across_latency: int = 60
    hmat: bool = True
    accessed_bits: bool = True
    cmdline: tuple[str, ...] = ()
    qemu: tuple[str, ...] = ()
    recipe: image.Recipe = image.RECIPE

    def qemu_arguments(self) -> list[str]:
        """The server's own part of QEMU's command line: nodes, memory, NVDIMMs, HMAT."""
        slots = max(4, len(self.pmem) + 2)
        hmat = ",hmat=on" if self.hmat else ""
        sockets, share = range(self.sockets), self.cpus // self.sockets
        arguments = [
            *("-machine", f"q35,nvdimm=on{hmat}", "-cpu", self.cpu),
            *("-smp", f"{self.cpus},sockets={self.sockets}"),
            *("-m", f"{self.sockets * self.dram}M,slots={slots},maxmem=16G"),
        ]
        for here in sockets:
            cpus = f"cpus={here * share}-{(here + 1) * share - 1}"
            arguments += ["-object", f"memory-backend-ram,id=dram{here},size={self.dram}M"]
            arguments += ["-numa", f"node,nodeid={here},memdev=dram{here},{cpus}"]
        for here in sockets:
            initiator = f",initiator={here}" if self.hmat else ""
            arguments += ["-numa", f"node,nodeid={self.sockets + here}{initiator}"]
        if self.hmat:
            for initiator, target in itertools.product(sockets, range(2 * self.sockets)):
                arguments += self._speed(initiator, target)
        if self.sockets > 1:
            for near, far in itertools.combinations(range(2 * self.sockets), 2):
                distance = 17 if far - near == self.sockets else 21 if far < self.sockets else 28
                arguments += ["-numa", f"dist,src={near},dst={far},val={distance}"]
        for number, size in enumerate(self.pmem):
            arguments += ["-object", f"memory-backend-ram,id=pmem{number},size={size}M"]
            node = self.sockets + number % self.sockets
            arguments += [
                "-device",
                f"nvdimm,id=nvdimm{number},memdev=pmem{number},label-size=2M,node={node}",
            ]
        return [*arguments, *self.qemu]

    def _speed(self, initiator: int, target: int) -> list[str]:
        """How fast the CPUs of a socket reach a node."""
        slow = target >= self.sockets
        latency = self.pmem_latency if slow else self.dram_latency
        latency += self.across_latency if target % self.sockets != initiator else 0
        bandwidth = self.pmem_bandwidth if slow else self.dram_bandwidth
        where = f"hmat-lb,initiator={initiator},target={target},hierarchy=memory"
        return [
            *("-numa", f"{where},data-type=access-latency,latency={latency}"),
            *("-numa", f"{where},data-type=access-bandwidth,bandwidth={bandwidth}G"),
        ]

    def kernel_command_line(self) -> str:
        """The kernel's command line; the machine's own words come last, so that they win."""
        return " ".join(
            (
                *(
                    "root=/dev/vda",
                    "rootfstype=ext4",
                    "rw",
                    "fsck.mode=skip",
                    "console=ttyS0",
                    "quiet",
                    "panic=-1",
                ),
                *("8250.nr_uarts=1", "net.ifnames=0", "systemd.show_status=0"),
                "pti=on" if self.accessed_bits else "pti=off",
                *self.cmdline,
            )
        )


# ---------------------------------------------------------------------------------------------- acceleration


def acceleration() -> tuple[str, ...]:
    """QEMU's arguments for KVM where it runs a guest, for software emulation everywhere else.

    `/dev/kvm` may exist and still not run an ordinary guest, so a kernel is booted once and the answer is
    kept until this machine boots again.
    """
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    memory = host.cache_dir() / "kvm.json"
    with host.locked("kvm"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            kept = json.loads(memory.read_text())
            if kept["boot_id"] == boot_id:
                return _acceleration(kept["works"])
        works = _kvm_works()
        host.say("KVM runs a guest" if works else "KVM does not run a guest here: software emulation it is")
        memory.write_text(json.dumps({"boot_id": boot_id, "works": works}))
        return _acceleration(works)


def _acceleration(kvm: bool) -> tuple[str, ...]:
    return ("-accel", "kvm") if kvm else ("-accel", "tcg,thread=multi,tb-size=512")


def _kvm_works(seconds: float = 15) -> bool:
    """Boot a kernel under KVM and look for its banner and for its first process on the serial line."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    files = image.image()
    name = image.RECIPE.kernels[0].name
    with tempfile.TemporaryDirectory(prefix="tierd-kvm-") as scratch:
        serial = Path(scratch) / "serial.log"
        command = [
            *("qemu-system-x86_64", "-accel", "kvm", "-cpu", "max", "-m", "512M"),
            *("-nodefaults", "-display", "none"),
            *("-no-user-config", "-no-reboot", "-serial", f"file:{serial}"),
            *("-kernel", str(files.kernel(name)), "-initrd", str(files.initrd(name))),
            *("-append", "console=ttyS0 panic=-1"),
        ]
        with (Path(scratch) / "qemu.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                text = serial.read_text(errors="replace") if serial.exists() else ""
                # The second line is the initrd's own, so a process has run, not only the kernel.
                if "Linux version" in text and "Loading, please wait" in text:
                    return True
                if process.poll() is not None:
                    return False
                time.sleep(0.2)
            return False
        finally:
            _end(process.pid, process.poll, gentle=False)


# ---------------------------------------------------------------------------------------------- start and en


def state_file(name: str) -> Path:
    """Where a guest that outlives its starter is remembered."""
    return host.cache_dir() / "running" / f"{name}.json"


def start(machine: Machine, *, name: str = "", detached: bool = False) -> Guest:
    """Boot a machine and return it once ssh answers; the caller ends it with `stop`.

    Unless `detached`, QEMU dies with the thread that called this. Raises HostError with the serial console's
    end when the guest does not come up.
    """
    files = image.image(image.having(machine.recipe, machine.kernel))
    accelerate = acceleration()
    directory = _short_directory()
    started = time.monotonic()
    command = [
        *("qemu-system-x86_64", *accelerate, *machine.qemu_arguments()),
        *("-nodefaults", "-no-user-config", "-display", "none", "-name", f"tierd-{name or machine.kernel}"),
        *("-kernel", str(files.kernel(machine.kernel)), "-initrd", str(files.initrd(machine.kernel))),
        *("-append", machine.kernel_command_line()),
        # A panic during boot ends QEMU, which is an answer, where a boot loop is a timeout.
        *("-action", "reboot=shutdown", "-serial", f"file:{directory / 'serial.log'}"),
        *("-qmp", f"unix:{directory / 'qmp'},server=on,wait=off"),
        *("-drive", f"file={files.disk},if=none,id=disk,format=raw,snapshot=on,cache=unsafe"),
        # The bus is named, since with a host bridge for CXL there are two.
        *("-device", "virtio-blk-pci,drive=disk,bus=pcie.0"),
        # The port is the kernel's choice, so that machines that start together never want the same one.
        *("-netdev", "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
        *(
            "-device",
            "virtio-net-pci,netdev=net0,romfile=,bus=pcie.0",
            "-device",
            "virtio-rng-pci,bus=pcie.0",
        ),
    ]
    with (directory / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=None if detached else _die_with_parent(),
        )
    try:
        port = _wait_for_ssh(process, directory, machine)
        # Its own copy: the image that it came from may be dropped while it runs.
        key = Path(shutil.copy2(files.key, directory / "key"))
        guest = Guest(name or machine.kernel, machine.kernel, directory, port, process.pid, key)
        guest.connect()
        with Qmp(guest.qmp) as qmp:
            qmp.execute("set-action", reboot="reset")
    except BaseException:
        _end(process.pid, process.poll, gentle=False)
        shutil.rmtree(directory, ignore_errors=True)
        raise
    how = "KVM" if "kvm" in accelerate else "software emulation"
    host.say(f"kernel {machine.kernel} answers after {time.monotonic() - started:.1f} s under {how}")
    if detached:
        path = state_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {**asdict(guest), "started": _start_time(process.pid)}
        path.write_text(json.dumps(facts, default=os.fspath))
    return guest


def stop(guest: Guest, *, gentle: bool = True) -> None:
    """Power the guest off and wait until its QEMU is gone: asked first when `gentle`, then told, and only
    this process."""
    if gentle:
        with contextlib.suppress(host.HostError, OSError):
            guest.run("systemctl poweroff --no-block", timeout=15, check=False)
    _end(guest.pid, lambda: _poll(guest.pid), gentle=gentle, qmp=guest.qmp)
    shutil.rmtree(guest.directory, ignore_errors=True)


@contextlib.contextmanager
def boot(machine: Machine, *, name: str = "") -> Iterator[Guest]:
    """A running machine for the length of a `with` block. Nothing of it is kept, so its plug is pulled."""
    guest = start(machine, name=name)
    try:
        yield guest
    finally:
        stop(guest, gentle=False)


def attach(name: str) -> Guest:
    """The guest that was started with `detached` under this name; raises HostError when there is none."""
    path = state_file(name)
    if path.is_file():
        facts = json.loads(path.read_text())
        if facts.pop("started") == _start_time(facts["pid"]):
            facts["directory"], facts["key"] = Path(facts["directory"]), Path(facts["key"])
            guest = Guest(**facts)
            if not guest.connected():
                guest.connect()
            return guest
        path.unlink()
    names = ", ".join(running()) or "none"
    raise host.HostError(f"no guest named {name} is running (running: {names})")


def running() -> list[str]:
    """Names of the guests that were started with `detached` and still run."""
    found = []
    for path in sorted((host.cache_dir() / "running").glob("*.json")):
        facts = json.loads(path.read_text())
        if facts["started"] == _start_time(facts["pid"]):
            found.append(path.stem)
    return found


def _short_directory() -> Path:
    """A private directory whose path leaves room for a unix socket's name (108 bytes, and ssh adds 17)."""
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="tierd-", dir=base if len(base) < 50 else "/tmp"))


def _wait_for_ssh(process: subprocess.Popen[bytes], directory: Path, machine: Machine) -> int:
    """Wait for sshd's banner; returns the port of 127.0.0.1 that leads to it."""
    deadline = time.monotonic() + BOOT_SECONDS
    port = 0
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise host.HostError(
                f"QEMU ended with exit code {process.returncode} while kernel {machine.kernel} booted\n"
                + _tail(directory / "qemu.log")
                + _tail(directory / "serial.log")
            )
        if not port and (directory / "qmp").exists():
            with contextlib.suppress(OSError), Qmp(directory / "qmp") as qmp:
                port = _forwarded_port(qmp.monitor("info usernet"))
        if port and _greets(port):
            return port
        time.sleep(0.25)
    raise host.HostError(
        f"kernel {machine.kernel} did not answer on ssh within {BOOT_SECONDS} s\n"
        + _tail(directory / "serial.log")
    )


def _forwarded_port(listing: str) -> int:
    """The host's port in `info usernet`, whose columns are protocol, fd, source and destination."""
    for line in listing.splitlines():
        words = line.split()
        if words and words[0] == "TCP[HOST_FORWARD]":
            return int(words[3])
    return 0


def _greets(port: int) -> bool:
    # QEMU accepts the connection long before the guest listens; only sshd's own first words mean that it
    # does.
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
            connection.settimeout(3)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _tail(path: Path, lines: int = 30) -> str:
    text = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
    return f"--- end of {path.name}\n" + "\n".join(text) + "\n"


def _die_with_parent() -> Callable[[], None] | None:
    """What a child runs before QEMU, so that a killed test run leaves nothing behind.

    The signal comes when the thread that forked ends, so only the main thread may ask for it.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, linux/prctl.h


def _start_time(pid: int) -> str:
    """A process's start time in clock ticks, which with the pid names it; empty when it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] != "Z":
            return fields[19]
    return ""


def _poll(pid: int) -> int | None:
    with contextlib.suppress(ChildProcessError):
        done, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done else None
    return None if _start_time(pid) else 0


def _end(pid: int, poll: Callable[[], int | None], *, gentle: bool, qmp: Path | None = None) -> None:
    """Wait for one QEMU to end, with growing insistence: its own power-off, quit, SIGTERM, SIGKILL."""

    def gone(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    if gentle and gone(40):
        return
    if qmp is not None and poll() is None:
        with contextlib.suppress(OSError, host.HostError), Qmp(qmp, timeout=3) as control:
            control.execute("quit")
        if gone(5):
            return
    for number in (signal.SIGTERM, signal.SIGKILL):
        if poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if gone(5):
            return
