"""The guest's disk image, kernels and initrds, built once per recipe and kept in the cache.

The recipe is data: packages, kernels, masked units, and the files under `guest-files/`. Its hash names the
result, so an image is never stale. The archive's address comes from this machine's own apt sources.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.vm import host

GUEST_FILES = Path(__file__).with_name("guest-files")


@dataclass(frozen=True)
class Kernel:
    """One kernel of the guest: its short name, and the Debian suite that its metapackage comes from."""

    name: str
    suite: str


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is in the image; units: size in MiB."""

    release: str = "trixie"
    size: int = 3072
    kernels: tuple[Kernel, ...] = (Kernel("6.12", "trixie"), Kernel("7.3", "trixie-backports"))
    kernel_package: str = "linux-image-amd64"
    packages: tuple[str, ...] = (
        *("systemd-sysv", "dbus", "udev", "kmod", "procps", "util-linux", "iproute2"),
        *("initramfs-tools", "lz4", "zstd", "ndctl", "daxctl", "cxl", "numactl", "strace", "less"),
        *("openssh-server", "polkitd", "python3", "python3-pydbus", "python3-gi", "python3-psutil"),
        *("python3-yaml", "python3-systemd", "python3-numpy", "python3-jsonschema"),
    )
    # Work that a guest living for minutes never needs, and that would run while something is measured.
    masked: tuple[str, ...] = (
        *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
        *("e2scrub_reap.service", "fstrim.timer", "man-db.timer", "systemd-timesyncd.service"),
        *("systemd-pstore.service", "systemd-tpm2-setup.service", "systemd-tpm2-setup-early.service"),
        *(
            "systemd-hibernate-clear.service",
            "systemd-firstboot.service",
            "sshd-keygen.service",
            "ssh.socket",
        ),
        *(
            "getty@tty1.service",
            "getty-static.service",
            "serial-getty@ttyS0.service",
            "console-getty.service",
        ),
        *("ndctl-monitor.service", "cxl-monitor.service", "keyboard-setup.service", "console-setup.service"),
        *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "sys-fs-fuse-connections.mount"),
        *("modprobe@drm.service", "modprobe@fuse.service", "systemd-udev-load-credentials.service"),
        *("systemd-random-seed.service", "systemd-update-utmp.service", "systemd-ask-password-console.path"),
        *(
            "systemd-ask-password-wall.path",
            "systemd-initctl.socket",
            "systemd-sysext.socket",
            "systemd-creds.socket",
        ),
    )
    enabled: tuple[str, ...] = ("testbed-network.service", "ssh.service")
    # The initrd needs no udev: devtmpfs shows the disk as soon as its listed driver is loaded.
    excluded: tuple[str, ...] = (
        *("/usr/share/initramfs-tools/hooks/udev", "/usr/share/initramfs-tools/scripts/*/udev"),
        *("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"),
        *(
            f"/usr/lib/modules/*/kernel/{part}/*"
            for part in (
                *("sound", "drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/net/ethernet"),
                *(
                    "drivers/infiniband",
                    "drivers/staging",
                    "drivers/isdn",
                    "drivers/bluetooth",
                    "drivers/iio",
                ),
                *(
                    "drivers/input",
                    "drivers/hid",
                    "drivers/usb",
                    "drivers/mtd",
                    "drivers/comedi",
                    "net/bluetooth",
                ),
            )
        ),
    )


RECIPE = Recipe()

STORAGE = replace(
    RECIPE,
    packages=(
        *RECIPE.packages,
        *("e2fsprogs", "xfsprogs", "btrfs-progs", "dosfstools", "cryptsetup-bin", "lvm2", "mdadm", "fdisk"),
    ),
)
"""The same with what makes file systems, volumes and partitions, as a server that holds data has it."""


EARLIER = (Kernel("6.1", "bookworm"),)
"""Kernels that the tests run on when asked, from an image of its own: each kernel more costs each machine
that runs the tests minutes."""


BOOKWORM = replace(
    RECIPE,
    release="bookworm",
    kernels=EARLIER,
    packages=tuple(package for package in RECIPE.packages if package != "cxl"),
)
"""A server of the earlier release, which has no package of that name, with its own kernel alone: tierd's
package is for both releases."""


def kernel_names(*, earlier: bool = False) -> tuple[str, ...]:
    """The short names of the kernels in the image, oldest first; with the earlier ones too."""
    return tuple(kernel.name for kernel in ((*EARLIER, *RECIPE.kernels) if earlier else RECIPE.kernels))


def having(recipe: Recipe, kernel: str) -> Recipe:
    """The recipe when this kernel is in it, or the same with its release's own kernel and this one."""
    if kernel not in kernel_names(earlier=True) or kernel in (known.name for known in recipe.kernels):
        return recipe
    own = tuple(known for known in recipe.kernels if known.suite == recipe.release)
    return replace(recipe, kernels=(*own, *(known for known in EARLIER if known.name == kernel)))


@dataclass(frozen=True)
class Image:
    """A finished image: the directory that holds the disk, the kernels, the initrds and the ssh key."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The ext4 file system that every machine boots with `snapshot=on`."""
        return self.directory / "image.img"

    @property
    def key(self) -> Path:
        """The private key that root of the guest accepts."""
        return self.directory / "id_ed25519"

    def kernel(self, name: str) -> Path:
        """The kernel of this short name; raises HostError for a name that the recipe does not know."""
        return self._boot_file("vmlinuz", name)

    def initrd(self, name: str) -> Path:
        """The initrd of the kernel of this short name."""
        return self._boot_file("initrd", name)

    def release(self, name: str) -> str:
        """What `uname -r` says in a guest that boots this kernel."""
        return self._boot_file("vmlinuz", name).name.removeprefix("vmlinuz-")

    def _boot_file(self, kind: str, name: str) -> Path:
        # 7.3 must not match 7.30: the character behind the name decides.
        found = [
            path
            for path in self.directory.glob(f"{kind}-{name}*")
            if not path.name.split(name)[1][:1].isdigit()
        ]
        if not found:
            known = ", ".join(kernel_names(earlier=True))
            raise host.HostError(f"the guest image has no kernel {name}; it has {known}")
        return sorted(found)[-1]


def recipe_hash(recipe: Recipe = RECIPE) -> str:
    """Twelve hexadecimal digits that change with the recipe, the steps made from it, and the guest files."""
    work = Path("/work")
    scripts = (_setup_script(recipe, work), _finish_script(recipe, work), _disk_script(recipe, work))
    steps = [asdict(recipe), _bootstrap_command(recipe, work), scripts]
    digest = hashlib.sha256(json.dumps(steps, sort_keys=True).encode())
    for path in sorted(GUEST_FILES.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(GUEST_FILES)} {path.stat().st_mode & 0o777:o}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def image(recipe: Recipe = RECIPE) -> Image:
    """The image of this recipe, built now if the cache does not have it."""
    directory = host.cache_dir() / f"guest-{recipe_hash(recipe)}"
    if not directory.is_dir():
        with host.locked("image"):
            if not directory.is_dir():
                _build(recipe, directory)
    return Image(directory)


def _build(recipe: Recipe, directory: Path) -> None:
    host.say(f"building the guest image {directory.name}: Debian {recipe.release}, about two minutes")
    work = directory.with_name(directory.name + ".building")
    subprocess.run(host.as_root(["rm", "-rf", str(work)]), check=True)
    work.mkdir()
    log = host.cache_dir() / "logs" / "image.log"
    log.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", *"-q -t ed25519 -C tierd-testbed -N".split(), "", "-f", str(work / "id_ed25519")],
        check=True,
    )
    archive = host.archive()
    releases = [kernel.suite for kernel in recipe.kernels if _downgraded(kernel, recipe)]
    sources = [archive.stanzas(recipe.release, backports=True), *map(archive.stanzas, releases)]
    (work / "archive.sources").write_text("\n".join(sources))
    (work / "apt.conf").write_text(host.acquire_options())
    shutil.copytree(GUEST_FILES, work / "guest-files")
    (work / "setup.sh").write_text(_setup_script(recipe, work))
    (work / "finish.sh").write_text(_finish_script(recipe, work))
    host.run_logged(host.as_root(_bootstrap_command(recipe, work)), log)
    host.say("writing the disk image")
    host.run_logged(host.as_root(["sh", "-ec", _disk_script(recipe, work)]), log)
    owner = f"{os.getuid()}:{os.getgid()}"
    subprocess.run(host.as_root(["chown", "-R", owner, str(work)]), check=True)
    for path in work.glob("initrd.img-*"):
        path.rename(path.with_name(path.name.replace("initrd.img-", "initrd-")))
    for kernel in recipe.kernels:
        Image(work).kernel(kernel.name)
        Image(work).initrd(kernel.name)
    for name in ("apt.conf", "archive.sources", "setup.sh", "finish.sh"):
        (work / name).unlink()  # how this machine fetches packages, possibly with its credentials
    shutil.rmtree(work / "guest-files")
    os.replace(work, directory)
    _drop_old(directory)
    host.say(f"the guest image is ready: {directory}")


def _drop_old(current: Path) -> None:
    """Keep this image and the three newest others: there are several recipes, and going back is free."""
    others = sorted(
        (path for path in current.parent.glob("guest-*") if path.is_dir() and path != current),
        key=lambda path: path.stat().st_mtime,
    )
    for path in others[:-3]:
        shutil.rmtree(path, ignore_errors=True)


def _bootstrap_command(recipe: Recipe, work: Path) -> list[str]:
    return [
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
        f"--aptopt={work / 'apt.conf'}",
        *('--aptopt=Acquire::Languages "none"', '--aptopt=APT::Sandbox::User "root"'),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.excluded),
        "--dpkgopt=force-unsafe-io",
        f"--include={','.join((*recipe.packages, recipe.kernel_package))}",
        # Before any package is unpacked: the kernel's own script makes the initrd when it is configured.
        f'--setup-hook=sh {shlex.quote(str(work / "setup.sh"))} "$1"',
        f'--customize-hook=sh {shlex.quote(str(work / "finish.sh"))} "$1"',
        *(recipe.release, str(work / "root"), str(work / "archive.sources")),
    ]


def _disk_script(recipe: Recipe, work: Path) -> str:
    """The disk and the boot files out of the finished root, which is then gone.

    A machine that knows its id is not on its first boot, and one that was marked as updated does not spend
    its boot on rebuilding caches. mmdebstrap's own cleanup would take both away, so they come after it.
    """
    return f"""cd {shlex.quote(str(work))}
tr -d - < /proc/sys/kernel/random/uuid > root/etc/machine-id
mkdir -p root/var/log/journal
touch root/etc/.updated root/var/.updated
cp root/boot/vmlinuz-* root/boot/initrd.img-* .
mke2fs -q -t ext4 -L tierd -m 0 -E lazy_itable_init=0,lazy_journal_init=0 -d root image.img {recipe.size}M
rm -rf root
"""


def _setup_script(recipe: Recipe, work: Path) -> str:
    """The guest's own files, in place before the packages that read them."""
    return f"""set -eu
mkdir -p "$1"
cp -R --no-preserve=ownership {shlex.quote(str(work / "guest-files"))}/. "$1"/
"""


def _downgraded(kernel: Kernel, recipe: Recipe) -> str:
    """What makes apt take a kernel of an earlier release, where this release has a later one; else empty."""
    return "" if kernel.suite.startswith(recipe.release) else f"/{kernel.suite} --allow-downgrades"


def _finish_script(recipe: Recipe, work: Path) -> str:
    """The steps on the unpacked root: the other kernels, the ssh keys, the names, what starts at boot."""
    newer = "\n".join(
        # From outside, as mmdebstrap itself does it: proxies and certificates are this machine's.
        f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -y -q -oDPkg::Chroot-Directory="$1" '
        f"-t {kernel.suite} install {recipe.kernel_package}{_downgraded(kernel, recipe)}"
        for kernel in recipe.kernels
        if kernel.suite != recipe.release
    )
    links = "\n".join(f'ln -sf /dev/null "$1/etc/systemd/system/{unit}"' for unit in recipe.masked)
    return f"""set -eu
{newer}
rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*
rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb
echo tierd-guest > "$1/etc/hostname"
printf '127.0.0.1 localhost tierd-guest\\n' > "$1/etc/hosts"
printf 'LABEL=tierd / ext4 defaults,noatime 0 0\\n' > "$1/etc/fstab"
mkdir -p -m 700 "$1/root/.ssh"
cp {shlex.quote(str(work / "id_ed25519.pub"))} "$1/root/.ssh/authorized_keys"
chown -R 0:0 "$1/root"
chmod 600 "$1/root/.ssh/authorized_keys"
key=/etc/ssh/ssh_host_ed25519_key
test -s "$1$key" || chroot "$1" ssh-keygen -q -t ed25519 -N '' -f "$key"
{links}
chroot "$1" systemctl enable {" ".join(recipe.enabled)}
# Imports without a compiled file cost seconds under software emulation.
chroot "$1" python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.*
"""
