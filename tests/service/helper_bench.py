"""A machine of plain files and a stand-in for systemd, for the tests of the root helper."""

from __future__ import annotations

import array
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierd.kernel.paths import Root
from tierd.kernel.scanning import SCAN_DOORS


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A machine with two tiers and the defaults of Debian 12: generations off."""
    root = Root(tmp_path / "machine")
    values = {
        root.numa_balancing: "0",
        root.promote_rate_limit: "65536",
        root.demotion_enabled: "false",
        root.generations_enabled: "0x0000",
        root.nodes / "has_memory": "0-1",
        root.nodes / "has_cpu": "0",
        root.nodes / "has_normal_memory": "0",
        root.nodes / "node0/meminfo": "Node 0 MemTotal:        1024 kB\nNode 0 MemFree:          512 kB",
        root.nodes / "node1/meminfo": "Node 1 MemTotal:        4096 kB\nNode 1 MemFree:         4096 kB",
        root.proc
        / "zoneinfo": "Node 0, zone   Normal\n        high     1\nNode 1, zone  Movable\n        high     1",
        root.memory_tiers / "memory_tier4/nodelist": "0",
        root.memory_tiers / "memory_tier22/nodelist": "1",
        **{root.scan_settings / name: "1000" for name in SCAN_DOORS},
    }
    for path, value in values.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    return root


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "run/settings.json"


def facts(root: Root) -> dict[str, str]:
    return {
        str(path.relative_to(root.path)): path.read_text()
        for path in sorted(root.path.rglob("*"))
        if path.is_file()
    }


class ServiceManager(threading.Thread):
    """The receiving end of sd_notify: keeps messages, and the store as systemd keeps it."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(os.fspath(path))
        self.messages: list[str] = []
        self.store: dict[str, list[int]] = {}

    def run(self) -> None:
        while True:
            data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(4))
            received = array.array("i")
            for _level, _kind, content in ancillary:
                received.frombytes(content)
            text = data.decode()
            self.messages.append(text)
            lines = dict(line.split("=", 1) for line in text.splitlines())
            if "FDSTOREREMOVE" in lines:
                for descriptor in self.store.pop(lines["FDNAME"], []):
                    os.close(descriptor)
            elif "FDSTORE" in lines:
                self.store.setdefault(lines["FDNAME"], []).extend(received)
            else:
                for descriptor in received:
                    os.close(descriptor)
            if text == "STOP=1":
                return


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceManager]:
    path = tmp_path / "notify"
    manager = ServiceManager(path)
    manager.start()
    monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(path))
    yield manager
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.sendto(b"STOP=1", os.fspath(path))
    sender.close()


def pipe_doors(*names: str) -> dict[str, int]:
    doors = {}
    for name in names:
        reading, writing = os.pipe()
        os.write(writing, name.encode())
        os.close(writing)
        doors[name] = reading
    return doors
