"""Who uses a device, from trees that look like a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tierd.kernel.paths import Root
from tierd.kernel.users import read_users

MOUNTS = (
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "40 22 259:0 / /srv/my\\040data rw,relatime shared:2 master:3 - ext4 /dev/pmem0 rw,dax\n"
    "41 22 0:44 /sub /backup rw - btrfs /dev/pmem1p1 rw\n"
)


class Tree:
    """A root with block devices and processes."""

    def __init__(self, directory: Path) -> None:
        self.root = Root(directory)
        for name, number in (("pmem0", "259:0"), ("pmem1", "259:1"), ("pmem2", "259:2")):
            self.write(f"sys/class/block/{name}/dev", f"{number}\n")
        self.write("sys/class/block/pmem1/pmem1p1/partition", "1\n")
        self.write("sys/class/block/pmem1p1/dev", "259:3\n")
        self.namespace("self", 1)

    def write(self, name: str, content: str) -> None:
        path = self.root.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def namespace(self, process: str, number: int) -> None:
        link = self.root.proc / process / "ns/mnt"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"mnt:[{number}]")

    def opens(self, pid: int, device: str) -> None:
        self.write(f"proc/{pid}/comm", "database\n")
        link = self.root.proc / f"{pid}/fd/7"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"/dev/{device}")

    def users(self, *dax: str) -> dict[str, tuple[str, ...]]:
        self.denied: list[Path] = []
        return read_users(self.root, ("pmem0", "pmem1", "pmem2"), dax, self.denied)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nobody(tree: Tree) -> None:
    assert tree.users("dax1.0") == {"pmem0": (), "pmem1": ("pmem1p1",), "pmem2": (), "dax1.0": ()}
    assert read_users(tree.root, (), (), []) == {}


def test_mounts_also_by_a_file_system_with_numbers_of_its_own(tree: Tree) -> None:
    tree.write("proc/self/mountinfo", MOUNTS + "garbage\n\n - \n")
    found = tree.users()
    assert found["pmem0"] == ("ext4 at /srv/my data",)
    assert found["pmem1"] == ("pmem1p1", "btrfs at /backup")


def test_a_mount_that_another_namespace_alone_has(tree: Tree) -> None:
    tree.write("proc/self/mountinfo", MOUNTS.splitlines()[1])
    for pid, number in (("1", 1), ("300", 2), ("301", 2)):
        tree.namespace(pid, number)
        tree.write(f"proc/{pid}/mountinfo", MOUNTS)
    found = tree.users()
    assert found["pmem0"] == ("ext4 at /srv/my data",)
    assert found["pmem1"] == ("pmem1p1", "btrfs at /backup in the mount namespace of 300")


def test_swap_holders_and_what_lies_upon_them(tree: Tree) -> None:
    tree.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/pmem2 partition\t1\t0\t-2\n")
    tree.write("sys/class/block/pmem0/holders/dm-3", "")
    tree.write("sys/class/block/dm-3/dm/name", "luks-data\n")
    tree.write("sys/class/block/dm-3/dev", "253:3\n")
    tree.write("proc/self/mountinfo", "9 1 253:3 / /safe rw - xfs /dev/mapper/luks-data rw\n")
    found = tree.users()
    assert found["pmem2"] == ("swap",)
    assert found["pmem0"] == ("dm-3 (luks-data)", "xfs at /safe")


def test_holders_that_hold_each_other_end(tree: Tree) -> None:
    tree.write("sys/class/block/pmem0/holders/dm-1", "")
    tree.write("sys/class/block/dm-1/holders/pmem0", "")
    assert tree.users()["pmem0"] == ("dm-1",)


def test_processes_that_have_a_device_open(tree: Tree) -> None:
    tree.opens(17, "dax0.0")
    tree.opens(18, "pmem1p1")
    tree.opens(19, "null")
    found = tree.users("dax0.0")
    assert found["dax0.0"] == ("open by 17 (database)",)
    assert found["pmem1"] == ("pmem1p1", "open by 18 (database)")
    assert tree.denied == []


def test_what_may_not_be_seen_is_named_once(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.opens(17, "dax0.0")
    tree.opens(18, "dax0.0")

    def refuse(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tierd.kernel.users.os.listdir", refuse)
    assert tree.users("dax0.0")["dax0.0"] == ()
    assert tree.denied == [tree.root.proc / "PID/fd"]
