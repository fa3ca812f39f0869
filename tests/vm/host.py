"""The machine that runs the testbed: its packages, its Debian archive, its cache.

Stdlib only, because it runs before anything is installed. Nothing here changes the machine beyond installing
packages: apt's own configuration stays as it is, and backports are read through a private sources directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
VENV = ROOT / ".venv"

# Debian packages, named as on Debian 12 and 13 alike.
VM_PACKAGES = ("qemu-system-x86", "mmdebstrap", "e2fsprogs", "openssh-client", "gcc", "libc6-dev")
SERVICE_PACKAGES = (
    "dbus",
    "python3-pydbus",
    "python3-gi",
    "python3-psutil",
    "python3-yaml",
    "python3-systemd",
    "python3-numpy",
    "python3-jsonschema",
    "python3-dbusmock",
)
PACKAGE_PACKAGES = (
    "build-essential",
    "debhelper",
    "dh-python",
    "dpkg-dev",
    "git",
    "pybuild-plugin-pyproject",
    "python3-all",
    "python3-setuptools",
    "python3-venv",
)
SHELL_PACKAGES = ("zsh", "fish")  # completion is tried in each
PACKAGES = (*VM_PACKAGES, *SERVICE_PACKAGES, *PACKAGE_PACKAGES, *SHELL_PACKAGES)

# QEMU 7.2 can panic a guest that patches its own code (Oops: int3), 10.0 did not.
MINIMUM_VERSIONS = {"qemu-system-x86": "1:10.0"}

# Tools from PyPI, pinned: they are newer than Debian 12's, and their output decides whether the tests pass.
# Every one of them runs on Python 3.11 (Debian 12) and 3.13 (Debian 13) and with the numpy of either.
TOOLS = (
    "ruff==0.17.6",
    "mypy==2.4.1",
    "pytest==9.2.0",
    "pytest-xdist==3.8.0",
    "hypothesis==6.170.15",
    "matplotlib==3.10.8",
    "prometheus-client==0.26.0",
    "types-PyYAML==6.0.12.20261113",
    "types-psutil==7.2.2.20261111",
    "types-jsonschema==4.26.0.20261006",
)

_STARTED = time.monotonic()


class HostError(Exception):
    """The machine cannot do what the testbed needs; the text is one clear line, or one with a log's tail."""


def say(message: str) -> None:
    """Print a progress line with the seconds since this program started."""
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {message}", flush=True)


def cache_dir() -> Path:
    """The directory that holds everything expensive; may be deleted at any time, and is then made again."""
    explicit = os.environ.get("TIERD_CACHE")
    if explicit:
        path = Path(explicit).expanduser().absolute()
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "tierd"
    path.mkdir(parents=True, exist_ok=True)
    return path


def commit() -> str:
    """The commit of this tree, with `-dirty` when something is changed that is not a kept result; `unknown`
    outside of git."""
    describe = ["git", "describe", "--always", "--abbrev=12"]
    done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return "unknown"
    status = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)tests/results"]
    changed = subprocess.run(status, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return done.stdout.strip() + ("-dirty" if changed else "")


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold an exclusive lock of this name in the cache; a second holder says that it waits, and waits."""
    path = cache_dir() / f"{name}.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def as_root(command: Sequence[str]) -> list[str]:
    """The command as root would be asked to run it."""
    if os.geteuid() == 0:
        return list(command)
    if shutil.which("sudo") is None:
        raise HostError(
            f"root is needed for `{command[0]}`, and there is no sudo: run as root or install sudo"
        )
    return ["sudo", "--preserve-env=DEBIAN_FRONTEND", *command]


def run_logged(command: Sequence[str], log: Path, *, env: dict[str, str] | None = None) -> None:
    """Run a long command with its output in a file; raises HostError with the end of it when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", **(env or {})},
        )
    if done.returncode:
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-25:])
        raise HostError(f"{command[0]} failed with exit code {done.returncode}, the log is {log}:\n  {tail}")


# ---------------------------------------------------------------------------------------------- the archive


@dataclass(frozen=True)
class Source:
    """One `deb` entry of apt's sources."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None

    def deb822(self, suite: str) -> str:
        """The same place, another suite, as a deb822 stanza (without optional parts of the archive)."""
        lines = ["Types: deb", f"URIs: {self.uri}", f"Suites: {suite}", "Components: main"]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


def parse_sources(text: str) -> list[Source]:
    """Entries of one deb822 `.sources` text; disabled stanzas and source packages are left out."""
    found = []
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields[name] += "\n" + line.strip()
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        signed_by = fields.get("signed-by")
        if signed_by and not signed_by.startswith("/"):
            signed_by = None  # a key in the text itself: apt's own keyrings must do
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                found.append(Source(uri, suite, tuple(fields.get("components", "").split()), signed_by))
    return found


def parse_list(text: str) -> list[Source]:
    """Entries of one one-line-style `sources.list` text."""
    found = []
    for line in text.splitlines():
        match = re.match(
            r"\s*deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>[^#]*)", line
        )
        if match is None:
            continue
        signed = re.search(r"signed-by=(\S+)", match["options"] or "")
        components = tuple(match["rest"].split())
        found.append(Source(match["uri"], match["suite"], components, signed[1] if signed else None))
    return found


def machine_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """Every `deb` entry of this machine's apt sources, in apt's order."""
    found = []
    for path in (etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))):
        if path.suffix == ".sources" and path.is_file():
            found += parse_sources(path.read_text())
        elif path.suffix == ".list" and path.is_file():
            found += parse_list(path.read_text())
    return found


def codename() -> str:
    """Debian's name for the release that this machine runs, such as `bookworm`."""
    values = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    name = values.get("VERSION_CODENAME", "").strip('"')
    if values.get("ID", "").strip('"') != "debian" or not name:
        raise HostError("the testbed runs on Debian 12 or 13; /etc/os-release names neither")
    return name


@dataclass(frozen=True)
class Archive:
    """Where this machine gets Debian from: the main archive, and the security archive where it has one."""

    main: Source
    security: Source | None

    def stanzas(self, release: str, *, backports: bool = False) -> str:
        """deb822 text for a release: the release itself, its security updates, and its backports."""
        text = self.main.deb822(release)
        if self.security is not None:
            text += "\n" + self.security.deb822(f"{release}-security")
        if backports:
            text += "\n" + self.main.deb822(f"{release}-backports")
        return text


def archive() -> Archive:
    """This machine's own Debian archive; raises HostError when its apt sources name none."""
    name = codename()
    sources = [source for source in machine_sources() if "main" in source.components]
    main = next((source for source in sources if source.suite == name), None)
    if main is None:
        raise HostError(
            f"no apt source on this machine offers `{name} main`: add one to /etc/apt/sources.list.d"
        )
    return Archive(main, next((source for source in sources if source.suite == f"{name}-security"), None))


def acquire_options() -> str:
    """How this machine's apt fetches (proxies, certificates, date checks), in apt.conf's own syntax."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    skip = re.compile(r"Acquire::(IndexTargets|CompressionTypes|Changelogs|cdrom|Languages|GzipIndexes)")
    kept = [
        line
        for line in dump.splitlines()
        if line.startswith("Acquire::") and not skip.match(line) and '""' not in line
    ]
    return "\n".join(kept) + "\n"


# ------------------------------------------------------------------------------------------ what is installe


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those of these packages that are installed."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *packages],
        capture_output=True,
        text=True,
    )
    rows = (line.split() for line in done.stdout.splitlines())
    return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed"}


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Which of these packages are absent, or older than the testbed can use."""
    have = installed_versions(packages)
    missing = []
    for package in packages:
        least = MINIMUM_VERSIONS.get(package)
        if package not in have:
            missing.append(package)
        elif (
            least
            and subprocess.run(["dpkg", "--compare-versions", have[package], "lt", least]).returncode == 0
        ):
            missing.append(package)
    return missing


def install_packages(packages: Sequence[str] = PACKAGES) -> None:
    """Install what is missing of these Debian packages; touches neither apt nor the network when none is."""
    if not missing_packages(packages):
        return
    with locked("apt"):
        missing = missing_packages(packages)
        if not missing:
            return
        say(f"installing {len(missing)} Debian packages: {' '.join(missing)}")
        cache = cache_dir()
        log = cache / "logs" / "apt.log"
        log.unlink(missing_ok=True)
        options = []
        release = codename()
        backported = [
            package for package in missing if package in MINIMUM_VERSIONS and release == "bookworm"
        ]
        if backported:
            # Backports without a change to the machine's own apt sources.
            private = cache / "apt"
            (private / "sources").mkdir(parents=True, exist_ok=True)
            (private / "lists" / "partial").mkdir(parents=True, exist_ok=True)
            (private / "sources" / "debian.sources").write_text(archive().stanzas(release, backports=True))
            options = [
                *("-o", f"Dir::Etc::SourceParts={private / 'sources'}"),
                *("-o", "Dir::Etc::SourceList=/dev/null"),
                *("-o", f"Dir::State::Lists={private / 'lists'}"),
                *("-o", "APT::Sandbox::User=root"),
            ]
        wanted = [
            f"{package}/{release}-backports" if package in backported else package for package in missing
        ]
        target = ["-t", f"{release}-backports"] if backported else []
        apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", *options]
        run_logged(as_root([*apt, "update"]), log)
        if backported:
            run_logged(as_root([*apt, *target, "install", "--no-install-recommends", *backported]), log)
            wanted = [package for package in missing if package not in backported]
        if wanted:
            run_logged(as_root([*apt, "install", "--no-install-recommends", *wanted]), log)
        still = missing_packages(packages)
        if still:
            raise HostError(f"apt ended well, but these are still missing or too old: {' '.join(still)}")


def venv_python() -> Path:
    """The interpreter of the project's virtual environment, made by `install_tools`."""
    return VENV / "bin" / "python"


def _debian_libraries() -> dict[str, str]:
    """Versions of the Python libraries that Debian's packages gave this machine."""
    names = ("numpy", "PyYAML", "psutil", "jsonschema", "python-dbusmock")
    script = "import importlib.metadata as m, sys\nfor n in sys.argv[1:]: print(n, m.version(n))"
    done = subprocess.run([PYTHON, "-c", script, *names], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def install_tools() -> None:
    """Make `.venv` with the pinned tools; made again when the list or the interpreter changes."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    wanted = hashlib.sha256("\n".join((version, *TOOLS)).encode()).hexdigest()
    stamp = VENV / "tierd-tools"
    if stamp.is_file() and stamp.read_text() == wanted and venv_python().exists():
        return
    with locked("venv"):
        if stamp.is_file() and stamp.read_text() == wanted and venv_python().exists():
            return
        say(f"making {VENV.name} with {', '.join(tool.split('==')[0] for tool in TOOLS)}")
        log = cache_dir() / "logs" / "venv.log"
        log.unlink(missing_ok=True)
        # System packages stay visible: PyGObject, pydbus and python-systemd come from Debian alone.
        run_logged([PYTHON, "-m", "venv", "--clear", "--system-site-packages", str(VENV)], log)
        # tierd is tested with Debian's libraries, so no tool may put another version in front of them.
        constraints = VENV / "constraints.txt"
        constraints.write_text(
            "".join(f"{name}=={version}\n" for name, version in _debian_libraries().items())
        )
        pip = [str(venv_python()), "-m", "pip", "install", "--disable-pip-version-check"]
        run_logged([*pip, "--constraint", str(constraints), *TOOLS], log)
        stamp.write_text(wanted)


def prepare(*, tools: bool = True) -> None:
    """Install everything that the project's commands need; takes well under a second when it is there."""
    install_packages()
    if tools:
        install_tools()
