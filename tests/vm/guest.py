"""A running guest, as the tests use it: commands with their exit codes, files, the region, tierd's package.

Every command goes through one ssh connection that is opened once, so that a command costs one round trip.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.vm import host

# What `ssh` itself returns when the connection, not the command, fails.
SSH_FAILED = 255


class GuestError(host.HostError):
    """A command in the guest failed, took too long, or the guest is gone."""


@dataclass(frozen=True)
class Region:
    """A persistent-memory region with labels. Sizes in bytes; `iset_id` as ndctl prints it, a decimal
    integer, and 0 where the region has none because its NVDIMM has no labels."""

    name: str
    iset_id: int
    size: int
    available_size: int


@dataclass(frozen=True)
class Guest:
    """A guest that answers on ssh; made by `tests.vm.machine.boot`, or by `attach` for one that runs
    already.

    `directory` holds the control socket, the serial log and QEMU's QMP socket; its path is short, because a
    unix socket's must be under 108 bytes.
    """

    name: str
    kernel: str
    directory: Path
    port: int
    pid: int
    key: Path

    @property
    def serial(self) -> Path:
        """Everything that the guest wrote to its serial console."""
        return self.directory / "serial.log"

    @property
    def qmp(self) -> Path:
        """QEMU's control socket."""
        return self.directory / "qmp"

    @property
    def _socket(self) -> Path:
        return self.directory / "ssh"

    def _options(self) -> list[str]:
        return [
            *("-F", "none", "-S", str(self._socket), "-i", str(self.key), "-p", str(self.port)),
            *(
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
            ),
            *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=60"),
            *("-o", "ServerAliveInterval=60", "-o", "ServerAliveCountMax=20"),
        ]

    def _ssh(self, command: str, *extra: str) -> list[str]:
        return ["ssh", *self._options(), *extra, "root@127.0.0.1", "--", command]

    def connect(self) -> None:
        """Open the one connection that every command uses; raises GuestError when it cannot be had."""
        with (self.directory / "ssh.log").open("ab") as log:
            master = subprocess.Popen(
                ["ssh", "-M", "-N", *self._options(), "root@127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if self.connected():
                return
            if master.poll() is not None:
                break
            time.sleep(0.1)
        raise GuestError(
            f"no ssh connection to the guest: {(self.directory / 'ssh.log').read_text()[-500:]}"
        )

    def connected(self) -> bool:
        """Whether the shared connection is up."""
        check = ["ssh", *self._options(), "-O", "check", "root@127.0.0.1"]
        return self._socket.exists() and subprocess.run(check, capture_output=True).returncode == 0

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 120,
        check: bool = True,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root and wait for it.

        A string is a bash script, a sequence is one command with its arguments. The command is ended in the
        guest after `timeout` seconds. Returns its exit code, stdout and stderr, each as the guest gave it;
        raises GuestError after the timeout, when the guest is gone, and with `check` for an exit code other
        than 0.
        """
        script = command if isinstance(command, str) else shlex.join(command)
        wrapped = f"exec timeout -k 5 {timeout:g} bash -c {shlex.quote(script)}"
        started = time.monotonic()
        try:
            done = subprocess.run(
                self._ssh(wrapped),
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout + 60,
            )
        except subprocess.TimeoutExpired:
            raise GuestError(f"the guest does not answer (waited {timeout + 60:g} s): {script}") from None
        if done.returncode == SSH_FAILED and not self.connected():
            raise GuestError(f"the guest is gone, while it ran: {script}\n{self.serial_tail()}")
        if done.returncode in (124, 137) and time.monotonic() - started >= timeout:
            raise GuestError(
                f"not done after {timeout:g} s: {script}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        if check and done.returncode:
            raise GuestError(
                f"exit code {done.returncode}: {script}\n{done.stdout[-4000:]}{done.stderr[-4000:]}".rstrip()
            )
        return done

    def output(self, command: str | Sequence[str], *, timeout: float = 120) -> str:
        """What a command that must succeed wrote to stdout, without the last line's end."""
        return self.run(command, timeout=timeout).stdout.rstrip("\n")

    def popen(
        self,
        command: str,
        *,
        stdout: int | IO[str] | None = subprocess.PIPE,
        stderr: int | IO[str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command; the caller reads its pipes and ends it.

        Ending the returned process closes the connection's channel only. For a workload that must be stopped
        by name, start it with `systemd-run --unit NAME` instead.
        """
        return subprocess.Popen(
            self._ssh(f"exec bash -c {shlex.quote(command)}"),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            bufsize=1,
        )

    def stream(self, command: str) -> Iterator[str]:
        """Lines of stdout as they come, without their ends; raises GuestError if the command fails at the
        end.

        stderr goes to this process's stderr. Closing the iterator early ends the command: it runs on a
        terminal of its own, which hangs up.
        """
        process = subprocess.Popen(
            self._ssh(f"stty -opost -echo; exec bash -c {shlex.quote(command)}", "-tt"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            bufsize=1,
        )
        assert process.stdout is not None
        ended = False
        try:
            for line in process.stdout:
                yield line.rstrip("\r\n")
            ended = True
        finally:
            if not ended:
                process.terminate()
            process.stdout.close()
            code = process.wait()
        if code:
            raise GuestError(f"exit code {code}: {command}")

    def put(self, local: Path, remote: str) -> None:
        """Copy a file, or a whole directory, to this path in the guest; parents are made."""
        parent, name = remote.rstrip("/").rpartition("/")[::2]
        parent = parent or "/"
        archive = subprocess.Popen(
            [
                "tar",
                "-C",
                str(local.parent),
                "--transform",
                f"s,^{_tar_escape(local.name)},{name},",
                "-c",
                local.name,
            ],
            stdout=subprocess.PIPE,
        )
        quoted = shlex.quote(parent)
        done = subprocess.run(
            self._ssh(f"mkdir -p {quoted} && tar -C {quoted} --no-same-owner -x"),
            stdin=archive.stdout,
            capture_output=True,
            text=True,
        )
        if archive.wait() or done.returncode:
            raise GuestError(f"could not copy {local} to {remote}: {done.stderr}")

    def get(self, remote: str, local: Path) -> None:
        """Copy one file out of the guest."""
        done = subprocess.run(
            self._ssh(f"cat {shlex.quote(remote)}"), stdin=subprocess.DEVNULL, capture_output=True
        )
        if done.returncode:
            raise GuestError(f"could not read {remote}: {done.stderr.decode(errors='replace')}")
        local.write_bytes(done.stdout)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, replacing what is there; its directory is made. For sysfs and procfs use `run`."""
        quoted = shlex.quote(path)
        self.run(
            f'mkdir -p "$(dirname {quoted})" && cat > {quoted}.new && chmod {mode:o} {quoted}.new '
            f"&& mv {quoted}.new {quoted}",
            input=text,
        )

    def shell(self) -> int:
        """Give the person at this terminal a shell in the guest; returns its exit code."""
        return subprocess.run(["ssh", *self._options(), "-t", "root@127.0.0.1"]).returncode

    def wait_for(self, condition: str, *, timeout: float = 60, interval: float = 0.5) -> None:
        """Wait until a shell condition holds in the guest; raises GuestError when it does not in time."""
        limit = f"SECONDS=0; until {{ {condition}; }} >/dev/null 2>&1; do "
        loop = f"[ $SECONDS -ge {timeout:.0f} ] && exit 1; sleep {interval:g}; done"
        if self.run(limit + loop, timeout=timeout + 30, check=False).returncode:
            raise GuestError(f"still not so after {timeout:g} s: {condition}")

    def reboot(self, *, timeout: float = 300) -> None:
        """Start the guest anew, with all that is plugged in; returns once it answers again."""
        read = "cat /proc/sys/kernel/random/boot_id"
        before = self.output(read)
        self.run("systemctl reboot --no-block", check=False)
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            try:
                if not self.connected():
                    self.connect()
                if self.run(read, timeout=30).stdout.strip() != before:
                    return
            except GuestError:
                pass
            time.sleep(0.5)
        raise GuestError(f"the guest did not come back within {timeout:g} s\n{self.serial_tail()}")

    def prepare_labels(self, dimm: str = "nmem0") -> Region:
        """Give the NVDIMM labels, as an operator would, and say which region it makes.

        QEMU's NVDIMMs start without: their region has no interleave set, and nothing is done to one that
        has.
        """
        self.run("udevadm settle")
        self.wait_for("ndctl list -R | grep -q region", timeout=60)
        region = self.region(dimm)
        if region.iset_id == 0:
            self.run(
                f"ndctl disable-region {region.name} && ndctl init-labels -f {dimm} "
                f"&& ndctl enable-region {region.name} && udevadm settle"
            )
            region = self.region(dimm)
        if region.iset_id == 0:
            raise GuestError(f"{region.name} has no interleave set after its labels were written: {region}")
        return region

    def region(self, dimm: str = "nmem0") -> Region:
        """The region that this NVDIMM belongs to, as ndctl sees it now."""
        listed = json.loads(self.output(f"ndctl list -R -D -v -d {shlex.quote(dimm)}") or "[]")
        regions = listed.get("regions", []) if isinstance(listed, dict) else listed
        if not regions:
            raise GuestError(f"{dimm} is in no region")
        facts = regions[0]
        return Region(facts["dev"], facts.get("iset_id", 0), facts["size"], facts["available_size"])

    def install_tierd(self, package: Path) -> None:
        """Install tierd's Debian package, as a user would; what it depends on is in the image."""
        remote = f"/var/tmp/{package.name}"
        self.put(package, remote)
        # A tree change means the same version again, so dpkg and not apt, which would call it installed.
        self.run(f"DEBIAN_FRONTEND=noninteractive dpkg -i {shlex.quote(remote)}", timeout=300)

    def serial_tail(self, lines: int = 30) -> str:
        """The end of the serial console, where a panic is."""
        text = self.serial.read_text(errors="replace") if self.serial.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def _tar_escape(name: str) -> str:
    return "".join(f"\\{char}" if char in r".[]*^$\," else char for char in name)
