"""The write-ahead record of everything that provisioning changes: intent before, result after, one JSON line
each.

An intent without a result is a run that was stopped; the next run puts back what the intent saved and goes
on. The file only grows, by a few hundred bytes a conversion.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tierd.core.inventory import Span, Taken
from tierd.core.provision import Action
from tierd.errors import DeniedError, MalformedError
from tierd.kernel.files import read_text, write_all
from tierd.kernel.paths import Root

DEFAULT_PATH = Path("/var/lib/tierd/conversions.jsonl")

MADE = frozenset({Action.CREATE_NAMESPACE.value, Action.FINISH_NAMESPACE.value})
"""Actions after which the namespace is whole."""

MAKING = MADE | {Action.SIZE_NAMESPACE.value}
"""Actions that make a namespace."""

TAKEN = Action.TAKE_NAMESPACE.value
"""The action that gives up a namespace that tierd did not make."""
CXL_MADE = Action.CREATE_CXL_REGION.value
"""The action that makes a region of CXL memory, which does not outlive the boot."""

ONLINE = frozenset({Action.SYSTEM_RAM.value, Action.ONLINE_BLOCKS.value})
"""Actions after which a namespace's memory is online."""

GONE = Action.DESTROY_NAMESPACE.value
"""The action after which it is free capacity."""

Value = str | int | None | list[str]
"""What a fact may be."""


@dataclass(frozen=True, slots=True)
class Intent:
    """Something begun. request: the name in the policy. action: a word of core.provision.Action.

    acts: the commands and writes, in order, as they are run. facts: what was seen before. saved: settings to
    be put back, by path below the sysfs root. boot: the boot that it belongs to; settings are gone with it.
    """

    id: str
    request: str
    action: str
    acts: tuple[str, ...]
    facts: Mapping[str, Value]
    saved: Mapping[str, str]
    boot: str


class Intents:
    """The record at `path`; made, root's alone, when the first line is written. Not for several threads."""

    def __init__(self, path: Path, root: Root) -> None:
        self._path = path
        self._boot = read_text(root.boot_id).strip()

    @property
    def path(self) -> Path:
        """Where the record is."""
        return self._path

    @property
    def boot(self) -> str:
        """The running boot."""
        return self._boot

    def begin(
        self,
        request: str,
        action: str,
        acts: tuple[str, ...],
        facts: Mapping[str, Value],
        saved: Mapping[str, str],
    ) -> Intent:
        """Write an intent and make sure that it is on the disk. Raises DeniedError."""
        intent = Intent(secrets.token_hex(8), request, action, acts, dict(facts), dict(saved), self._boot)
        self._append(
            {
                "record": "intent",
                "id": intent.id,
                "request": request,
                "action": action,
                "acts": list(acts),
                "facts": dict(facts),
                "saved": dict(saved),
                "boot": self._boot,
            },
            "nothing is done that cannot be recorded",
        )
        return intent

    def conclude(self, intent: Intent, outcome: str, words: str, facts: Mapping[str, Value]) -> None:
        """Write how it ended: `outcome` is ``done``, ``failed`` or ``interrupted``. Raises DeniedError that
        says how it ended; the intent then stays open."""
        self._append(
            {
                "record": "result",
                "id": intent.id,
                "request": intent.request,
                "action": intent.action,
                "outcome": outcome,
                "words": words,
                "facts": dict(facts),
            },
            f"not recorded: {intent.action} {outcome}: {words}",
        )

    def open_intents(self) -> tuple[Intent, ...]:
        """What was begun and not concluded, oldest first. Raises DeniedError, MalformedError."""
        found: dict[str, Intent] = {}
        for record in self._records():
            if record.get("record") == "intent":
                intent = _intent(record)
                found[intent.id] = intent
            else:
                found.pop(str(record.get("id")), None)
        return tuple(found.values())

    def unfinished(self) -> frozenset[tuple[str, int]]:
        """Requests whose namespace was begun and is not known to be made, each with the size that it was to
        have.

        Raises DeniedError, MalformedError.
        """
        latest: dict[str, int | None] = {}
        for record in self._records():
            request, facts, action = str(record.get("request")), record.get("facts"), record.get("action")
            if action not in MAKING or (action in MADE and record.get("outcome") == "done"):
                latest[request] = None
            elif record.get("record") == "intent" and isinstance(facts, dict):
                size = facts.get("size")
                latest[request] = size if isinstance(size, int) else None
        return frozenset((request, size) for request, size in latest.items() if size)

    def condemned(self) -> frozenset[tuple[str, str]]:
        """Requests whose namespace was begun to be given back and is not known to be gone, each with the
        UUID in its label. Raises DeniedError, MalformedError."""
        latest: dict[str, str | None] = {}
        for record in self._records():
            request, facts = str(record.get("request")), record.get("facts")
            if record.get("action") in MAKING or record.get("outcome") == "done":
                latest[request] = None
            elif record.get("record") == "intent" and record.get("action") == GONE:
                uuid = facts.get("label_uuid") if isinstance(facts, dict) else None
                latest[request] = uuid if isinstance(uuid, str) else None
        return frozenset((request, uuid) for request, uuid in latest.items() if uuid)

    def made(self) -> frozenset[tuple[str, str]]:
        """Requests, each with the UUID of its namespace as last recorded; none from the intent to make it
        until the result that names it, or until it was to become memory. Raises DeniedError,
        MalformedError."""
        latest: dict[str, str | None] = {}
        for record in self._records():
            facts, action = record.get("facts"), record.get("action")
            uuid = facts.get("uuid") if isinstance(facts, dict) else None
            begun = action in MAKING and record.get("record") == "intent"
            gone = action == GONE and record.get("outcome") == "done"
            if begun or gone:
                latest[str(record.get("request"))] = None
            # what is drained or given up may be somebody else's
            elif isinstance(uuid, str) and action in MADE | ONLINE:
                latest[str(record.get("request"))] = uuid
        return frozenset((request, uuid) for request, uuid in latest.items() if uuid)

    def whole(self) -> frozenset[str]:
        """The UUIDs of namespaces, and the identities of CXL regions, whose memory was all online, in this
        boot, when tierd last did something about it. Raises DeniedError, MalformedError."""
        begun: dict[str, object] = {}
        found: set[str] = set()
        for record in self._records():
            facts, id_ = record.get("facts"), str(record.get("id"))
            if not isinstance(facts, dict):
                continue
            name = facts.get("uuid") or facts.get("cxl_identity")
            if record.get("record") == "intent":
                found.discard(str(name))
                if record.get("action") in ONLINE | {CXL_MADE} and record.get("boot") == self._boot:
                    begun[id_] = name
            elif record.get("outcome") == "done" and id_ in begun and (name := name or begun[id_]):
                if facts.get("blocks") is not None and facts.get("blocks") == facts.get("online_blocks"):
                    found.add(str(name))
        return frozenset(found)

    def taken(self) -> tuple[Taken, ...]:
        """Namespaces begun to be given up with consent, oldest first; one for each request and UUID. Raises
        DeniedError, MalformedError."""
        found: dict[str, Taken] = {}
        for record in self._records():
            if record.get("action") != TAKEN:
                continue
            if record.get("record") == "intent":
                found[str(record.get("id"))] = _taken(record)
            elif record.get("outcome") == "done" and (begun := found.get(str(record.get("id")))) is not None:
                found[str(record.get("id"))] = replace(begun, done=True)
        latest: dict[tuple[str, str], Taken] = {}
        for taken in found.values():
            key = (taken.request, taken.uuid)
            if key not in latest or not latest[key].done:
                latest[key] = taken
        return tuple(latest.values())

    def cxl_made(self) -> frozenset[tuple[str, str]]:
        """Requests whose CXL region tierd made in this boot and did not take down since, each with the
        identity of the region; none until the result that says it. Raises DeniedError, MalformedError."""
        found: dict[str, str] = {}
        begun: set[str] = set()
        for record in self._records():
            request, facts = str(record.get("request")), record.get("facts")
            if record.get("record") == "intent":
                if record.get("action") == CXL_MADE and record.get("boot") == self._boot:
                    begun.add(str(record.get("id")))
                    found.pop(request, None)
            # known to be gone, or never to have come
            elif isinstance(facts, dict) and facts.get("cxl_region") == "gone":
                found.pop(request, None)
            elif isinstance(facts, dict) and str(record.get("id")) in begun:
                identity = facts.get("cxl_identity")
                if isinstance(identity, str):
                    found[request] = identity
        return frozenset(found.items())

    def _records(self) -> list[dict[str, object]]:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DeniedError(f"{self._path}: {error.strerror}") from error
        records = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                # A line that a crash cut short was never acted upon: acting waits for the whole line on the
                # disk.
                continue
            if not isinstance(record, dict):
                raise MalformedError(f"{self._path}:{number}: expected an object")
            records.append(record)
        return records

    def _append(self, record: dict[str, object], otherwise: str) -> None:
        """otherwise: what it means, in words, when this fails. Raises DeniedError."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"at": at, **record}, ensure_ascii=True).encode() + b"\n"
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            new = not self._path.exists()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    line = b"\n" + line  # behind a line that a crash cut short
                write_all(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if new:
                directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
        except OSError as error:
            raise DeniedError(f"{self._path}: {error.strerror}: {otherwise}") from error


def _intent(record: Mapping[str, object]) -> Intent:
    acts, facts, saved = record.get("acts"), record.get("facts"), record.get("saved")
    if not isinstance(acts, list) or not isinstance(facts, dict) or not isinstance(saved, dict):
        raise MalformedError(f"intent {record.get('id')}: acts, facts or saved have the wrong shape")
    return Intent(
        id=str(record.get("id")),
        request=str(record.get("request")),
        action=str(record.get("action")),
        acts=tuple(str(act) for act in acts),
        facts=facts,
        saved={str(path): str(value) for path, value in saved.items()},
        boot=str(record.get("boot")),
    )


def _taken(record: Mapping[str, object]) -> Taken:
    facts = record.get("facts")
    if not isinstance(facts, dict):
        raise MalformedError(f"intent {record.get('id')}: facts have the wrong shape")
    try:
        return Taken(
            request=str(record.get("request")),
            uuid=str(facts["taken_uuid"]),
            label_uuid=str(facts["taken_label_uuid"]),
            iset_id=int(facts["iset_id"], 16),
            size=int(facts["size"]),
            memory=int(facts["memory"]),
            found=str(facts["found"]),
            data=Span(int(facts["data_start"]), int(facts["data_size"])),
            kept=str(facts["kept"]),
            done=False,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedError(f"intent {record.get('id')}: facts have the wrong shape") from error
