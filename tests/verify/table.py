"""A table of figures: rows that are measured, held against a bar, and kept."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from tests.vm import host, image, machine
from tests.vm.guest import Guest, Region

Measured = TypeVar("Measured")

RESULTS = host.ROOT / "tests" / "results"


@dataclass(frozen=True)
class Figure:
    """What a row came to. text: the figure as a person reads it. values: the same for machines."""

    holds: bool
    text: str
    values: Mapping[str, object] = field(default_factory=dict)


class Stage:
    """Where rows are measured: one server at a time, booted when a row asks and kept for the next that asks
    for the same."""

    def __init__(self, deb: Callable[[], Path]) -> None:
        self._deb = deb
        self._guests = contextlib.ExitStack()
        self._kernel = ""
        self._booted: machine.Machine | None = None
        self._guest: Guest | None = None
        self.region: Region | None = None
        self._kept: dict[Hashable, object] = {}

    def guest(self, kernel: str) -> Guest:
        """A server of this kernel with tierd installed and its NVDIMM turned into memory."""
        from tests.vm import scenario

        if self._kernel != kernel or self._guest is None:
            self.close()
            self._guest = self._guests.enter_context(machine.boot(machine.Machine(kernel=kernel)))
            self._kernel = kernel
            self.region = self._guest.prepare_labels()
            self._guest.install_tierd(self._deb())
            scenario.make_memory(self._guest, self.region)
        return self._guest

    def ready(self, kernel: str) -> tuple[Guest, Region]:
        """The same, with its region."""
        guest = self.guest(kernel)
        assert self.region is not None
        return guest, self.region

    def free(self, asked: machine.Machine) -> tuple[Guest, Region]:
        """A server with labels, tierd installed, and its region as the row before left it: free at first."""
        if self._booted != asked or self._guest is None:
            self.close()
            self._guest = self._guests.enter_context(machine.boot(asked))
            self._booted = asked
            self.region = self._guest.prepare_labels()
            self._guest.install_tierd(self._deb())
        assert self.region is not None
        return self._guest, self.region

    def package(self) -> Path:
        """The package, for a row that boots a server of its own after it has closed this one."""
        return self._deb()

    def once(self, key: Hashable, measure: Callable[[], Measured]) -> Measured:
        """What `measure` gives, measured for the first row that asks and kept for the others. key: says all
        that decides it."""
        if key not in self._kept:
            self._kept[key] = measure()
        return cast(Measured, self._kept[key])

    def close(self) -> None:
        self._guests.close()
        self._guest, self._kernel, self._booted = None, "", None


@dataclass(frozen=True)
class Row:
    """One row. name: for --row. what: what is shown. bar: the figure asked for. long: only with --long."""

    name: str
    what: str
    bar: str
    measure: Callable[[Stage], Figure]
    long: bool = False


def choose(rows: Iterable[Row], names: Sequence[str] | None, *, long: bool) -> list[Row]:
    """The rows of these names, or all but the long ones. Raises ValueError that says which there are not."""
    rows = tuple(rows)
    if unknown := set(names or ()) - {row.name for row in rows}:
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}; --list names them")
    return [row for row in rows if (row.name in names if names else long or not row.long)]


def show(rows: Iterable[Row]) -> None:
    """Name the rows, for --list."""
    for row in rows:
        print(f"{row.name:40} {'long ' if row.long else '     '} {row.what}")


def run(name: str, rows: Iterable[Row], stage: Stage, *, keep: Path | None) -> int:
    """Measure each row, print it with its figure and whether it holds, and keep the result; 1 if one falls
    short."""
    results = []
    started = time.monotonic()
    rows = tuple(rows)
    try:
        for number, row in enumerate(rows, 1):
            host.say(f"row {number} of {len(rows)}: {row.name}: {row.what}")
            begun = time.monotonic()
            try:
                figure = row.measure(stage)
            except Exception as error:
                traceback.print_exc()
                figure = Figure(False, f"could not be measured: {error}".splitlines()[0][:160])
            seconds = time.monotonic() - begun
            results.append((row, figure, seconds))
            if keep:
                _keep(keep, name, results[-1:])
            print(
                f"  {'holds' if figure.holds else 'SHORT':6} {row.name:24} {figure.text}  [{row.bar}]",
                flush=True,
            )
    finally:
        stage.close()
    minutes = (time.monotonic() - started) / 60
    print(f"\n{name}, {host.commit()}, {time.strftime('%Y-%m-%d')}, {minutes:.1f} minutes\n")
    for row, figure, _ in results:
        print(f"  {'holds' if figure.holds else 'SHORT':6} {row.what}")
        print(f"         {figure.text}  (asked: {row.bar})")
    short = [row.name for row, figure, _ in results if not figure.holds]
    ending = f"; short: {', '.join(short)}" if short else ""
    print(f"\n{len(results) - len(short)} of {len(results)} rows hold{ending}")
    return 1 if short else 0


def _keep(path: Path, name: str, results: list[tuple[Row, Figure, float]]) -> None:
    """Merge into what is there: a run of single rows renews those rows only, and one that is cut short keeps
    what it measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text())["rows"] if path.exists() else {}
    for row, figure, seconds in results:
        kept[row.name] = {
            "what": row.what,
            "bar": row.bar,
            **asdict(figure),
            "seconds": round(seconds, 1),
            "date": time.strftime("%Y-%m-%d"),
            "commit": host.commit(),
        }
    versions = {kernel: image.image().release(kernel) for kernel in image.kernel_names()}
    text = json.dumps({"table": name, "kernels": versions, "rows": kept}, indent=2)
    path.write_text(text + "\n")
