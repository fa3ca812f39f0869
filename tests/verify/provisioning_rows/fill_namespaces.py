"""Fills a region with one small namespace of each mode for each kind of content: run in the guest as
`python3 fill_namespaces.py REGION`.

Prints a JSON array of cells: their label (``MODE/CONTENT``), and what blkid's low-level probe says of the
content where the namespace has a block device. Nothing is left mounted, open or assembled.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

MIB = 1 << 20
MODES = ("sector", "raw", "fsdax", "devdax")
LARGER = {"xfs": 304, "btrfs": 128}
SIZE = 32
"""MiB. mkfs.xfs asks for 300, mkfs.btrfs for 109, a LUKS2 header takes 16."""
ACCEPTABLE = "fsdax/zeros"
ACCEPTABLE_SIZE = 288
"""The one that holds nothing and a memory block, so that it can become memory."""

CONTENTS = {
    "xfs": "mkfs.xfs -q -f {device}",
    "ext4": "mke2fs -q -F -t ext4 {device}",
    "btrfs": "mkfs.btrfs -q -f {device}",
    "vfat": "mkfs.vfat {device}",
    "swap": "mkswap {device}",
    "LUKS": "echo -n key | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {device} -",
    "LVM": "pvcreate -q -y {device} && vgcreate -q --setautoactivation n v{number} {device}",
    "MD": "mdadm --create /dev/md/m{number} --run --force --level=1 --raid-devices=2 --metadata=1.2 {device}"
    " missing && mdadm --stop /dev/md/m{number}",
    "GPT": "printf 'label: gpt\\n,,L\\n' | sfdisk -q {device}",
    "MBR": "printf 'label: dos\\n,,L\\n' | sfdisk -q {device}",
    "btt": "dd if=/run/btt of={device} bs=1M conv=fsync status=none",
    "random bytes": "dd if=/dev/urandom of={device} bs=1M oflag=direct status=none 2>/dev/null; true",
    "zeros": "dd if=/dev/zero of={device} bs=1M oflag=direct status=none 2>/dev/null; true",
}


def run(command: str) -> str:
    """A shell command that must succeed."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: {command}\n{done.stdout}{done.stderr}")
    return done.stdout


def make(region: str, mode: str, label: str, size: int) -> tuple[str, str]:
    """A namespace; its name and its device."""
    how = "-M mem" if mode in ("fsdax", "devdax") else ""
    found = json.loads(
        run(f"ndctl create-namespace -r {region} -m {mode} {how} -s {size}M -n '{label}' --no-autolabel")
    )
    if mode == "devdax":
        return found["dev"], found["daxregion"]["devices"][0]["chardev"]
    return found["dev"], found["blockdev"]


def keep_info_block(namespace: str) -> None:
    """What a btt begins with, read from below it, to /run/btt."""
    force = f"/sys/bus/nd/devices/{namespace}/force_raw"
    run(f"ndctl disable-namespace {namespace}; echo 1 > {force}; ndctl enable-namespace {namespace}")
    (block,) = Path(f"/sys/bus/nd/devices/{namespace}/block").iterdir()
    run(f"dd if=/dev/{block.name} of=/run/btt bs=1M count=1 status=none; grep -q BTT_ARENA_INFO /run/btt")
    run(f"ndctl disable-namespace {namespace}; echo 0 > {force}; ndctl enable-namespace {namespace}")


def copy_into(image: Path, device: str) -> None:
    """What a file holds, into a dax device, which is mapped and cannot be written to."""
    descriptor = os.open(device, os.O_RDWR)
    size = image.stat().st_size
    with mmap.mmap(descriptor, size, mmap.MAP_SHARED) as memory, image.open("rb") as file:
        for offset in range(0, size, 2 * MIB):
            piece = file.read(2 * MIB)
            if piece.count(0) != len(piece) or "zeros" in image.name:
                memory[offset : offset + len(piece)] = piece
    os.close(descriptor)


def main() -> None:
    region, cells = sys.argv[1], []
    for mode in MODES:
        for number, (content, command) in enumerate(CONTENTS.items()):
            label = f"{mode}/{content}"
            name, device = make(
                region, mode, label, ACCEPTABLE_SIZE if label == ACCEPTABLE else LARGER.get(content, SIZE)
            )
            image = Path(f"/var/tmp/{content.replace(' ', '-')}.img")
            said = ""
            if mode == "sector" and not Path("/run/btt").exists():
                keep_info_block(name)
            until = time.monotonic() + 20
            while not Path(f"/dev/{device}").exists() and time.monotonic() < until:
                time.sleep(0.1)
            if mode == "devdax":
                copy_into(image, f"/dev/{device}")
                image.unlink()
            else:
                run(command.format(device=f"/dev/{device}", number=f"{mode}{number}"))
                probe = subprocess.run(
                    ["blkid", "-p", "-o", "export", f"/dev/{device}"], capture_output=True, text=True
                )
                kinds = (line.split("=", 1) for line in probe.stdout.splitlines() if "TYPE=" in line)
                said = ", ".join(value for key, value in kinds if key in ("TYPE", "PTTYPE"))
            if mode == "fsdax":
                if label == ACCEPTABLE:
                    run(f"truncate -s 28M {image}")
                    cells.append({"label": label, "blkid": said})
                    continue
                run(f"cp --sparse=always /dev/{device} {image}")
            cells.append({"label": label, "blkid": said})
    run("udevadm settle; mdadm --stop --scan; vgchange -q -an; sync")
    print(json.dumps(cells))


if __name__ == "__main__":
    main()
