"""Who uses a device: every way to use one is seen, and what cannot be seen is no empty answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tierd.errors import DeniedError, MalformedError
from tierd.kernel import in_use
from tierd.kernel.in_use import block_devices, uses_of
from tierd.kernel.paths import Root

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
        self, pid: int, command: str, mountinfo: str = "", maps: str = "", namespace: int = 1
    ) -> None:
        self.write(f"proc/{pid}/comm", f"{command}\n")
        self.write(f"proc/{pid}/mountinfo", mountinfo)
        self.write(f"proc/{pid}/maps", maps)
        (self.root.proc / f"{pid}/fd").mkdir()
        (self.root.proc / f"{pid}/ns").mkdir()
        (self.root.proc / f"{pid}/ns/mnt").symlink_to(f"mnt:[{namespace}]")

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


def test_a_loop_device_over_it(tree: Tree) -> None:
    tree.write("sys/class/block/loop0/loop/backing_file", "/dev/pmem0p1\n")
    tree.write("sys/class/block/loop1/loop/backing_file", "/srv/pmem0.img\n")
    tree.write("sys/class/block/loop2/size", "0\n")
    assert tree.found() == [("pmem0p1", "holder", "loop0 is made of it")]


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
    files = tree.root.proc / "20/map_files"
    files.mkdir()
    (files / "7f0000000000-7f0000200000").symlink_to("/dev/null")
    assert tree.found() == [("dax1.0", "mapped", "process 20 (db) has it mapped")]


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
