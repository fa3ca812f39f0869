"""`./dev package`: tierd's Debian package, or its wheel, built from a clean copy and kept by a hash of the
sources."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.vm import host

# What the package is made of: nothing else in the tree changes it, so nothing else makes it build again.
SOURCES = (
    "tierd",
    "conf",
    "systemd",
    "debian",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "man",
    "LICENSE",
)


def has_packaging() -> bool:
    """Whether this tree can be built into a package."""
    return (host.ROOT / "debian" / "control").is_file()


def source_files() -> list[Path]:
    """The package's sources, relative to the tree: what git tracks or would track, never what it ignores."""
    listed = subprocess.run(
        [
            "git",
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--",
            *SOURCES,
        ],
        cwd=host.ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    names = sorted({name for name in listed.split("\0") if name})
    return [Path(name) for name in names if (host.ROOT / name).is_file()]


def sources_hash(files: list[Path]) -> str:
    """Twelve hexadecimal digits that change with any source's name, mode or content."""
    digest = hashlib.sha256()
    for file in files:
        path = host.ROOT / file
        digest.update(f"{file} {path.stat().st_mode & 0o111:o} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def build() -> Path:
    """The package of the tree as it is now, built if the cache does not have it.

    Raises HostError with the end of the build's log when it fails. Called by `./dev package`, `./dev vm` and
    the system tests.
    """
    if not has_packaging():
        raise host.HostError("there is no debian/control in this tree: nothing to build")
    # The project's own tests run before and elsewhere; building a package for the guest must not need them.
    return _kept("Debian package", "tierd_*.deb", "exec dpkg-buildpackage -us -uc -b")


def build_wheel() -> Path:
    """The wheel of the tree as it is now, made as the package's own is, with Debian's tools. Raises as
    `build`."""
    make = f"exec {host.PYTHON} -m build --skip-dependency-check --no-isolation --wheel --outdir .. ."
    return _kept("wheel", "tierd-*.whl", make)


def _kept(what: str, pattern: str, make: str) -> Path:
    """The file that the shell command `make` leaves beside a clean copy of the tree, in which it runs."""
    host.install_packages(host.PACKAGE_PACKAGES)
    files = source_files()
    store = host.cache_dir() / "packages" / sources_hash(files)
    with host.locked("package"):
        found = sorted(store.glob(pattern))
        if found:
            return found[0]
        host.say(f"building the {what}")
        log = host.cache_dir() / "logs" / "package.log"
        log.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="tierd-build-") as scratch:
            tree = Path(scratch) / "tierd"
            for file in files:
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(host.ROOT / file, tree / file)
            environment = {"DEB_BUILD_OPTIONS": "nocheck", "PWD": str(tree)}
            host.run_logged(["sh", "-c", f"cd {tree} && {make}"], log, env=environment)
            built = sorted(Path(scratch).glob(pattern))
            if len(built) != 1:
                raise host.HostError(f"the build made {len(built)} of {pattern}, not one; see {log}")
            store.mkdir(parents=True, exist_ok=True)
            # Moved into its place whole: whoever looks there takes what there is.
            fresh = store / f"{os.getpid()}.new"
            shutil.copy2(built[0], fresh)
            os.replace(fresh, store / built[0].name)
        _drop_old(store)
        return store / built[0].name


def _drop_old(current: Path) -> None:
    """Keep the five newest builds."""
    for path in sorted(current.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-5]:
        if path != current:
            shutil.rmtree(path, ignore_errors=True)


def main(argv: list[str]) -> int:
    """Build the Debian package, or the wheel, and say where it is, or copy it."""
    parser = argparse.ArgumentParser(prog="./dev package", description=main.__doc__)
    parser.add_argument("--output", type=Path, metavar="DIR", help="copy the package into this directory")
    parser.add_argument(
        "--wheel", action="store_true", help="a Python wheel: no units, no D-Bus policy, no manual pages"
    )
    asked = parser.parse_args(argv)
    built = build_wheel() if asked.wheel else build()
    if asked.output is not None:
        asked.output.mkdir(parents=True, exist_ok=True)
        built = Path(shutil.copy2(built, asked.output))
    print(built)
    return 0
