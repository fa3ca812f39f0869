"""The house keeps its walls: who imports whom, what core may not touch, where kernel paths live, size.

A rule is a function from a tree to a list of offences, run on the product and on planted offenders.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[1] / "tierd"

# What each package may import of the others. `errors` is the one module that everybody may name.
MAY_IMPORT = {
    "core": {"core", "errors"},
    "kernel": {"kernel", "core", "errors"},
    "config": {"config", "core", "errors"},
    "service": {"service", "config", "kernel", "core", "errors"},
    "cli": {"cli", "config", "core", "errors"},
    "errors": set(),
    "__init__": set(),
    "__main__": {"service", "config", "kernel", "core", "errors"},
}

# tierctl is a D-Bus client. These commands work while no daemon answers, and look at the kernel themselves.
OFFLINE_COMMANDS = {
    *("tierd.cli.devices", "tierd.cli.offline", "tierd.cli.provision", "tierd.cli.provision_set"),
    *("tierd.cli.provision_apply", "tierd.cli.requests"),
    "tierd.cli.drain",
}

# Core decides from what it is given: no clock, no I/O, no logging, no processes.
IMPURE_MODULES = {
    *("asyncio", "ctypes", "fcntl", "glob", "io", "logging", "mmap", "multiprocessing", "os", "pathlib"),
    *("random", "resource", "select", "shutil", "signal", "socket", "subprocess", "sys", "syslog"),
    *("tempfile", "threading", "time", "uuid"),
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}

PATHS_MODULE = "tierd.kernel.paths"
KERNEL_PATH = re.compile(r"/(proc|sys)(/|$)")

MOST_LINES = 400
LONGER_WITH_REASON: dict[str, int] = {}


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its package within tierd, and its syntax tree."""

    name: str
    package: str
    path: Path
    tree: ast.Module
    lines: int

    def imports(self) -> Iterator[tuple[int, str]]:
        """Every imported module anywhere in the file, lazily imported or for types alone, with its line."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = self.name.split(".")
                    up = node.level - (self.path.name == "__init__.py")
                    base = ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])
                # `from tierd import core` names a module too.
                found = [f"{base}.{alias.name}" for alias in node.names] if base == "tierd" else [base]
                yield from ((node.lineno, name) for name in found)


def modules(tree: Path) -> list[Module]:
    """Every module under a tree named tierd."""
    found = []
    for path in sorted(tree.rglob("*.py")):
        parts = ["tierd", *path.relative_to(tree).with_suffix("").parts]
        package = parts[1]
        if parts[-1] == "__init__" and len(parts) > 2:
            parts.pop()
        text = path.read_text(encoding="utf-8")
        found.append(Module(".".join(parts), package, path, ast.parse(text), text.count("\n")))
    return found


def wrong_directions(tree: Path) -> list[str]:
    """Imports that run against the house's one direction, and packages that the house does not know."""
    offences = []
    for module in modules(tree):
        if module.package not in MAY_IMPORT:
            offences.append(f"{module.name}: no such room in the house")
            continue
        allowed = set(MAY_IMPORT[module.package])
        if module.name in OFFLINE_COMMANDS:
            allowed.add("kernel")
        for line, name in module.imports():
            parts = name.split(".")
            target = parts[1] if parts[0] == "tierd" and len(parts) > 1 else None
            if target in MAY_IMPORT and target not in ("__init__", *allowed):
                offences.append(f"{module.name}:{line} imports {name}")
    return offences


def package_cycles(tree: Path) -> list[str]:
    """Packages that reach themselves through others, whatever the table above allows."""
    edges: dict[str, set[str]] = {}
    for module in modules(tree):
        for _, name in module.imports():
            parts = name.split(".")
            if parts[0] == "tierd" and len(parts) > 1 and parts[1] != module.package:
                edges.setdefault(module.package, set()).add(parts[1])

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(edges.get(start, ()))
        while waiting:
            package = waiting.pop()
            if package not in seen:
                seen.add(package)
                waiting += edges.get(package, ())
        return seen

    return [
        f"{package} imports itself through others"
        for package in sorted(edges)
        if package in reachable(package)
    ]


def impure_core(tree: Path) -> list[str]:
    """What core imports beyond the pure part of the stdlib and numpy, and what it calls to reach outside."""
    offences = []
    for module in modules(tree):
        if module.package != "core":
            continue
        for line, name in module.imports():
            root = name.split(".")[0]
            known = root in sys.stdlib_module_names or root in ("numpy", "tierd")
            if not known or root in IMPURE_MODULES:
                offences.append(f"{module.name}:{line} imports {name}")
        for node in ast.walk(module.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in IMPURE_CALLS
            ):
                offences.append(f"{module.name}:{node.lineno} calls {node.func.id}()")
            if isinstance(node, ast.Attribute) and node.attr in ("now", "today", "utcnow"):
                offences.append(f"{module.name}:{node.lineno} reads a clock: .{node.attr}")
    return offences


def literal_kernel_paths(tree: Path) -> list[str]:
    """String literals that are paths in /proc or /sys; prose that mentions one in the middle is none."""
    offences = []
    for module in modules(tree):
        if module.name == PATHS_MODULE:
            continue
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Constant) or id(node) in docstrings:
                continue
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if isinstance(text, str) and KERNEL_PATH.match(text):
                offences.append(f"{module.name}:{node.lineno} names {text!r}")
    return offences


def long_modules(tree: Path) -> list[str]:
    """Modules over the limit, and exceptions that are none any more."""
    offences = []
    for module in modules(tree):
        limit = LONGER_WITH_REASON.get(module.name, MOST_LINES)
        if module.lines > limit:
            offences.append(f"{module.name} has {module.lines} lines, more than {limit}")
    return offences


RULES = (wrong_directions, package_cycles, impure_core, literal_kernel_paths, long_modules)


@pytest.mark.parametrize("rule", RULES)
def test_house(rule: Callable[[Path], list[str]]) -> None:
    assert len(modules(TREE)) > 20, "the tree was not found"
    assert rule(TREE) == []


OFFENDERS = (
    (wrong_directions, "core/heat.py", "from tierd.kernel import paths\n"),
    (wrong_directions, "kernel/perf.py", "from tierd import service\n"),
    (wrong_directions, "config/load.py", "def load():\n    import tierd.service.bus\n"),
    (wrong_directions, "cli/main.py", "from ..kernel.paths import Root\n"),
    (wrong_directions, "cli/__init__.py", "from ..kernel.paths import Root\n"),
    (wrong_directions, "shed/main.py", "x = 1\n"),
    (impure_core, "core/heat.py", "import time\n"),
    (impure_core, "core/heat.py", "import os.path\n"),
    (impure_core, "core/heat.py", "import yaml\n"),
    (impure_core, "core/heat.py", "def read():\n    return open('x')\n"),
    (impure_core, "core/heat.py", "import datetime\nx = datetime.datetime.now()\n"),
    (literal_kernel_paths, "kernel/files.py", "path = '/proc/meminfo'\n"),
    (literal_kernel_paths, "service/engine.py", "def f(pid):\n    return f'/proc/{pid}/stat'\n"),
    (literal_kernel_paths, "service/engine.py", "path = b'/sys'\n"),
    (long_modules, "core/heat.py", "x = 1\n" * (MOST_LINES + 1)),
)


def _plant(tree: Path, where: str, text: str) -> None:
    path = tree / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(("rule", "where", "text"), OFFENDERS)
def test_offender_is_seen(rule: Callable[[Path], list[str]], where: str, text: str, tmp_path: Path) -> None:
    _plant(tmp_path / "tierd", where, text)
    assert len(rule(tmp_path / "tierd")) == 1


def test_cycle_is_seen(tmp_path: Path) -> None:
    _plant(tmp_path / "tierd", "core/heat.py", "from tierd.config import load\n")
    _plant(tmp_path / "tierd", "config/load.py", "from tierd.kernel import files\n")
    _plant(tmp_path / "tierd", "kernel/files.py", "from tierd.core import heat\n")
    assert len(package_cycles(tmp_path / "tierd")) == 3


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("kernel/paths.py", "PROC = '/proc'\n"),
        ("kernel/files.py", '"""Reads\n/proc/meminfo."""\nhint = "mount it at /sys/kernel/debug"\n'),
        ("config/kinds.py", "example = '/system.slice/*'\n"),
        ("cli/offline.py", "from tierd.kernel.topology import read\n"),
        ("core/heat.py", "import math\nimport numpy as np\nfrom tierd.errors import TierdError\n"),
        ("core/heat.py", "from . import model\nfrom .model import Page\n"),
    ],
)
def test_what_is_allowed(where: str, text: str, tmp_path: Path) -> None:
    _plant(tmp_path / "tierd", where, text)
    assert [offence for rule in RULES for offence in rule(tmp_path / "tierd")] == []
