"""SIGKILL of tierd-convert, ndctl and daxctl, at every step and at random instants, while a share comes and
while it goes."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace

from tests.verify.provisioning_rows.server import RUN, Held, Witnessed, ready
from tests.verify.table import Figure, Row, Stage
from tests.vm.test_provision import RECORD

BLOCKS = 4
SIZES = {BLOCKS: f"{BLOCKS * 128}MiB", 0: "none"}
MOST_WRITES = 20
"""More writes to sysfs than any command makes; a command that got through ends the search before."""
INSTANTS, PARTS = 10, 5
"""Instants of a row, and rows of each kernel: a hundred on two kernels, no two of them alike."""
MOST_INSTANTS = 30
"""Of a row: after INSTANTS it goes on until one has come between an intent and its result. A quarter do."""

COMMANDS = (("ndctl", "create-namespace", BLOCKS), ("daxctl", "system-ram", BLOCKS))
COMMANDS += (("daxctl", "devdax", 0), ("ndctl", "destroy-namespace", 0))
"""The commands that tierd runs, each with the blocks that are asked for when it does."""

_KILLED_TOOL = (
    '\ncase " $* " in *" {word} "*) strace -f -o /dev/null -e trace=write'
    ' -e inject=write:signal=SIGKILL:when={write} /usr/bin/{tool}.real "$@"; code=$?;'
    " echo $code > /run/ended; exit $code;; esac\n"
    'exec /usr/bin/{tool}.real "$@"\n'
)
_KILLED_CONVERT = "strace -f -o /dev/null -e trace=fsync -e inject=fsync:signal=SIGKILL:when={write} " + RUN
_KILLED_AT = (
    "systemctl reset-failed tierd-convert@test 2>/dev/null; systemctl restart --no-block tierd-convert@test;"
    " sleep {instant:.2f}; systemctl kill --kill-whom={whom} -s KILL tierd-convert@test 2>/dev/null;"
    ' for i in $(seq 600); do [ "$(systemctl show -P ActiveState tierd-convert@test)" = activating ] ||'
    " break; sleep 0.1; done; systemctl stop tierd-convert@test"
)


@dataclass
class Tally:
    """What the kills came to. before: interrupted runs in the record already. killed: runs that did not get
    to their end. faults: what was not got over."""

    server: Witnessed
    others: Held
    sums: dict[str, str]
    before: int
    kills: int = 0
    killed: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        """Interrupted runs that the next one found."""
        return _found(self.server) - self.before

    def recover(self, name: str, blocks: int, code: int) -> None:
        """The next run must get over it, by what sysfs says."""
        self.kills += 1
        self.killed += code != 0
        again = self.server.converted(SIZES[blocks])
        found = self.server.state().faults(blocks)
        if again:
            found.append(f"the next run: exit status {again}")
        held = self.server.held()
        ours = [label for label in held if label.startswith("tierd:")]
        if len(ours) != (blocks > 0):
            found.append(f"namespaces of tierd: {', '.join(ours) or 'none'}")
        if held.get("data") != self.others:
            found.append(f"what others have is {held.get('data')}, and was {self.others}")
        self.faults += [f"{name}: {words}" for words in found]

    def figure(self, kernel: str, least: int) -> Figure:
        """Checksums are compared once, at the end: nothing here writes to what others have."""
        if self.server.checksums({"data": self.others}) != self.sums:
            self.faults.append("what others have has changed")
        text = (
            f"{self.kills} kills, {self.killed} of them in the middle of a run, {self.found} found by the"
            f" next; {len(self.faults)} not got over"
        )
        if self.faults:
            text += ": " + "; ".join(self.faults[:3])
        values = {"kernel": kernel, "faults": self.faults, "kills": self.kills}
        values |= {"killed": self.killed, "found": self.found}
        return Figure(not self.faults and self.kills >= least and self.killed > 0, text, values)


def _begin(stage: Stage, kernel: str) -> Tally:
    server = ready(stage, kernel)
    others = server.sentinel()
    return Tally(server, others, server.checksums({"data": others}), _found(server))


def _found(server: Witnessed) -> int:
    """How many interrupted runs the record has that a later run found."""
    return int(server.guest.output(f"cat {RECORD} 2>/dev/null | grep -c interrupted || true"))


def _ready_for(tally: Tally, blocks: int) -> None:
    """The share as it is before it comes or goes."""
    if tally.server.state().faults(BLOCKS - blocks):
        tally.server.converted(SIZES[BLOCKS - blocks])


def _seconds(server: Witnessed, blocks: int) -> float:
    """How long a whole run takes, from which an instant is drawn."""
    server.want(SIZES[blocks])
    began = time.monotonic()
    server.guest.run("systemctl restart tierd-convert@test; systemctl stop tierd-convert@test", timeout=600)
    return time.monotonic() - began


def tools(kernel: str, tool: str, word: str, blocks: int) -> Row:
    def measure(stage: Stage) -> Figure:
        tally = _begin(stage, kernel)
        writes = None
        for write in range(1, MOST_WRITES):
            _ready_for(tally, blocks)
            tally.server.replace_tool(tool, _KILLED_TOOL.format(tool=tool, word=word, write=write))
            code = tally.server.converted(SIZES[blocks])
            tally.server.restore_tool(tool)
            if tally.server.guest.output("cat /run/ended; rm -f /run/ended") == "0":
                writes = write - 1
                break
            tally.recover(f"write {write}", blocks, code)
        figure = tally.figure(kernel, 1)
        # the tool got through in the end: no write is left out
        text = f"{figure.text}; {writes} writes in all"
        return Figure(figure.holds and writes is not None, text, {**figure.values, "writes": writes})

    return Row(
        f"kill-{word}-{kernel}",
        f"SIGKILL of {tool} at each of its writes in {word}, while a share {'comes' if blocks else 'goes'},"
        f" Linux {kernel}",
        "all recovered or undone by the next run",
        measure,
    )


def convert(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        tally = _begin(stage, kernel)
        left = {BLOCKS, 0}
        for write in range(1, MOST_WRITES):
            # in turn: what one run is brought to is what the next begins with
            for blocks in sorted(left, reverse=True):
                _ready_for(tally, blocks)
                tally.server.want(SIZES[blocks])
                done = tally.server.guest.run(_KILLED_CONVERT.format(write=write), check=False, timeout=300)
                if not done.returncode:
                    left.discard(blocks)
                    continue
                tally.recover(f"record {write} to {blocks} blocks", blocks, done.returncode)
            if not left:
                break
        figure = tally.figure(kernel, 8)
        return Figure(figure.holds and not left, figure.text, figure.values)

    return Row(
        f"kill-tierd-{kernel}",
        "SIGKILL of tierd-convert at each line of its record, before it is on the disk, while a share comes"
        f" and goes, Linux {kernel}",
        "all recovered or undone by the next run",
        measure,
    )


def instants(kernel: str, part: int) -> Row:
    def measure(stage: Stage) -> Figure:
        tally = _begin(stage, kernel)
        chance = random.Random(f"{kernel} {part}")
        lengths = {blocks: _seconds(tally.server, blocks) for blocks in (BLOCKS, 0)}
        for number in range(MOST_INSTANTS):
            if number >= INSTANTS and tally.found:
                break
            blocks = 0 if number % 2 else BLOCKS
            instant, whom = chance.uniform(0, lengths[blocks]), chance.choice(("all", "main"))
            tally.server.want(SIZES[blocks])
            tally.server.guest.run(_KILLED_AT.format(instant=instant, whom=whom), check=False, timeout=300)
            done = not tally.server.state().faults(blocks)
            tally.recover(f"{whom} at {instant:.2f} s to {blocks} blocks", blocks, 0 if done else 1)
        figure = tally.figure(kernel, INSTANTS)
        return replace(figure, holds=figure.holds and tally.found > 0)

    return Row(
        f"kill-instants-{part}-{kernel}",
        f"SIGKILL of tierd-convert, alone or with its tools, at {INSTANTS} random instants, part {part} of"
        f" {PARTS}, Linux {kernel}",
        "all recovered or undone by the next run",
        measure,
        long=part > 1,
    )
