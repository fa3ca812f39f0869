"""Tables that say that a device is to be mounted, or to be swap, though it is not now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.test_evidence import Machine
from tests.kernel.test_in_use import Tree
from tierd.errors import MalformedError
from tierd.kernel.mount_tables import named_in_tables

UUID = "0ca06cc9-4ef9-4fc1-a56b-db81433947dd"
NAMESPACE = "FFCCF0DF-4ef9-4fc1-a56b-db81433947dd"
UDEV = f"S:disk/by-uuid/{UUID}\nS:disk/by-label/my\\x20data\nS:disk/by-id/pmem-x\nI:1\nE:ID_FS_TYPE=ext4\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.write("run/udev/data/b259:0", UDEV)
    tree.write("run/udev/data/b259:1", "S:disk/by-partuuid/44-01\n")
    return tree


def words(tree: Tree, *names: str) -> list[str]:
    found = named_in_tables(tree.root, names or ("pmem0", "pmem0p1"), (NAMESPACE, None))
    assert {use.kind for use in found} <= {"named"}
    return [use.words for use in found]


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("/dev/pmem0", "/dev/pmem0"),
        ("/dev/pmem0p1", "/dev/pmem0p1"),
        (f"UUID={UUID}", f"UUID={UUID}"),
        (f'UUID="{UUID.upper()}"', f'UUID="{UUID.upper()}"'),
        (r"LABEL=my\040data", "LABEL=my data"),
        ("PARTUUID=44-01", "PARTUUID=44-01"),
        ("ID=pmem-x", "ID=pmem-x"),
        (f"/dev/disk/by-uuid/{UUID}", f"/dev/disk/by-uuid/{UUID}"),
        ("/dev/disk/by-path/link", "/dev/disk/by-path/link"),
        # of a namespace that shows no device now
        (f"/dev/disk/by-id/pmem-{NAMESPACE.lower()}", f"/dev/disk/by-id/pmem-{NAMESPACE.lower()}"),
        ("/dev/sda:/dev/pmem0", "/dev/sda:/dev/pmem0"),
    ],
)
def test_fstab_names_it(tree: Tree, spec: str, shown: str) -> None:
    tree.write("dev/pmem0p1", "")
    (tree.root.dev / "disk/by-path").mkdir(parents=True)
    (tree.root.dev / "disk/by-path/link").symlink_to("../../pmem0p1")
    tree.write("etc/fstab", f"# all\n\n/dev/sda1 / ext4 defaults 0 1\n{spec}\t/srv ext4 noauto 0 0\n")
    assert words(tree) == [f"/etc/fstab, line 4, says {shown}"]


@pytest.mark.parametrize(
    "line",
    [
        "#/dev/pmem0 /srv ext4 defaults 0 0",
        "/dev/pmem1 /srv ext4 defaults 0 0",
        "/dev/pmem0p10 /srv ext4 defaults 0 0",
        "UUID=11111111-4ef9-4fc1-a56b-db81433947dd /srv ext4 defaults 0 0",
        "LABEL=my /srv ext4 defaults 0 0",
        "/srv/pmem0 /mnt none bind 0 0",
        "server:/pmem0 /mnt nfs defaults 0 0",
        "tmpfs /tmp tmpfs size=1G 0 0",
    ],
)
def test_others_do_not(tree: Tree, line: str) -> None:
    tree.write("etc/fstab", f"{line}\n")
    assert words(tree) == []
    tree.write("etc/crypttab", f"{line}\n" if line.startswith("#") else "data /dev/sdb none luks\n")
    assert words(tree) == []


def test_options_crypttab_and_swap(tree: Tree) -> None:
    tree.write(
        "etc/fstab",
        "/dev/sda1 /srv xfs logdev=/dev/pmem0 0 0\n/dev/sda2 /b btrfs ro,device=/dev/pmem0p1 0 0\n",
    )
    tree.write("etc/crypttab", f"# name device key\nvault UUID={UUID} none luks\n")
    assert words(tree) == [
        "/etc/fstab, line 1, says /dev/pmem0",
        "/etc/fstab, line 2, says /dev/pmem0p1",
        f"/etc/crypttab, line 2, says UUID={UUID}",
    ]


def test_units_name_it(tree: Tree) -> None:
    tree.write("etc/systemd/system/srv.mount", "[Unit]\n[Mount]\nWhat = /dev/pmem0 \nWhere=/srv\n")
    tree.write("usr/lib/systemd/system/x.swap", f"[Swap]\nWhat=/dev/disk/by-uuid/{UUID}\n")
    tree.write("run/systemd/system/y.mount.d/o.conf", "[Mount]\nOptions=logdev=/dev/pmem0p1\n")
    tree.write("etc/systemd/system/z.mount", "[Mount]\n#What=/dev/pmem0\nWhat=/dev/sda\n")
    tree.write("etc/systemd/system/z.service", "[Service]\nWhat=/dev/pmem0\n")
    (tree.root.path / "etc/systemd/system/masked.mount").symlink_to("/dev/null")
    assert words(tree) == [
        "/etc/systemd/system/srv.mount, line 3, says /dev/pmem0",
        "/run/systemd/system/y.mount.d/o.conf, line 2, says /dev/pmem0p1",
        f"/usr/lib/systemd/system/x.swap, line 2, says /dev/disk/by-uuid/{UUID}",
    ]


def test_a_table_that_cannot_be_read_is_no_empty_one(tree: Tree) -> None:
    (tree.root.path / "etc/fstab").mkdir(parents=True)
    with pytest.raises(MalformedError, match="fstab"):
        words(tree)


def test_it_is_evidence(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("etc/fstab", "/dev/pmem0p1 none swap sw 0 0\n")
    assert [(use.kind, use.words) for use in machine.look().uses] == [
        ("named", "/etc/fstab, line 1, says /dev/pmem0p1")
    ]
    (machine.root.path / "etc/fstab").unlink()
    (machine.root.path / "etc/fstab").mkdir()
    assert "fstab" in machine.look().blind
