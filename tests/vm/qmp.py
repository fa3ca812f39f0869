"""QEMU's machine protocol: one JSON object a line over a unix socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.vm import host

LABEL_SIZE = 2 << 20
"""Bytes of an NVDIMM's labels."""


class Qmp:
    """A connection to a running QEMU, a context manager; raises HostError for what QEMU refuses."""

    def __init__(self, path: Path, timeout: float = 10) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rw")
        self._file.readline()  # the greeting
        self.execute("qmp_capabilities")

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return what QEMU answers; events in between are skipped."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while line := self._file.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise host.HostError(
                    f"QEMU refused {command}: {answer['error'].get('desc', answer['error'])}"
                )
            if "return" in answer:
                return answer["return"]
        raise host.HostError(f"QEMU closed its control socket during {command}")

    def monitor(self, line: str) -> str:
        """Run a command of the human monitor, for what has no command of its own."""
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def plug_nvdimm(self, slot: int, backing: Path, *, node: int) -> None:
        """Plug an NVDIMM in while the machine runs; it cannot be taken out again (QEMU has no unplug for
        them). backing: a file of the region's size and LABEL_SIZE, in which the labels come last."""
        size = backing.stat().st_size
        name = f"plugged{slot}"
        self.execute(
            "object-add",
            **{"qom-type": "memory-backend-file", "id": name, "size": size, "share": True},
            **{"mem-path": str(backing)},
        )
        self.execute(
            "device_add",
            **{"driver": "nvdimm", "id": f"nvdimm{slot}", "memdev": name, "label-size": LABEL_SIZE},
            **{"node": node, "slot": slot},
        )
