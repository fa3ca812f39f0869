"""Running ndctl, daxctl, udevadm, blkid: absolute paths, no shell, a pipe, a deadline, bounded output.

What a tool says about its own success is not believed: callers read the outcome from sysfs.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tierd.errors import MalformedError, TierdError, UnsupportedError

OUTPUT_LIMIT = 4 << 20
"""Bytes of stdout, and of stderr, beyond which a tool is ended."""

SEARCH = (Path("/usr/bin"), Path("/usr/sbin"), Path("/bin"), Path("/sbin"))
"""Where the tools are looked for; PATH is not asked."""

_PACKAGES = {
    "ndctl": "ndctl",
    "daxctl": "daxctl",
    "cxl": "cxl",
    "udevadm": "udev",
    "blkid": "util-linux",
    "modprobe": "kmod",
    "systemctl": "systemd",
}
_GRACE = 5.0


class ToolError(TierdError):
    """A tool was ended: it took too long, or wrote too much."""


class AbandonedError(ToolError):
    """A tool does not end, not even when it is killed: it hangs in the kernel, which goes on with what it
    was told."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """How a tool ended. code: its exit code, negative for a signal. stderr: at most 500 characters, one
    line."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools, found in `search`.

    inherit: file descriptors that a tool keeps open. A lock that is held through one is not free while the
    tool runs, even when the process that started it has been killed.
    """

    search: tuple[Path, ...] = SEARCH
    inherit: tuple[int, ...] = ()

    def path(self, name: str) -> str:
        """The tool's absolute path. Raises UnsupportedError when it is not installed."""
        for directory in self.search:
            candidate = directory / name
            if candidate.is_file() and os.access(candidate, os.X_OK):
                return str(candidate)
        package = _PACKAGES.get(name, name)
        raise UnsupportedError(
            f"{name} is not installed: persistent memory cannot be provisioned",
            hint=f"apt install {package}",
        )

    def resolve(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """`argv` with the absolute path of its program. Raises UnsupportedError."""
        return (self.path(argv[0]), *argv[1:])

    def run(self, argv: tuple[str, ...], *, deadline: float = 60.0) -> ToolResult:
        """Run a tool to its end, at most `deadline` seconds. Raises UnsupportedError, ToolError;
        AbandonedError, also in place of what interrupted it, when it would not end."""
        full = self.resolve(argv)
        process = subprocess.Popen(
            full,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"LC_ALL": "C", "PATH": ":".join(map(str, self.search))},
            cwd="/",
            pass_fds=self.inherit,
            start_new_session=True,
        )
        try:
            stdout, stderr = _drain(process, time.monotonic() + deadline, full[0])
        except BaseException as error:
            if _end(process):
                raise
            raise AbandonedError(
                f"{full[0]} hangs in the kernel, and was left behind; nothing else is begun until it ends",
                hint="the next run puts right what it leaves",
            ) from error
        text = " ".join(stderr.decode("utf-8", errors="replace").split())
        return ToolResult(full, process.returncode, stdout, text[:500])

    def json(self, argv: tuple[str, ...], *, deadline: float = 30.0) -> object:
        """Run a tool that prints JSON and parse it; nothing printed is an empty list.

        Raises UnsupportedError, ToolError, MalformedError.
        """
        result = self.run(argv, deadline=deadline)
        if not result.stdout.strip():
            if result.code and "no matching" not in result.stderr:
                what = result.stderr or "it says nothing"
                raise ToolError(f"{' '.join(argv)}: exit code {result.code}: {what}")
            return []
        return parse_json(result.stdout, " ".join(argv))


def parse_json(text: bytes, source: str) -> object:
    """`text` as JSON. Raises MalformedError that names `source`."""
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{source}: not JSON: {str(error)[:100]}") from None


def _drain(process: subprocess.Popen[bytes], until: float, name: str) -> tuple[bytes, bytes]:
    assert process.stdout is not None and process.stderr is not None
    collected = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in collected:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(max(0.0, until - time.monotonic())):
                stream = process.stdout if key.fileobj is process.stdout else process.stderr
                chunk = os.read(stream.fileno(), 65536)
                if not chunk:
                    selector.unregister(stream)
                collected[stream] += chunk
                if len(collected[stream]) > OUTPUT_LIMIT:
                    raise ToolError(f"{name} wrote more than {OUTPUT_LIMIT >> 20} MiB and was ended")
            if time.monotonic() >= until:
                raise ToolError(f"{name} did not finish in time and was ended")
    try:
        process.wait(max(0.1, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise ToolError(f"{name} did not finish in time and was ended") from None
    for stream in collected:
        stream.close()
    return bytes(collected[process.stdout]), bytes(collected[process.stderr])


def _end(process: subprocess.Popen[bytes]) -> bool:
    """End a tool and what it started; one that hangs in the kernel is left behind after a moment. Whether it
    has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
            break
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return process.returncode is not None
