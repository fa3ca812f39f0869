"""What blkid and udev say: of real signatures where the tools are there, and recorded answers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tierd.kernel.tools import Tools
from tierd.kernel.witnesses import ask_blkid, ask_udev

MIB = 1 << 20

# util-linux 2.41.5 and systemd 257, in a guest of 7.3
BLKID_EXT4 = """DEVNAME=/dev/pmem0.1
UUID=9b4ccafe-6273-4b11-9963-f72d88b69ad8
VERSION=1.0
FSBLOCKSIZE=1024
BLOCK_SIZE=1024
FSLASTBLOCK=32768
FSSIZE=33554432
TYPE=ext4
USAGE=filesystem
"""
UDEV_EMPTY = """DEVPATH=/devices/platform/ACPI0012:00/ndbus0/region0/namespace0.1/block/pmem0.1
DEVNAME=/dev/pmem0.1
DEVTYPE=disk
DISKSEQ=4
MAJOR=259
MINOR=1
SUBSYSTEM=block
USEC_INITIALIZED=25171683
ID_PATH=platform-ACPI0012:00
"""
UDEV_EXT4 = f"{UDEV_EMPTY}ID_FS_VERSION=1.0\nID_FS_TYPE=ext4\nID_FS_USAGE=filesystem\n"
UDEV_DAX = """DEVPATH=/devices/platform/ACPI0012:00/ndbus0/region0/dax0.0/dax0.3
DEVNAME=/dev/dax0.3
DRIVER=device_dax
SUBSYSTEM=dax
USEC_INITIALIZED=25702845
"""


class Stubs:
    """Tools that answer as they are told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tools = Tools((directory,))

    def make(self, tool: str, output: str, code: int = 0, stderr: str = "") -> None:
        (self.directory / f"{tool}.out").write_text(output)
        settle = '[ "$1" = settle ] && exit 0\n' if tool == "udevadm" else ""
        path = self.directory / tool
        path.write_text(
            f"#!/bin/sh\nPATH=/usr/bin:/bin\n{settle}echo $* >> {self.directory}/calls\n"
            f"cat {self.directory}/{tool}.out; printf '{stderr}' >&2; exit {code}\n"
        )
        path.chmod(0o755)


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path)


@pytest.mark.parametrize(
    ("output", "code", "found"),
    [
        (BLKID_EXT4, 0, "ext4"),
        ("", 2, ""),
        ("DEVNAME=/dev/x\nPTUUID=1\nPTTYPE=gpt\n", 0, "gpt"),
        ("TYPE=vfat\nPTTYPE=dos\n", 0, "vfat+dos"),
        ("TYPE=LVM2_member\nUSAGE=raid\n", 0, "LVM2_member"),
    ],
)
def test_what_blkid_finds(stubs: Stubs, output: str, code: int, found: str) -> None:
    stubs.make("blkid", output, code)
    said = ask_blkid(stubs.tools, "/dev/pmem0.1")
    assert (said.found, said.trouble) == (found, "")
    assert (stubs.directory / "calls").read_text() == "--probe --output export /dev/pmem0.1\n"


@pytest.mark.parametrize(
    ("output", "code", "stderr", "trouble"),
    [
        ("", 8, "", "several signatures that exclude each other"),
        (BLKID_EXT4, 8, "", "several signatures"),
        ("", 4, "bad usage", "exit code 4: bad usage"),
        ("", 2, "error: /dev/x: Input/output error", "Input/output error"),
        ("", 0, "", "exit code 0, and the signature none"),
        (BLKID_EXT4, 2, "", "exit code 2, and the signature ext4"),
        ("garbage \\377", 0, "", "exit code 0"),
        ("", 127, "", "exit code 127: silent"),
    ],
)
def test_what_blkid_cannot_tell(stubs: Stubs, output: str, code: int, stderr: str, trouble: str) -> None:
    stubs.make("blkid", output, code, stderr)
    assert trouble in ask_blkid(stubs.tools, "/dev/x").trouble


def test_a_blkid_that_is_not_there_hangs_or_never_ends(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not installed" in ask_blkid(stubs.tools, "/dev/x").trouble
    monkeypatch.setattr("tierd.kernel.witnesses.DEADLINE", 0.3)
    for script in ("exec sleep 60", "exec yes"):
        path = stubs.directory / "blkid"
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(0o755)
        assert ask_blkid(stubs.tools, "/dev/x").trouble


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (UDEV_EMPTY, ""),
        (UDEV_EXT4, "ext4"),
        (UDEV_DAX, ""),
        (f"{UDEV_EMPTY}ID_PART_TABLE_TYPE=gpt\n", "gpt"),
        (f"{UDEV_EXT4}ID_PART_TABLE_TYPE=dos\n", "ext4+dos"),
    ],
)
def test_what_udev_noted(stubs: Stubs, output: str, found: str) -> None:
    stubs.make("udevadm", output)
    said = ask_udev(stubs.tools, Path("/sys/class/block/pmem0.1"))
    assert (said.found, said.trouble) == (found, "")
    called = "info --query=property --path=/sys/class/block/pmem0.1\n"
    assert (stubs.directory / "calls").read_text() == called


@pytest.mark.parametrize(
    ("output", "code", "trouble"),
    [
        ("", 1, "does not know the device"),
        ("", 0, "does not know the device"),
        (UDEV_EXT4.replace("SUBSYSTEM=block", "SUBSYSTEM=net"), 0, "does not know the device"),
        (UDEV_EXT4.replace("USEC_INITIALIZED", "X"), 0, "has not looked at the device yet"),
        (f"{UDEV_EMPTY}ID_FS_AMBIVALENT=filesystem:xfs:\n", 0, "exclude each other"),
    ],
)
def test_what_udev_cannot_tell(stubs: Stubs, output: str, code: int, trouble: str) -> None:
    stubs.make("udevadm", output, code)
    assert trouble in ask_udev(stubs.tools, Path("/sys/x")).trouble


def test_a_udev_that_is_behind_is_no_witness(stubs: Stubs) -> None:
    assert "not installed" in ask_udev(stubs.tools, Path("/sys/x")).trouble
    path = stubs.directory / "udevadm"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    assert "waiting in its queue" in ask_udev(stubs.tools, Path("/sys/x")).trouble


def sbin(tool: str) -> str | None:
    return shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin")


def image(directory: Path, content: str) -> Path:
    path = directory / "image"
    path.write_bytes(b"")
    os.truncate(path, 64 * MIB)
    if content == "random":
        path.write_bytes(os.urandom(64 * MIB))
    elif content == "dos":
        table = b"\0" * 446 + bytes.fromhex("80000200830000ff00080000000001") + b"\0" * 49 + b"\x55\xaa"
        with path.open("r+b") as file:
            file.write(table)
    elif content != "zeros":
        tool = {"ext4": "mkfs.ext4", "swap": "mkswap"}[content]
        found = sbin(tool)
        if found is None:
            pytest.skip(f"{tool} is not installed")
        subprocess.run([found, "-q", path], check=True, capture_output=True)
    return path


@pytest.mark.skipif(sbin("blkid") is None, reason="blkid is not installed")
@pytest.mark.parametrize(
    ("content", "found"),
    [("ext4", "ext4"), ("swap", "swap"), ("dos", "dos"), ("zeros", ""), ("random", "")],
)
def test_the_real_blkid_on_real_signatures(tmp_path: Path, content: str, found: str) -> None:
    said = ask_blkid(Tools(), image(tmp_path, content))
    assert (said.found, said.trouble) == (found, "")
