"""Who uses a device: every way to use one is seen, and what cannot be seen is no empty answer."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tierd.errors import DeniedError, MalformedError
from tierd.kernel import in_use, kernel_openers
from tierd.kernel.in_use import block_devices, uses_of
from tierd.kernel.paths import Root
from tierd.kernel.syscalls import device_number

HEADER = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


class Tree:
    """Two namespaces, pmem0 with a partition and dax1.0, and one process that uses nothing."""

    def __init__(self, path: Path) -> None:
        self.root = Root(path)
        self.write("sys/class/block/pmem0/dev", "259:0\n")
        self.write("sys/class/block/pmem0/pmem0p1/dev", "259:1\n")
        self.write("sys/class/block/pmem0p1/dev", "259:1\n")
        self.write("sys/bus/dax/devices/dax1.0/dev", "1:3\n")  # of /dev/null, which a test may open
        self.write("sys/bus/nd/devices/namespace0.0/block/pmem0/x", "")
        self.write("sys/bus/nd/devices/namespace1.0/size", "1\n")
        self.write("proc/swaps", HEADER)
        self.process(1, "systemd")

    def write(self, name: str, content: str) -> None:
        path = self.root.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def process(
        self, pid: int, command: str, mountinfo: str = "", maps: str = "", namespace: int = 1, at: str = ""
    ) -> None:
        at = at or f"{pid}"
        self.write(f"proc/{at}/comm", f"{command}\n")
        self.write(f"proc/{at}/mountinfo", mountinfo)
        self.write(f"proc/{at}/maps", maps)
        (self.root.proc / at / "fd").mkdir()
        (self.root.proc / at / "ns").mkdir()
        (self.root.proc / at / "ns/mnt").symlink_to(f"mnt:[{namespace}]")

    def mapped(self, pid: int, address: str, target: str) -> None:
        files = self.root.proc / f"{pid}/map_files"
        files.mkdir(exist_ok=True)
        (files / address).symlink_to(target)

    def open(self, pid: int, target: str) -> None:
        (self.root.proc / f"{pid}/fd/7").symlink_to(target)

    def found(self, *names: str) -> list[tuple[str, str, str]]:
        uses = uses_of(self.root, names or ("pmem0", "pmem0p1", "dax1.0"))
        return [(name, use.kind, use.words) for name, found in uses.items() for use in found]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_the_block_devices_of_a_namespace(tree: Tree) -> None:
    assert block_devices(tree.root, "namespace0.0") == ("pmem0", "pmem0p1")
    assert block_devices(tree.root, "namespace1.0") == ()
    tree.write("sys/bus/nd/devices/btt0.1/namespace", "namespace1.0\n")
    tree.write("sys/bus/nd/devices/btt0.1/block/pmem1s/x", "")
    assert block_devices(tree.root, "namespace1.0") == ("pmem1s",)


def test_a_loop_device_over_it(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write("sys/class/block/loop0/loop/backing_file", "/dev/pmem0p1\n")
    tree.write("sys/class/block/loop1/loop/backing_file", "/srv/pmem0.img\n")
    monkeypatch.setattr(kernel_openers, "_loop_backing", lambda device: "0:0")
    tree.write("sys/class/block/loop2/size", "0\n")
    assert tree.found() == [("pmem0p1", "holder", "loop0 is made of it")]


@pytest.mark.parametrize("path", ["/run/x", "/dev/pmem0p1 (deleted)"])
def test_a_loop_device_over_it_by_another_name(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A node of a container, or one that is gone: what a loop device is made of is known by its number."""

    def status(descriptor: int, request: int, information: bytearray) -> int:
        assert (request, len(information)) == (0x4C05, 232)
        information[16:24] = os.makedev(259, 1).to_bytes(8, "little")
        return 0

    tree.write("sys/class/block/loop0/loop/backing_file", f"{path}\n")
    tree.write("dev/loop0", "")
    monkeypatch.setattr(fcntl, "ioctl", status)
    assert tree.found() == [("pmem0p1", "holder", "loop0 is made of it")]


def test_a_loop_device_that_does_not_say(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(descriptor: int, request: int, information: bytearray) -> int:
        raise OSError(code, os.strerror(code))

    tree.write("sys/class/block/loop0/loop/backing_file", "/run/x\n")
    with pytest.raises(MalformedError, match="loop0: No such file"):
        tree.found()
    tree.write("dev/loop0", "")
    monkeypatch.setattr(fcntl, "ioctl", status)
    code = errno.ENXIO
    assert tree.found() == [], "it was let go meanwhile"
    code = errno.EIO
    with pytest.raises(MalformedError, match="loop0: Input/output error"):
        tree.found()


def test_what_the_kernel_serves_to_other_machines(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has them open, and claims nothing, so that O_EXCL does not see it."""
    config = "sys/kernel/config"
    tree.write(f"{config}/nvmet/subsystems/nqn.t/namespaces/1/device_path", "/dev/pmem0\n")
    tree.write(f"{config}/nvmet/subsystems/nqn.t/namespaces/2/device_path", "(null)\n")
    tree.write(f"{config}/nvmet/subsystems/nqn.u/namespaces/1/device_path", "/srv/elsewhere\n")
    monkeypatch.setattr(
        kernel_openers, "device_number", lambda path: "259:1" if path == "/srv/elsewhere" else ""
    )
    tree.write(
        f"{config}/target/core/fileio_0/disk/info",
        "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 16384\n"
        "        TCM FILEIO ID: 0        File: /dev/pmem0  Size: 4294967296  Mode: O_DSYNC Async: 0\n",
    )
    assert tree.found() == [
        ("pmem0", "holder", "NVMe target nqn.t serves it"),
        ("pmem0", "holder", "SCSI target disk serves it"),
        ("pmem0p1", "holder", "NVMe target nqn.u serves it"),
    ]


def test_nobody(tree: Tree) -> None:
    assert tree.found() == []
    assert uses_of(tree.root, ()) == {}


def test_a_volume_on_a_partition(tree: Tree) -> None:
    tree.write("sys/class/block/pmem0p1/holders/dm-3/x", "")
    assert tree.found() == [("pmem0p1", "holder", "dm-3 is made of it")]


def test_swap(tree: Tree) -> None:
    tree.write("proc/swaps", f"{HEADER}/dev/pmem0  partition 1 0 -2\n/dev/sda1 partition 1 0 -2\n")
    assert tree.found() == [("pmem0", "swap", "/dev/pmem0 is swap")]


def test_mounts_in_every_mount_namespace(tree: Tree) -> None:
    line = "36 35 259:1 / /srv/my\\040data rw,noatime shared:1 - xfs /dev/elsewhere rw\n"
    tree.process(20, "container", mountinfo=line, namespace=2)
    assert tree.found() == [("pmem0p1", "mounted", "mounted on /srv/my data")]


def test_btrfs_is_known_by_its_source(tree: Tree) -> None:
    tree.process(20, "sh", mountinfo="36 35 0:41 / /b rw - btrfs /dev/pmem0 rw\nnonsense\n", namespace=2)
    assert tree.found() == [("pmem0", "mounted", "mounted on /b")]


def test_open_by_the_number_whatever_it_is_called(tree: Tree) -> None:
    tree.process(20, "evil\nname")
    tree.open(20, "/dev/null")
    ((name, kind, words),) = tree.found()
    assert (name, kind) == ("dax1.0", "open")
    assert words.startswith("process 20 (evil") and "\n" not in words


def test_open_by_name_where_the_number_cannot_be_had(tree: Tree) -> None:
    tree.process(20, "dd")
    tree.open(20, "/dev/pmem0")
    assert tree.found() == [("pmem0", "open", "process 20 (dd) has it open")]


def test_mapped_and_closed(tree: Tree) -> None:
    tree.process(20, "db", maps="7f0000000000-7f0000200000 rw-s 00000000 00:06 1 /dev/dax1.0\n")
    assert tree.found() == [("dax1.0", "mapped", "process 20 (db) has it mapped")]


def test_mapped_under_another_name(tree: Tree) -> None:
    tree.process(20, "db", maps="7f0000000000-7f0000200000 rw-s 00000000 00:06 1 /dev/renamed\n")
    tree.mapped(20, "7f0000000000-7f0000200000", "/dev/null")
    assert tree.found() == [("dax1.0", "mapped", "process 20 (db) has it mapped")]


@pytest.mark.parametrize("path", ["/srv/guest/dev/disk", "/dev/pts/x (deleted)", ""])
def test_mapped_through_a_node_that_may_lie_anywhere(tree: Tree, path: str) -> None:
    libc = "7f0000100000-7f0000200000 r-xp 00000000 fe:00 7 /usr/lib/libc.so.6\n"
    anonymous = (
        "7f0000300000-7f0000400000 rw-p 00000000 00:00 0 \n7f0000400000-7f0000500000 rw-p 0 00:00 0 [heap]\n"
    )
    tree.process(20, "db", maps=f"{libc}{anonymous}00400000-00401000 rw-s 00000000 fe:00 9       {path}\n")
    tree.mapped(20, "7f0000100000-7f0000200000", __file__)
    tree.mapped(20, "400000-401000", "/dev/null")  # as the kernel writes it: without zeros in front
    assert tree.found() == [("dax1.0", "mapped", "process 20 (db) has it mapped")]
    assert tree.found("dax1.0") == [("dax1.0", "mapped", "process 20 (db) has it mapped")]


def test_a_dax_device_cannot_be_mapped_privately_and_a_block_device_can(tree: Tree) -> None:
    tree.process(20, "db", maps="7f0000000000-7f0000200000 r--p 00000000 fe:00 9 /srv/disk\n")
    tree.mapped(20, "7f0000000000-7f0000200000", "/dev/null")
    assert tree.found("dax1.0") == []
    tree.write("sys/class/block/pmem0/dev", "1:3\n")
    assert tree.found("pmem0") == [("pmem0", "mapped", "process 20 (db) has it mapped")]


def test_what_is_mapped_elsewhere_meanwhile_is_looked_at_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "7f0000{}00000-7f0000200000 rw-s 00000000 fe:00 9 /srv/disk\n"
    tree.process(20, "db", maps=line.format(0))
    with pytest.raises(MalformedError, match="20/maps: changes faster"):
        tree.found()
    tree.mapped(20, "7f0000100000-7f0000200000", "/dev/null")
    answers = [line.format(0), line.format(1)]
    read = in_use.read_text
    monkeypatch.setattr(in_use, "read_text", lambda p: answers.pop(0) if p.name == "maps" else read(p))
    tree.write("proc/1/maps", "")
    os.rename(tree.root.proc / "1", tree.root.path / "gone")
    assert tree.found() == [("dax1.0", "mapped", "process 20 (db) has it mapped")]


def test_what_may_not_be_asked_is_an_error(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.process(20, "db", maps="7f0000000000-7f0000200000 rw-s 00000000 fe:00 9 /srv/disk\n")
    tree.mapped(20, "7f0000000000-7f0000200000", "/dev/null")

    def refused(path: Path) -> str:
        if "map_files" in str(path):
            raise PermissionError(1, "Operation not permitted", str(path))
        return device_number(path)

    monkeypatch.setattr(in_use, "device_number", refused)
    with pytest.raises(DeniedError, match="map_files"):
        tree.found()


def test_threads_that_outlive_the_main_one(tree: Tree) -> None:
    tree.process(20, "db")
    (tree.root.proc / "20/ns/mnt").unlink()
    mountinfo = "36 35 259:1 / /srv rw - xfs /dev/elsewhere rw\n"
    maps = "7f0000000000-7f0000200000 rw-s 00000000 00:06 1 /dev/pmem0\n"
    tree.process(20, "main", at="20/task/20")
    tree.process(20, "worker", at="20/task/21", mountinfo=mountinfo, maps=maps, namespace=2)
    (tree.root.proc / "20/task/21/fd/7").symlink_to("/dev/null")
    assert tree.found() == [
        ("pmem0", "mapped", "process 20 (db) has it mapped"),
        ("pmem0p1", "mounted", "mounted on /srv"),
        ("dax1.0", "open", "process 20 (db) has it open"),
    ]


@pytest.mark.parametrize("end", ["\x0b", "\x1c", "\x85", "\u2028"])
def test_paths_with_what_python_takes_for_the_end_of_a_line(tree: Tree, end: str) -> None:
    mountinfo = f"36 35 259:1 / /srv/a{end}b rw - xfs /dev/elsewhere rw\n"
    maps = f"7f0000000000-7f0000200000 rw-s 00000000 fe:00 9 /srv/a{end}b\n"
    tree.process(20, "db", mountinfo=mountinfo, maps=maps, namespace=2)
    tree.mapped(20, "7f0000000000-7f0000200000", "/dev/null")
    assert [(name, kind) for name, kind, _ in tree.found()] == [("pmem0p1", "mounted"), ("dax1.0", "mapped")]


ENDED = """\
import ctypes, mmap, os, threading, time
descriptor = os.open("/dev/zero", os.O_RDWR)
kept = mmap.mmap(descriptor, 4096, flags=mmap.MAP_PRIVATE)
os.closerange(3, 100)  # mmap has a descriptor of its own
opened = os.open("/dev/null", os.O_RDWR)
threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
if {ended}:
    ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.parametrize("ended", [False, True])
def test_a_process_of_this_machine(tree: Tree, ended: bool) -> None:
    tree.write("sys/class/block/pmem0/dev", "1:5\n")  # of /dev/zero
    with subprocess.Popen(
        [sys.executable, "-c", ENDED.format(ended=ended)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            process = Path("/proc") / str(child.pid)
            until = time.monotonic() + 20
            while ended and (process / "maps").read_text() and time.monotonic() < until:
                time.sleep(0.01)
            for task in os.listdir(process / "task"):
                (tree.root.proc / task).symlink_to(f"/proc/{task}")
            found = {(name, kind) for name, kind, words in tree.found() if f" {child.pid} " in words}
            assert found == {("pmem0", "mapped"), ("dax1.0", "open")}
        finally:
            child.kill()


def test_a_process_that_ends_meanwhile_hides_nobody_else(tree: Tree) -> None:
    (tree.root.proc / "5").mkdir()
    tree.process(20, "dd")
    tree.open(20, "/dev/pmem0")
    assert [kind for _, kind, _ in tree.found()] == ["open"]


def test_what_is_hidden_is_an_error(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.listdir

    def hidden(path: str | Path) -> list[str]:
        if str(path).endswith("/fd"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(in_use.os, "listdir", hidden)
    with pytest.raises(DeniedError):
        tree.found()


def test_mounts_that_cannot_be_read_are_not_taken_for_none(tree: Tree) -> None:
    tree.process(20, "sh", namespace=2)
    (tree.root.proc / "20/mountinfo").unlink()
    (tree.root.proc / "20/mountinfo").mkdir()
    with pytest.raises(MalformedError, match="mountinfo"):
        tree.found()


def test_a_process_that_ends_meanwhile_has_no_mounts(tree: Tree) -> None:
    tree.process(20, "sh", namespace=2)
    (tree.root.proc / "20/ns/mnt").unlink()
    assert tree.found() == []
