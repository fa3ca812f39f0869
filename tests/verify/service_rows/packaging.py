"""The Debian package on a server that never had it: installed, upgraded, removed and purged, with memory
made of an NVDIMM and tierd at work meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.verify.service_rows import placing
from tests.verify.settings import kernel_settings
from tests.verify.table import Figure, Row, Stage
from tests.vm import image, machine, scenario
from tests.vm.guest import Guest
from tests.vm.image import Recipe

EARLIER_VERSION = "0.0.1"
"""Older than any that there is. Its files are those of today's, so that the upgrade is a matter of the
maintainer scripts alone."""

RELEASES: Mapping[str, tuple[Recipe, str]] = {"12": (image.BOOKWORM, "6.1"), "13": (image.RECIPE, "7.3")}
"""By Debian's release, its image, and the kernel that is booted."""

_TARGET = "tierd-memory.target"
"""Stays after a removal: the memory is there, and what requires the target would be stopped with it."""
_CONFFILE = "/etc/tierd/tierd.yaml"
_STARTS = "journalctl -q -t tierd TIERD_EVENT=started -o cat | wc -l"
# Whatever changes by itself, by dpkg or by Python, which keeps what it has compiled.
_BESIDE = (
    *("/proc", "/sys", "/dev", "/run/user", "/run/systemd", "/run/udev", "/run/dbus", "/tmp", "/var/tmp"),
    *("/var/log", "/var/lib/dpkg", "/var/cache", "/var/lib/systemd", "/root", "/home"),
)
BLOCKS = (
    "cd /sys/devices/system/memory; for b in memory*; do"
    " [ -e /sys/devices/system/node/node1/$b ] && echo $b $(cat $b/state) $(cat $b/valid_zones); done; true"
)


@dataclass
class _Course:
    """What went wrong so far, by step."""

    guest: Guest
    faults: list[str] = field(default_factory=list)

    def expect(self, step: str, so: bool, otherwise: str) -> None:
        if not so:
            self.faults.append(f"{step}: {otherwise}")

    def dpkg(self, step: str, *arguments: str) -> None:
        """dpkg, which is to succeed without a warning."""
        done = self.guest.run(
            ["env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *arguments], check=False, timeout=600
        )
        said = [
            line
            for line in (done.stdout + done.stderr).splitlines()
            if any(word in line.lower() for word in ("warning", "error", "failed", "traceback"))
        ]
        self.expect(step, done.returncode == 0 and not said, f"exit status {done.returncode}, {said[:3]}")

    def verified(self, step: str, *changed: str) -> None:
        """What dpkg -V finds to differ is what an administrator has changed."""
        found = self.guest.run("dpkg -V tierd", check=False).stdout.splitlines()
        wrong = [line for line in found if line.split()[-1] not in changed]
        self.expect(step, not wrong, f"dpkg -V: {wrong[:3]}")

    def active(self) -> list[str]:
        shown = self.guest.output(
            "systemctl list-units --all --plain --no-legend 'tierd*' | awk '$3 == \"active\" {print $1}'"
        )
        return [unit for unit in shown.split() if unit != _TARGET]


def _files(guest: Guest) -> set[str]:
    beside = " -o ".join(f"-path {path}" for path in _BESIDE)
    found = guest.output(f"find / \\( {beside} \\) -prune -o -print", timeout=300)
    return {path for path in found.splitlines() if "__pycache__" not in path}


def earlier(package: Path, directory: Path) -> Path:
    """The same package under an earlier version."""
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    lines = control.read_text().splitlines()
    control.write_text(
        "".join(
            f"Version: {EARLIER_VERSION}\n" if line.startswith("Version:") else f"{line}\n" for line in lines
        )
    )
    made = directory / f"tierd_{EARLIER_VERSION}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, made], check=True, capture_output=True)
    return made


def _install(course: _Course, old: str) -> None:
    course.dpkg("install", "-i", old)
    course.verified("install")
    course.expect("install", not course.active(), f"{course.active()} run")
    enabled = course.guest.run("systemctl is-enabled tierd", check=False).stdout.strip()
    course.expect("install", enabled == "disabled", f"the daemon is {enabled}")
    course.expect("install", not course.guest.output(BLOCKS), "it has made memory")


def _upgrade(course: _Course, new: str, version: str, blocks: str) -> None:
    guest = course.guest
    before, starts = guest.output("systemctl show -P MainPID tierd"), guest.output(_STARTS)
    course.dpkg("upgrade", "-i", new)
    guest.run("udevadm settle; sleep 5")
    after = guest.output("systemctl show -P MainPID tierd")
    course.expect("upgrade", after not in ("0", before), "the daemon was not started anew")
    anew = int(guest.output(_STARTS)) - int(starts)
    course.expect("upgrade", anew == 1, f"the daemon was started {anew} times")
    active = guest.output("systemctl is-active tierd || true")
    course.expect("upgrade", active == "active", f"the daemon is {active}")
    told = guest.output("dpkg-query -W -f '${Version} ${db:Status-Status}' tierd")
    course.expect("upgrade", told == f"{version} installed", f"dpkg has {told}")
    policy = guest.output(f"cat {_CONFFILE}")
    course.expect("upgrade", "load.service" in policy, "the administrator's policy is gone")
    course.verified("upgrade", _CONFFILE)
    course.expect("upgrade", guest.output(BLOCKS) == blocks, "memory has changed")


def _remove(course: _Course, settings: Mapping[str, str], blocks: str) -> None:
    guest = course.guest
    course.dpkg("remove", "-r", "tierd")
    now = kernel_settings(guest)
    left = [path for path, value in settings.items() if now.get(path) != value]
    course.expect("remove", not left, f"settings are not restored: {', '.join(left[:5])}")
    course.expect("remove", guest.output(BLOCKS) == blocks, "memory has changed")
    course.expect("remove", not course.active(), f"units still active: {', '.join(course.active())}")
    kept = guest.run(f"grep -q load.service {_CONFFILE}", check=False).returncode
    course.expect("remove", kept == 0, "the administrator's policy is gone")
    processes = guest.run("pgrep -u tierd", check=False).stdout.split()
    course.expect("remove", not processes, f"processes {processes} are left")


def _purge(course: _Course, before: set[str], blocks: str) -> None:
    course.dpkg("purge", "-P", "tierd")
    left = sorted(_files(course.guest) - before)
    # what sysusers made stays by Debian's custom, as lines of files that were there
    left = [
        path
        for path in left
        if path.rpartition("/")[2] not in ("passwd-", "group-", "shadow-", "gshadow-", ".pwd.lock")
    ]
    left = [path for path in left if path not in (placing.PROGRAM, placing.OUTPUT)]
    course.expect("purge", not left, f"{len(left)} files left: {', '.join(left[:6])}")
    course.expect("purge", course.guest.output(BLOCKS) == blocks, "memory has changed")


def package(release: str) -> Row:
    def measure(stage: Stage) -> Figure:
        stage.close()
        recipe, kernel = RELEASES[release]
        new = stage.package()
        version = subprocess.check_output(["dpkg-deb", "-f", new, "Version"], text=True).strip()
        with (
            tempfile.TemporaryDirectory(prefix="tierd-earlier-") as scratch,
            machine.boot(machine.Machine(kernel=kernel, recipe=recipe)) as guest,
        ):
            region = guest.prepare_labels()
            old = "/var/tmp/tierd-earlier.deb"
            guest.put(earlier(new, Path(scratch)), old)
            guest.put(new, "/var/tmp/tierd.deb")
            before = _files(guest)
            course = _Course(guest)
            _install(course, old)
            scenario.make_memory(guest, region)
            guest.run("systemctl enable tierd-convert@pmem0")
            blocks = guest.output(BLOCKS)
            settings = kernel_settings(guest)
            with placing.placing(guest, placing.policy(region)) as promoted:
                changed = sum(settings.get(path) != value for path, value in kernel_settings(guest).items())
                _upgrade(course, "/var/tmp/tierd.deb", version, blocks)
                _remove(course, settings, blocks)
            _purge(course, before, blocks)
        lines = blocks.count("online Movable")
        text = (
            f"{lines} memory blocks and {changed} changed settings when it was removed,"
            f" {len(course.faults)} faults"
        )
        if course.faults:
            text += f": {'; '.join(course.faults[:5])}"
        values = {"kernel": kernel, "blocks": lines, "changed": changed, "promoted": promoted}
        holds = not course.faults and lines > 0 and changed > 0
        return Figure(holds, text, {**values, "faults": course.faults})

    return Row(
        f"package-{release}",
        f"install, upgrade, remove and purge of the package on Debian {release}, with tierd at work",
        "dpkg -V clean, units stopped, settings restored, memory left in place, no file left",
        measure,
    )


def _lintian(stage: Stage) -> Figure:
    if shutil.which("lintian") is None:
        return Figure(False, "not measured: there is no lintian on this machine (apt install lintian)")
    done = subprocess.run(
        ["lintian", "--fail-on", "error,warning", str(stage.package())], capture_output=True, text=True
    )
    tags = [line for line in done.stdout.splitlines() if line[:2] in ("E:", "W:")]
    return Figure(
        done.returncode == 0 and not tags, f"{len(tags)} tags: {'; '.join(tags[:5])}", {"tags": tags}
    )


LINTIAN = Row("lintian", "lintian on the package", "no error, no warning", _lintian)
