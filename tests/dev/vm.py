"""`./dev vm`: the testbed for a person, for a moment or for as long as it takes."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.dev import package
from tests.vm import host, image, machine
from tests.vm.guest import Guest


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev vm",
        description="Boot the virtual server, give its NVDIMM labels, install tierd, and open a shell as "
        "root. The server is powered off when the shell ends.",
        epilog="A guest that stays: ./dev vm --detach --name mine; then ./dev vm --name mine, with --run "
        "CMD, --put FILE PATH, --get PATH FILE, --install or --stop. --list names those that run.",
    )
    parser.add_argument("--kernel", default="7.3", choices=image.kernel_names(earlier=True))
    parser.add_argument("--no-tierd", action="store_true", help="do not build and install tierd")
    parser.add_argument(
        "--no-labels", action="store_true", help="leave the NVDIMM as it came, without labels"
    )
    parser.add_argument("--dram", type=int, default=1280, metavar="MIB", help="DRAM in MiB (default: 1280)")
    parser.add_argument(
        "--pmem", type=int, default=[], action="append", metavar="MIB", help="an NVDIMM (default: 4098)"
    )
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument(
        "--append", default="", metavar="WORDS", help="more words for the kernel's command line"
    )
    parser.add_argument(
        "--run", metavar="CMD", help="run this command instead of a shell, and exit with its code"
    )
    parser.add_argument(
        "--timeout", type=float, default=3600, metavar="S", help="seconds for --run (default: 3600)"
    )
    parser.add_argument("--name", default="", help="a guest that keeps running under this name")
    parser.add_argument(
        "--detach", action="store_true", help="start the guest of that name and leave it running"
    )
    parser.add_argument(
        "--put", nargs=2, metavar=("FILE", "PATH"), help="copy a file or directory into that guest"
    )
    parser.add_argument("--get", nargs=2, metavar=("PATH", "FILE"), help="copy a file out of that guest")
    parser.add_argument(
        "--install", action="store_true", help="build tierd from this tree and install it in that guest"
    )
    parser.add_argument("--stop", action="store_true", help="power off that guest")
    parser.add_argument("--list", action="store_true", help="name the guests that run")
    return parser


def main(argv: list[str]) -> int:
    """Called by `./dev vm`; the exit code is that of the shell or of the command."""
    parser = _parser()
    asked = parser.parse_args(argv)
    if asked.list:
        print("\n".join(machine.running()))
        return 0
    if not asked.name and (asked.detach or asked.stop or asked.put or asked.get or asked.install):
        parser.error("--detach, --stop, --put, --get and --install need --name")
    if asked.name and not asked.detach:
        return _existing(asked)
    host.prepare(tools=False)
    wanted = machine.Machine(
        kernel=asked.kernel,
        dram=asked.dram,
        pmem=tuple(asked.pmem) or (4098,),
        cpus=asked.cpus,
        cmdline=tuple(asked.append.split()),
    )
    if asked.detach:
        if asked.name in machine.running():
            raise host.HostError(f"a guest named {asked.name} is already running")
        guest = machine.start(wanted, name=asked.name, detached=True)
        _prepare(guest, asked)
        host.say(f"guest {asked.name} runs (QEMU is process {guest.pid})")
        host.say(f"./dev vm --name {asked.name} --stop ends it")
        return 0
    with machine.boot(wanted) as guest:
        _prepare(guest, asked)
        return _use(guest, asked)


def _prepare(guest: Guest, asked: argparse.Namespace) -> None:
    if not asked.no_labels:
        region = guest.prepare_labels()
        host.say(f"{region.name}: iset_id {region.iset_id}, {region.available_size >> 20} MiB available")
    if not asked.no_tierd:
        _install(guest, required=False)


def _install(guest: Guest, *, required: bool) -> None:
    if not required and not package.has_packaging():
        host.say("no debian/ in this tree: tierd is not installed")
        return
    built = package.build()
    guest.install_tierd(built)
    host.say(f"{built.name} is installed")


def _existing(asked: argparse.Namespace) -> int:
    guest = machine.attach(asked.name)
    if asked.stop:
        machine.stop(guest)
        machine.state_file(asked.name).unlink(missing_ok=True)
        return 0
    if asked.put:
        guest.put(Path(asked.put[0]).absolute(), asked.put[1])
    if asked.install:
        _install(guest, required=True)
    if asked.get:
        guest.get(asked.get[0], Path(asked.get[1]))
    if asked.run is None and (asked.put or asked.get or asked.install):
        return 0
    return _use(guest, asked)


def _use(guest: Guest, asked: argparse.Namespace) -> int:
    if asked.run is None:
        return guest.shell()
    # Output goes straight through, as it comes.
    process = guest.popen(asked.run, stdout=sys.stdout, stderr=sys.stderr)
    try:
        return process.wait(asked.timeout)
    except subprocess.TimeoutExpired:
        raise host.HostError(f"not done after {asked.timeout:g} s: {asked.run}") from None
    finally:
        process.kill()
