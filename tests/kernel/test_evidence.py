"""Head and tail, and everything else that is known of a namespace, on a tree that looks like a machine."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.core.machines import REGION, device
from tests.core.test_consent import HELD, LABEL_UUID, TAKEN
from tests.kernel.test_in_use import Tree
from tests.kernel.test_witnesses import BLKID_EXT4, UDEV_DAX, UDEV_EMPTY, UDEV_EXT4, Stubs
from tierd.core.consent import EDGE
from tierd.core.evidence import Content, Evidence, Target
from tierd.core.inventory import Span
from tierd.errors import GoneError, MalformedError
from tierd.kernel.edges import Edges, KeepError, forget, keep, read_edges, read_kept, room_in, unchanged
from tierd.kernel.evidence import find_data, gather

MIB = 1 << 20
SIZE = 32 * MIB
START = 4 << 30
ALLOW = (Path("/etc/tierd/allow-convert.d/UUID"), "")


class Machine(Tree):
    """A namespace of 32 MiB in raw mode as pmem0, which udev and blkid call empty, and which is."""

    def __init__(self, path: Path) -> None:
        super().__init__(path / "root")
        self.write("sys/class/block/pmem0/size", f"{SIZE // 512}\n")
        self.write("sys/class/block/pmem0/ro", "0\n")
        self.write("dev/pmem0", "")
        self.write("dev/pmem0p1", "")
        os.truncate(self.device, SIZE)
        (path / "bin").mkdir()
        self.stubs = Stubs(path / "bin")
        self.stubs.make("blkid", "", 2)
        self.stubs.make("udevadm", UDEV_EMPTY)
        self.kept = path / "kept"
        self.region = REGION
        self.namespace = replace(HELD, name="namespace0.0", mode="raw", span=Span(START, SIZE))

    @property
    def device(self) -> Path:
        return self.root.dev / "pmem0"

    def put(self, at: int, content: bytes) -> None:
        with self.device.open("r+b") as file:
            file.seek(at)
            file.write(content)

    def look(self, **target: object) -> Evidence:
        wanted = Target(self.region, self.namespace, **target)  # type: ignore[arg-type]
        return gather(self.root, self.stubs.tools, wanted, ALLOW, self.kept)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_empty_namespace(machine: Machine) -> None:
    found = machine.look()
    assert (found.device, found.content, found.uses, found.blind) == ("pmem0", Content.ZEROS, (), "")
    assert [(w.name, w.found, w.trouble) for w in found.witnesses] == [("blkid", "", ""), ("udev", "", "")]
    assert found.room is not None and found.room > 0 and not found.read_only


@pytest.mark.parametrize("at", [0, 4095, EDGE - 1, SIZE - EDGE, SIZE - 1])
def test_one_byte_at_either_end_is_data(machine: Machine, at: int) -> None:
    machine.put(at, b"\1")
    assert machine.look().content is Content.DATA


def test_a_file_system_with_its_signature(machine: Machine) -> None:
    machine.put(1080, b"\x53\xef")
    machine.stubs.make("blkid", BLKID_EXT4)
    machine.stubs.make("udevadm", UDEV_EXT4)
    found = machine.look()
    assert [w.found for w in found.witnesses] == ["ext4", "ext4"] and found.content is Content.DATA


@pytest.mark.parametrize(
    ("at", "header", "kind"),
    [
        (4096, b"NVDIMM_PFN_INFO\0", "pfn"),
        (4096, b"NVDIMM_DAX_INFO\0", "dax"),
        (4096, b"BTT_ARENA_INFO\0\0", "btt"),
        (0, b"BTT_ARENA_INFO\0\0", "btt"),
    ],
)
def test_the_header_of_another_namespace(machine: Machine, at: int, header: bytes, kind: str) -> None:
    machine.put(at, header)
    assert machine.look().info_block == kind
    machine.put(at, bytes(16))
    assert machine.look().info_block == ""


def test_a_device_that_is_read_only(machine: Machine) -> None:
    machine.write("sys/class/block/pmem0/ro", "1\n")
    assert machine.look().read_only


def test_who_uses_it_also_by_a_partition(machine: Machine) -> None:
    machine.process(7, "db", mountinfo="1 2 259:1 / /srv rw - ext4 /dev/pmem0p1 rw\n", namespace=2)
    machine.open(7, "/dev/pmem0")
    assert {use.kind for use in machine.look().uses} == {"mounted", "open"}


def test_processes_that_hide_what_is_open(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tierd.kernel.in_use.os.listdir", refuse)
    assert "permission denied" in machine.look().blind


def test_a_device_that_the_kernel_holds(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def busy(path: Path, flags: int, *more: int) -> int:
        if flags & os.O_EXCL:
            raise OSError(16, "Device or resource busy")
        return opened(path, flags, *more)

    monkeypatch.setattr("tierd.kernel.evidence.os.open", busy)
    assert [use.words for use in machine.look().uses] == [
        "the kernel holds pmem0",
        "the kernel holds pmem0p1",
    ]


def test_a_device_that_ends_early_or_is_not_there_cannot_be_read(machine: Machine) -> None:
    os.truncate(machine.device, SIZE - 1)
    found = machine.look()
    assert found.content is Content.UNREADABLE and found.content_words and found.witnesses == ()
    machine.device.unlink()
    assert "does not exist" in machine.look().content_words
    machine.namespace = replace(machine.namespace, name="namespace1.0")
    assert "no device that shows what it holds" in machine.look().content_words


def test_nothing_is_read_of_a_region_with_media_errors(machine: Machine) -> None:
    machine.region = replace(REGION, bad_blocks=1)
    assert machine.look().content is Content.UNREADABLE
    assert not (machine.stubs.directory / "calls").exists()


def devdax(machine: Machine) -> None:
    machine.write("sys/bus/dax/devices/dax1.0/align", f"{2 * MIB}\n")
    machine.device.rename(machine.root.dev / "dax1.0")
    machine.device.symlink_to("dax1.0")
    machine.stubs.make("udevadm", UDEV_DAX)
    dax = replace(device(), name="dax1.0", span=Span(START + 2 * MIB, SIZE - 2 * MIB))
    machine.namespace = replace(machine.namespace, name="namespace1.0", mode="devdax", dax=dax)
    os.truncate(machine.root.dev / "dax1.0", SIZE - 2 * MIB)


def test_a_devdax_namespace_is_mapped_and_blkid_is_shown_its_head_and_tail(machine: Machine) -> None:
    devdax(machine)
    copy = machine.stubs.directory / "copy"
    blkid = machine.stubs.directory / "blkid"
    blkid.write_text(f'#!/bin/sh\n/usr/bin/cp --sparse=always "$4" {copy}; exit 2\n')
    assert machine.look().content is Content.ZEROS
    machine.put(SIZE - 2 * MIB - 3, b"end")
    machine.put(9, b"head")
    assert machine.look().content is Content.DATA
    assert copy.stat().st_size == SIZE - 2 * MIB
    with copy.open("rb") as file:
        assert file.read(13)[9:] == b"head"
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"end"


def test_where_the_data_of_an_fsdax_namespace_begins(machine: Machine) -> None:
    machine.namespace = replace(machine.namespace, name="namespace1.0", mode="fsdax")
    machine.write("sys/bus/nd/devices/pfn1.0/namespace", "namespace1.0\n")
    machine.write("sys/bus/nd/devices/pfn1.0/resource", f"{START + 4 * MIB:#x}\n")
    machine.write("sys/bus/nd/devices/pfn1.0/block/pmem0/x", "")
    data = find_data(machine.root, Target(REGION, machine.namespace))
    assert data.span == Span(4 * MIB, SIZE)
    with pytest.raises(GoneError):
        find_data(machine.root, Target(REGION, replace(machine.namespace, name="namespace9.0")))


def test_a_stopped_run_is_gone_on_with_when_only_the_info_block_is_gone(machine: Machine) -> None:
    data = Span(0, SIZE)
    machine.put(0, os.urandom(16384))
    machine.put(SIZE - 5, b"tail!")
    keep(machine.kept, "kept", read_edges(machine.device, 0, SIZE, EDGE), {})
    taken = replace(TAKEN, label_uuid=LABEL_UUID, data=data)
    assert machine.look(taken=taken).as_kept is True
    machine.put(0, b"\0" * 8192)
    assert machine.look(taken=taken).as_kept is True
    machine.put(8192, b"\0\0")
    assert machine.look(taken=taken).as_kept is False
    assert machine.look(taken=replace(taken, kept="another")).as_kept is False
    assert machine.look(taken=replace(taken, data=Span(0, SIZE + 1))).as_kept is False
    assert machine.look().as_kept is None


def test_what_may_have_changed_is_what_ndctl_writes() -> None:
    kept = Edges(b"x" * 10000, b"y" * 10000, 30000)
    assert unchanged(kept, kept, 0)
    assert unchanged(kept, replace(kept, head=b"\0" * 8192 + b"x" * 1808), 0)
    assert not unchanged(kept, replace(kept, head=b"\0" * 8193 + b"x" * 1807), 0)
    assert not unchanged(kept, replace(kept, head=b"z" * 8192 + b"x" * 1808), 0)
    assert not unchanged(kept, replace(kept, head=b"\0" * 8192 + b"x" * 1808), 8192)
    assert not unchanged(kept, replace(kept, tail=b"y" * 9999 + b"z"), 0)
    assert not unchanged(kept, replace(kept, size=30001), 0)


def test_head_and_tail_are_kept_for_root_alone_and_read_back(tmp_path: Path) -> None:
    edges = Edges(b"head", b"tail", 100)
    files = keep(tmp_path / "kept", "name", edges, {"uuid": "u"})
    assert [path.name for path in files] == ["name.head", "name.tail", "name.json"]
    assert [oct(path.stat().st_mode & 0o777) for path in files] == ["0o600"] * 3
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert json.loads(files[2].read_text()) == {"uuid": "u", "size": 100}
    assert read_kept(tmp_path / "kept", "name") == edges
    with pytest.raises(KeepError, match="File exists"):
        keep(tmp_path / "kept", "name", edges, {})
    assert read_kept(tmp_path / "kept", "name") == edges, "what was there is not touched"
    forget(files)
    assert list((tmp_path / "kept").iterdir()) == [] and read_kept(tmp_path / "kept", "name") is None


def test_nothing_is_left_of_what_could_not_be_kept(tmp_path: Path) -> None:
    (tmp_path / "name.json").write_text("another's")
    with pytest.raises(KeepError, match="nothing is destroyed that is not kept"):
        keep(tmp_path, "name", Edges(b"h", b"t", 2), {})
    assert [path.name for path in tmp_path.iterdir()] == ["name.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(KeepError):
        keep(tmp_path / "file/below", "name", Edges(b"h", b"t", 2), {})


def test_room_is_that_of_the_first_directory_there_is(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    assert room_in(tmp_path / "a/b/c") == pytest.approx(found.f_bavail * found.f_frsize, rel=0.2)


def test_a_short_device_is_told(tmp_path: Path) -> None:
    path = tmp_path / "device"
    path.write_bytes(b"x" * 100)
    assert read_edges(path, 10, 50, 20) == Edges(b"x" * 20, b"x" * 20, 50)
    with pytest.raises(MalformedError, match="ends after 100 bytes"):
        read_edges(path, 90, 50, 20)
