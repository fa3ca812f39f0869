"""What every ring's tests share: the guests, one boot per kernel, and what a failure shows."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.vm import host, image, machine
from tests.vm.guest import Guest

KERNELS = image.kernel_names()
SHARING = {
    "tests/vm/test_service.py": "guest",
    "tests/vm/test_testbed.py": "guest",
    "tests/vm/test_settings.py": "changing_guest",
    "tests/vm/test_provision.py": "changing_guest",
}
"""Modules that share a server: the fixture it comes from. On one server they run in this order."""
_guests: list[Guest] = []

# How long an example takes says something of the machine, and nothing of the code. The second is for
# `./dev faults --long`; a test that names a number of examples keeps it in both.
settings.register_profile("tierd", deadline=None)
settings.register_profile("long", deadline=None, max_examples=100_000)
settings.load_profile("tierd")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kernel",
        action="append",
        choices=image.kernel_names(earlier=True),
        help="boot only this kernel (may be repeated)",
    )
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kernel" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--kernel") or KERNELS
        # the newest first, which has most to do: of two processes none is left with it at the end
        metafunc.parametrize("kernel", chosen[::-1], scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = config.getoption("--slow")
    order = {module: place for place, module in enumerate(SHARING)}
    items.sort(key=lambda item: order.get(_module(item.nodeid), -1))
    for item in items:
        ring = item.path.relative_to(host.ROOT).parts[1]
        if ring in ("vm", "service"):
            item.add_marker(getattr(pytest.mark, ring))
        callspec = getattr(item, "callspec", None)
        kernel = callspec.params.get("kernel") if callspec else None
        chosen = config.getoption("--kernel") or KERNELS
        if item.get_closest_marker("one_kernel") and kernel not in (None, chosen[-1]) and not slow:
            item.add_marker(pytest.mark.skip(reason=f"no kernel decides it: runs on {chosen[-1]} only"))
        if item.get_closest_marker("slow") and not slow:
            item.add_marker(pytest.mark.skip(reason="slow: ./dev test --slow"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """For `--dist loadscope`: a process runs all tests that share a server, those of one module or of
    several on one kernel."""
    return _ByServer(config, log) if config.getvalue("dist") == "loadscope" else None


class _ByServer(LoadScopeScheduling):
    # not by marks of groups: pytest-xdist 3.8 writes them where pytest 9.2 no longer reads them
    def _split_scope(self, nodeid: str) -> str:
        module = _module(nodeid)
        kernel = next((kernel for kernel in KERNELS if f"[{kernel}" in nodeid), "")
        return f"{SHARING.get(module, module) if kernel else module} {kernel}"


def _module(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.fixture(scope="session")
def tierd_package() -> Path:
    """tierd's Debian package, built from this tree."""
    from tests.dev import package

    return package.build()


@pytest.fixture(scope="session")
def guest(kernel: str, tierd_package: Path) -> Iterator[Guest]:
    """A server of one kernel with labels on its NVDIMM and tierd installed, shared by all tests of that
    kernel.

    A test leaves it as it found it; one that cannot asks for `own_guest`. Nothing is placed on it.
    """
    with _server(kernel, tierd_package) as found:
        yield found


@pytest.fixture(scope="session")
def changing_guest(kernel: str, tierd_package: Path) -> Iterator[Guest]:
    """The same, for modules whose tests make memory and take it away. The first finds none of PMEM; those
    after it take away what is left, and the last may leave some that only a reboot takes away."""
    with _server(kernel, tierd_package) as found:
        yield found


@pytest.fixture(scope="module")
def own_guest(request: pytest.FixtureRequest, kernel: str, tierd_package: Path) -> Iterator[Guest]:
    """The same, for one test module alone, at the price of a boot."""
    seen = request.node.get_closest_marker("accessed_bits") is not None
    with _server(kernel, tierd_package, accessed_bits=seen) as found:
        yield found


@pytest.fixture(scope="module")
def bare_guest(kernel: str, tierd_package: Path) -> Iterator[Guest]:
    """A server of its own that was started without an NVDIMM, with tierd installed."""
    with _booted(kernel, pmem=(), accessed_bits=False) as found:
        found.install_tierd(tierd_package)
        yield found


@contextmanager
def _server(kernel: str, package: Path, *, accessed_bits: bool = False) -> Iterator[Guest]:
    with _booted(kernel, accessed_bits=accessed_bits) as found:
        found.prepare_labels()
        found.install_tierd(package)
        yield found


class _booted:
    """A machine for the length of a `with` block, whose console and journal a failing test shows."""

    def __init__(self, kernel: str, **parts: Any) -> None:
        self.boot = machine.boot(machine.Machine(kernel=kernel, **parts))

    def __enter__(self) -> Guest:
        self.guest = self.boot.__enter__()
        _guests.append(self.guest)
        return self.guest

    def __exit__(self, *failure: Any) -> None:
        _guests.remove(self.guest)
        self.boot.__exit__(*failure)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for used in _guests:
            if used in getattr(item, "funcargs", {}).values():
                report.sections.append((f"serial console, kernel {used.kernel}", used.serial_tail()))
                report.sections.append((f"journal, kernel {used.kernel}", _journal(used)))
    return report


def _journal(guest: Guest) -> str:
    try:
        return guest.run(
            "journalctl --no-pager -o short-monotonic -n 60 -u 'tierd*'", timeout=30, check=False
        ).stdout
    except host.HostError as error:
        return str(error)
