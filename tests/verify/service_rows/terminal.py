"""What tierctl shows in terminals of two widths, and in a pipe; and what `top` writes there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.verify.service_rows import placing
from tests.verify.service_rows.terminal_cases import (
    BAD_POLICY,
    CASES,
    HANGING,
    RUNNING,
    STOPPED,
    Case,
    helps,
    left_out,
)
from tests.verify.table import RESULTS, Figure, Row, Stage
from tests.vm import scenario
from tests.vm.guest import Guest
from tierd.cli.main import parser
from tierd.cli.terminal import COMMAND_INDENT

COLUMNS = (80, 200, 0)
"""Widths of terminals; 0 is a pipe."""
TOP_SECONDS, LEAST_FRAMES = 10, 3
CLASSES = "classes: [{name: gold, match: [{unit: load.service}], dram: {min: 10MiB}}]\n"
_PROBE = "/usr/local/lib/terminal_probe.py"
_TRACE = "/run/top.strace"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()].|\x1b[=>c]")
_WHOLE = re.compile(r"\S*/\S*|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Paths, and the UUIDs of namespaces."""
_CLEARS = ("\x1b[2J", "\x1b[3J", "\x1bc")
_WRITE = re.compile(r'write\(1, "(.*)"\.*, (\d+)\) += (-?\d+)')


@dataclass(frozen=True)
class Shown:
    """What one command came to. columns: of the terminal, 0 for a pipe."""

    case: Case
    columns: int
    code: int
    output: str
    errors: str

    @property
    def title(self) -> str:
        where = f"{self.columns} columns" if self.columns else "pipe"
        user = "" if self.case.user == "root" else f" as {self.case.user}"
        return f"tierctl {self.case.words}{user}, tierd {self.case.when}, {where}"

    def faults(self) -> Iterator[str]:
        both = self.output + self.errors
        if self.code != self.case.code:
            yield f"exit status {self.code}, not {self.case.code}"
        if "Traceback" in both:
            yield "a traceback"
        if self.code and not both.strip():
            yield "fails without a word"
        if self.case.is_json and self.code in (0, 3) and not _parses(self.output):
            yield "no JSON"
        # of top, each frame is looked at by itself
        if self.columns and not self.case.is_data and self.case.words != "top":
            wide = too_wide(self.output, self.columns)
            if wide:
                yield f"a line of {len(wide[0])} characters, {wide[0][:40]!r}..."
        if not self.columns and _ESCAPE.search(both):
            yield "escape sequences in a pipe"


def _parses(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def too_wide(text: str, columns: int) -> list[str]:
    """Lines longer than the terminal is wide, but for those that only a path or a UUID makes so, which are
    not broken, and for commands of a plan."""
    lines = [_ESCAPE.sub("", line).rstrip("\r ") for line in text.split("\n")]
    prose = [line for line in lines if not line.startswith(" " * COMMAND_INDENT)]
    return [line for line in prose if len(line) > columns and len(_WHOLE.sub("", line)) > columns]


def frames(output: str) -> list[str]:
    """What `top` drew: from the first row to the end of the screen, each."""
    return [part.split("\x1b[J")[0] for part in output.split("\x1b[H") if "\x1b[J" in part]


def top_faults(shown: Shown, trace: str) -> Iterator[str]:
    """trace: every write(2) that it made, by strace."""
    drawn = frames(shown.output)
    # one clears what was there before it, on entering
    clears = sum(shown.output.count(clear) for clear in _CLEARS)
    writes = _WRITE.findall(trace)
    whole = [start for start, asked, done in writes if start.startswith("\\33[H") and asked == done]
    if len(drawn) < LEAST_FRAMES:
        yield f"{len(drawn)} frames"
    if clears > 1 or any(clear in frame for frame in drawn for clear in _CLEARS):
        yield f"clears the screen {clears} times"
    # one more enters, and one leaves
    if len(whole) != len(drawn) or len(writes) != len(drawn) + 2:
        yield f"{len(drawn)} frames in {len(writes)} writes, {len(whole)} of them whole frames"
    if any(too_wide(frame, shown.columns) for frame in drawn):
        yield "a frame wider than the terminal"


def _run(guest: Guest, asked: Sequence[tuple[Case, int]], load: str, **more: Any) -> list[Shown]:
    jobs = [
        {
            "command": ["tierctl", *case.words.replace("LOAD", load).split()],
            "columns": columns,
            "user": case.user,
            "environment": dict(case.environment),
            "seconds": 0,
            "trace": "",
            **more,
        }
        for case, columns in asked
    ]
    done = guest.run(["python3", _PROBE], input=json.dumps(jobs), timeout=120 + 30 * len(jobs))
    found = map(json.loads, done.stdout.splitlines())
    return [
        Shown(case, columns, one["code"], one["output"], one["errors"])
        for (case, columns), one in zip(asked, found, strict=True)
    ]


def _in_state(guest: Guest, state: str, load: str) -> list[Shown]:
    cases = [case for case in CASES if case.when == state]
    if state == RUNNING:
        cases += helps(parser())
    asked = [(case, columns) for case in cases for columns in ((0,) if case.piped else COLUMNS)]
    return _run(guest, asked, load)


def _keep(kernel: str, shown: Sequence[Shown], tops: Sequence[Shown]) -> Path:
    """The screens, for a person to look at, without those for programs; of `top` the last frame."""
    path = RESULTS / f"service-screens-{kernel}.txt"
    parts = []
    for one in shown:
        if one.case.is_json:
            continue
        text = _ESCAPE.sub("", one.output + one.errors).replace("\r", "").rstrip()
        parts.append(f"$ {one.title}: exit status {one.code}\n{text}\n")
    for one in tops:
        last = _ESCAPE.sub("", (frames(one.output) or [""])[-1]).replace("\r", "")
        parts.append(f"$ {one.title}: the last of {len(frames(one.output))} frames\n{last}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts))
    return path


def terminal(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        guest.put(Path(__file__).with_name("terminal_probe.py"), _PROBE)
        guest.write(BAD_POLICY, "version: 1\nengine: {mode: fast}\n")
        faults = [f"{words}: not tried" for words in left_out(parser())]
        with placing.placing(guest, placing.policy(region, more=CLASSES)) as promoted:
            load = guest.output("systemctl show -P MainPID load")
            shown = _in_state(guest, RUNNING, load)
            tops = []
            for columns in (80, 200):
                (one,) = _run(guest, [(Case("top"), columns)], load, seconds=TOP_SECONDS, trace=_TRACE)
                tops.append(one)
                trace = guest.output(f"cat {_TRACE}.* && rm {_TRACE}.*")
                faults += [f"{one.title}: {fault}" for fault in (*one.faults(), *top_faults(one, trace))]
            guest.run("systemctl kill --kill-whom=main --signal=STOP tierd")
            try:
                shown += _in_state(guest, HANGING, load)
            finally:
                guest.run("systemctl kill --kill-whom=main --signal=CONT tierd")
            scenario.stop_tierd(guest)
            shown += _in_state(guest, STOPPED, load)
        kept = _keep(kernel, shown, tops)
        faults += [f"{one.title}: {fault}" for one in shown for fault in one.faults()]
        drawn = " and ".join(str(len(frames(one.output))) for one in tops)
        text = (
            f"{len(shown)} screens, and of top {drawn} frames,"
            f" {promoted / placing.MIB:.0f} MiB promoted meanwhile; {len(faults)} faults"
        )
        if faults:
            text += f": {'; '.join(faults[:5])}"
        text += f" (the screens are in {kept.name})"
        return Figure(not faults, text, {"kernel": kernel, "screens": len(shown), "faults": faults})

    return Row(
        f"terminal-{kernel}",
        f"every command of tierctl in terminals of 80 and 200 columns and in a pipe, Linux {kernel}",
        "no line is wider but for paths and data, JSON parses, exit statuses as documented, top draws a"
        " frame in one write",
        measure,
    )
