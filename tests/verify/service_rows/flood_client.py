"""Clients of tierd in a guest, on raw sockets: many that ask as fast as they are answered, or a good one.

usage: flood_client.py flood SECONDS CONNECTIONS
       flood_client.py good SECONDS

Prints "ready" once all are connected, and at the end one JSON object: connections, answers, errors (answers
that are errors, by their names), and milliseconds (of each answer; the good client's alone).
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import sys
import time
from collections import Counter

BUS = "/run/dbus/system_bus_socket"
EVERY = 0.1
"""Seconds from one question of the good client to the next."""
METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
_MANAGER, _FREEDESKTOP = "org.tierd1.Manager", "org.freedesktop.DBus"


def _string(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode() + b"\0"


def _padded(data: bytes, unit: int) -> bytes:
    return data + b"\0" * (-len(data) % unit)


def message(
    serial: int,
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    body: bytes = b"",
) -> bytes:
    """A method call, as the D-Bus specification has it."""
    fields = b""
    for code, kind, text in (
        (1, b"o", path),
        (2, b"s", interface),
        (3, b"s", member),
        (6, b"s", destination),
    ):
        fields = _padded(fields, 8) + bytes((code, 1)) + kind + b"\0" + _string(text)
    if signature:
        fields = _padded(fields, 8) + bytes((8, 1)) + b"g\0" + bytes((len(signature),))
        fields += signature.encode() + b"\0"
    head = struct.pack("<cBBBIII", b"l", METHOD_CALL, 0, 1, len(body), serial, len(fields))
    return _padded(head + fields, 8) + body


def _reads() -> list[bytes]:
    """Everything that anybody may read, the largest among it."""
    tierd, path = "org.tierd1", "/org/tierd1"
    get = _string(_MANAGER).ljust((len(_MANAGER) + 8) // 4 * 4, b"\0") + _string("StatusText")
    return [
        message(2, tierd, path, f"{_FREEDESKTOP}.Properties", "GetAll", "s", _string(_MANAGER)),
        message(2, tierd, path, _MANAGER, "GetPlan"),
        message(2, tierd, path, f"{_FREEDESKTOP}.Properties", "Get", "ss", get),
        message(2, tierd, path, f"{_FREEDESKTOP}.ObjectManager", "GetManagedObjects"),
        message(2, tierd, path, f"{_FREEDESKTOP}.Introspectable", "Introspect"),
        message(2, tierd, path, _MANAGER, "GetHistory", "u", struct.pack("<I", 60)),
    ]


class Connection:
    """One connection to the system bus, with at most one question that is not answered."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(BUS)
        self._data = b""
        self.socket.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
        if not self.socket.recv(4096).startswith(b"OK"):
            raise OSError("the bus does not let us in")
        hello = message(1, _FREEDESKTOP, "/org/freedesktop/DBus", _FREEDESKTOP, "Hello")
        self.socket.sendall(b"BEGIN\r\n" + hello)
        while self.answer() is None:
            pass

    def ask(self, question: bytes) -> None:
        self.socket.sendall(question)

    def answer(self) -> str | None:
        """What has come, after a wait for more of it: "" for a reply, an error's name, None if neither is
        whole yet."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise OSError("the bus has closed the connection")
        self._data += data
        found = None
        while len(self._data) >= 16:
            _, kind, _, _, body, _, fields = struct.unpack_from("<cBBBIII", self._data)
            size = 16 + (fields + 7) // 8 * 8 + body
            if len(self._data) < size:
                break
            whole, self._data = self._data[:size], self._data[size:]
            if kind == METHOD_RETURN:
                found = ""
            elif kind == ERROR:
                found = _error_name(whole[16 : 16 + fields])
        return found


def _error_name(fields: bytes) -> str:
    start = fields.find(b"\4\1s\0")
    if start < 0:
        return "an error without a name"
    (length,) = struct.unpack_from("<I", fields, start + 4)
    return fields[start + 8 : start + 8 + length].decode()


def flood(seconds: float, count: int) -> dict[str, object]:
    connections = [Connection() for _ in range(count)]
    questions = _reads()
    selector = selectors.DefaultSelector()
    turns = dict.fromkeys(range(count), 0)
    for number, connection in enumerate(connections):
        selector.register(connection.socket, selectors.EVENT_READ, number)
    print("ready", flush=True)
    for number, connection in enumerate(connections):
        connection.ask(questions[number % len(questions)])
    answers, errors, until = 0, Counter[str](), time.monotonic() + seconds
    while time.monotonic() < until:
        for key, _ in selector.select(1):
            number = key.data
            name = connections[number].answer()
            if name is None:
                continue
            answers += 1
            if name:
                errors[name] += 1
            turns[number] += 1
            connections[number].ask(questions[(number + turns[number]) % len(questions)])
    return {"connections": count, "answers": answers, "errors": errors}


def good(seconds: float) -> dict[str, object]:
    connection, question = Connection(), _reads()[2]
    print("ready", flush=True)
    times, errors, until = [], Counter[str](), time.monotonic() + seconds
    while (asked := time.monotonic()) < until:
        connection.ask(question)
        while (name := connection.answer()) is None:
            pass
        answered = time.monotonic()
        times.append((answered - asked) * 1e3)
        if name:
            errors[name] += 1
        time.sleep(max(0.0, asked + EVERY - answered))
    return {"connections": 1, "answers": len(times), "errors": errors, "milliseconds": times}


if sys.argv[1] == "flood":
    print(json.dumps(flood(float(sys.argv[2]), int(sys.argv[3]))))
else:
    print(json.dumps(good(float(sys.argv[2]))))
