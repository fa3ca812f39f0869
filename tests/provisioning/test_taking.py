"""Giving up a namespace that exists: what is looked at, kept and recorded, and what a stopped run leaves."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.test_witnesses import BLKID_EXT4, UDEV_EMPTY, UDEV_EXT4
from tests.provisioning.test_conversion import CONVERT, CREATE, Bench
from tierd.core.consent import EDGE, NamespacePlan
from tierd.core.evidence import UNKNOWN_DATA
from tierd.core.policy import NamespaceRequest, ProvisionMode
from tierd.core.provision import Verdict
from tierd.kernel.edges import KeepError
from tierd.kernel.intents import Intents
from tierd.service import taking
from tierd.service.conversion import ConversionError
from tierd.service.taking import Taker

UUID = "8459ba59-89bc-4a92-8717-7ee89e284fea"
SIZE = 1207959552
REQUEST = NamespaceRequest("pmem0", UUID, "ext4", ProvisionMode.APPLY)
DESTROY = "ndctl destroy-namespace -r region0 -f namespace0.0"
WORKS = """[ "$1" = list ] && exec cat ../ndctl.json
case "$1" in
destroy-namespace) exec "$SWITCH" free;;
enable-namespace) sed -i 's/"state": "disabled", "name": "store"/"name": "store"/' ../ndctl.json;;
*) exec "$SWITCH" devdax;;
esac"""


class Store(Bench):
    """A namespace of 1152 MiB in raw mode that somebody labelled `store` and made an ext4 in."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "raw")
        self.kept = directory / "kept"
        self.allowed = ""
        listing = self.machine.directory / "ndctl.json"
        text = listing.read_text().replace('"state": "disabled", "name": "tierd:pmem0"', '"name": "store"')
        assert "store" in text
        listing.write_text(text)
        write = self.machine.write
        write("sys/bus/nd/devices/namespace0.0/alt_name", "store\n")
        write("sys/bus/nd/devices/namespace0.0/block/pmem0/x", "")
        for name, content in (("dev", "259:0"), ("size", str(SIZE // 512)), ("ro", "0")):
            write(f"sys/class/block/pmem0/{name}", f"{content}\n")
        write("dev/pmem0", "")
        os.truncate(self.device, SIZE)
        self.head = os.urandom(EDGE)
        self.put(0, self.head)
        self.put(SIZE - 4, b"tail")
        self.machine.stub("ndctl", WORKS)
        self.say("blkid", BLKID_EXT4)
        self.say("udevadm", UDEV_EXT4)

    @property
    def device(self) -> Path:
        return self.machine.root.dev / "pmem0"

    def put(self, at: int, content: bytes) -> None:
        with self.device.open("r+b") as file:
            file.seek(at)
            file.write(content)

    def say(self, tool: str, output: str, code: int = 0, first: str = "") -> None:
        path = self.machine.directory / f"{tool}.out"
        path.write_text(output)
        self.machine.stub(tool, f'[ "$1" = settle ] && exit 0\n{first}\ncat {path}; exit {code}')

    def empty(self) -> None:
        self.say("blkid", "", 2)
        self.say("udevadm", UDEV_EMPTY)

    def run(self, request: NamespaceRequest = REQUEST) -> NamespacePlan:
        converter = self.converter
        converter.recover()
        return Taker(converter, "/etc/tierd/tierd.yaml", self.kept).run(request)

    def did(self) -> list[str]:
        return [line for line in self.machine.acts() if not line.startswith("blkid")]

    def files(self) -> list[Path]:
        return sorted(self.kept.iterdir()) if self.kept.exists() else []


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store(tmp_path)
    monkeypatch.setattr(taking, "allowance", lambda *_: (Path("/allow"), store.allowed))
    return store


def test_it_becomes_memory_and_head_and_tail_are_kept(store: Store) -> None:
    assert store.run().verdict is Verdict.DONE
    assert store.did() == [DESTROY, CREATE, CONVERT]
    head, about, tail = store.files()
    assert (head.suffix, about.suffix, tail.suffix) == (".head", ".json", ".tail")
    assert head.read_bytes() == store.head
    assert tail.read_bytes() == b"\0" * (EDGE - 4) + b"tail"
    told = json.loads(about.read_text())
    assert (told["uuid"], told["holds"], told["label"], told["size"]) == (UUID, "ext4", "store", SIZE)
    assert told["tail_start"] == SIZE - EDGE
    intent, result = store.records()[:2]
    assert intent["action"] == result["action"] == "take-namespace" and result["outcome"] == "done"
    facts, after = intent["facts"], result["facts"]
    assert isinstance(facts, dict) and isinstance(after, dict)
    assert facts["taken_uuid"] == UUID and facts["found"] == "ext4" and facts["size"] == SIZE
    assert after["kept"] == str(head.with_suffix(""))


def test_a_second_run_finds_it_again_and_runs_nothing(store: Store) -> None:
    store.run()
    before = (store.did(), store.records(), store.files())
    assert store.run().verdict is Verdict.DONE
    assert (store.did(), store.records(), store.files()) == before


def test_zeros_are_given_up_with_plain_consent(store: Store) -> None:
    store.empty()
    store.put(0, b"\0" * EDGE)
    store.put(SIZE - 4, b"\0" * 4)
    assert store.run(replace(REQUEST, consent="")).verdict is Verdict.DONE


def test_unknown_data_takes_a_consent_of_its_own(store: Store) -> None:
    store.empty()
    found = store.run(replace(REQUEST, consent=""))
    assert [refusal.kind for refusal in found.refusals] == ["consent"] and store.did() == []
    assert store.run(replace(REQUEST, consent=UNKNOWN_DATA)).verdict is Verdict.DONE


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda store: store.say("udevadm", UDEV_EMPTY), "witnesses-differ"),
        (lambda store: store.say("blkid", "", 2), "witnesses-differ"),
        (lambda store: store.say("blkid", "", 8), "witness"),
        (lambda store: store.machine.stub("blkid", "exec yes"), "witness"),
        (lambda store: store.machine.write("sys/class/block/pmem0/ro", "1\n"), "read-only"),
        (lambda store: store.machine.write("sys/class/block/pmem0/holders/dm-0", ""), "holder"),
        (lambda store: store.machine.write("proc/swaps", "Filename\n/dev/pmem0 partition 1 0 -2\n"), "swap"),
        (lambda store: setattr(store, "allowed", "no such file"), "allow-file"),
        (lambda store: store.device.unlink(), "unreadable"),
    ],
)
def test_a_refusal_calls_nothing_keeps_nothing_and_records_nothing(
    store: Store, change: object, kind: str
) -> None:
    assert callable(change)
    change(store)
    found = store.run()
    assert found.verdict is Verdict.REFUSED and kind in {refusal.kind for refusal in found.refusals}
    assert store.did() == [] and store.files() == [] and not store.record.exists()


@pytest.mark.parametrize("consent", [None, "", "xfs", UNKNOWN_DATA])
def test_without_the_very_consent_nothing_is_called(store: Store, consent: str | None) -> None:
    assert store.run(replace(REQUEST, consent=consent)).verdict is Verdict.REFUSED
    assert store.did() == [] and store.files() == []


def test_what_changes_after_the_first_look_is_seen_by_the_second(store: Store) -> None:
    seen = store.machine.directory / "seen"
    swaps = store.machine.root.proc / "swaps"
    again = f'[ -e {seen} ] && printf "Filename\\n/dev/pmem0 partition 1 0 -2\\n" > {swaps}; touch {seen}'
    store.say("blkid", BLKID_EXT4, first=again)
    found = store.run()
    assert [refusal.kind for refusal in found.refusals] == ["swap"]
    assert store.did() == [] and store.files() == [] and not store.record.exists()


def test_data_that_changes_while_it_is_looked_at_is_left_alone(store: Store) -> None:
    seen = store.machine.directory / "seen"
    again = f"[ -e {seen} ] && printf changed | dd of={store.device} conv=notrunc 2>&1; touch {seen}"
    store.say("udevadm", UDEV_EXT4, first=f"{{ {again}; }} >/dev/null")
    with pytest.raises(ConversionError, match="changed while it was looked at"):
        store.run()
    assert store.did() == [] and store.files() == []


def test_nothing_is_called_when_head_and_tail_cannot_be_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.kept.write_text("a file in the way")
    with pytest.raises(KeepError, match="nothing is destroyed that is not kept"):
        store.run()
    assert store.did() == [] and not store.record.exists()
    store.kept.unlink()
    monkeypatch.setattr("tierd.kernel.evidence.room_in", lambda _: 1 << 20)
    assert [refusal.kind for refusal in store.run().refusals] == ["no-room"]


@pytest.mark.parametrize("lie", ["exit 0", "echo busy >&2; exit 240", "kill -9 $$", "exec yes"])
def test_an_ndctl_that_did_nothing_is_not_believed_and_what_was_kept_serves_again(
    store: Store, lie: str
) -> None:
    store.machine.stub("ndctl", f'[ "$1" = list ] && exec cat ../ndctl.json\n{lie}')
    with pytest.raises(ConversionError, match="namespace0.0 is still there"):
        store.run()
    assert store.records()[-1]["outcome"] == "failed"
    kept = store.files()
    assert len(kept) == 3
    store.machine.stub("ndctl", WORKS)
    assert store.run().verdict is Verdict.DONE
    assert store.files() == kept


def test_an_ndctl_that_was_killed_over_it_is_finished_by_the_next_run(store: Store) -> None:
    zero = f"dd if=/dev/zero of={store.device} bs=8192 count=1 conv=notrunc 2>/dev/null"
    disable = """sed -i 's/"name": "store"/"state": "disabled", "name": "store"/' ../ndctl.json"""
    store.machine.stub("ndctl", f'[ "$1" = list ] && exec cat ../ndctl.json\n{zero}; {disable}; kill -9 $$')
    with pytest.raises(ConversionError):
        store.run()
    kept = store.files()
    store.machine.stub("ndctl", WORKS)
    store.empty()  # the signature is gone
    assert store.run(replace(REQUEST, consent=None)).verdict is Verdict.REFUSED
    assert store.run().verdict is Verdict.DONE
    assert store.did()[-4:] == ["ndctl enable-namespace namespace0.0", DESTROY, CREATE, CONVERT]
    assert store.files() == kept and kept[0].read_bytes() == store.head


def test_a_new_file_system_in_what_a_stopped_run_left_is_left_alone(store: Store) -> None:
    store.machine.stub("ndctl", '[ "$1" = list ] && exec cat ../ndctl.json\nkill -9 $$')
    with pytest.raises(ConversionError):
        store.run()
    store.machine.stub("ndctl", WORKS)
    store.put(65536, b"a new file system")
    store.say("blkid", BLKID_EXT4.replace("ext4", "btrfs"))
    store.say("udevadm", UDEV_EXT4.replace("ext4", "btrfs"))
    assert [refusal.kind for refusal in store.run().refusals] == ["consent"]
    assert store.did() == [DESTROY]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(6))
def test_a_run_that_is_killed_between_any_two_records_is_finished_by_the_next(
    store: Store, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, count = Intents._append, iter(range(100))

    def die(self: Intents, record: dict[str, object], otherwise: str) -> None:
        if next(count) == at:
            raise Killed
        append(self, record, otherwise)

    monkeypatch.setattr(Intents, "_append", die)
    with pytest.raises(Killed):
        store.run()
    monkeypatch.setattr(Intents, "_append", append)
    assert store.run().verdict is Verdict.DONE
    assert store.did().count(DESTROY) == 1 and store.did().count(CREATE) == 1
    assert any(path.suffix == ".head" and path.read_bytes() == store.head for path in store.files())
