"""What README.md says under "Run it on a server", done word by word on a server that never had tierd: the
commands are taken from there, and the policy is edited as it says."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.verify.service_rows import placing
from tests.verify.service_rows.packaging import BLOCKS
from tests.verify.table import RESULTS, Figure, Row, Stage
from tests.vm import host, image, machine, scenario
from tests.vm.guest import Guest

README = host.ROOT / "README.md"
SECTION = "Run it on a server"
TRANSCRIPT = RESULTS / "new-user.txt"
DIRECTORY = "/var/tmp/new-user"
"""Where the package lies, as the user has copied it."""
_PREPARE = f'cd {DIRECTORY}; sudo() {{ "$@"; }}; export DEBIAN_FRONTEND=noninteractive; '
"""The guest's root has no sudo, and nobody to ask."""
_OWN = ("./dev ",)
"""Commands that are run where the package is built."""
_COMMAND = re.compile(r"(?:sudo|tierctl|systemctl|\./dev) ")
_STEP = re.compile(r"^\d+\. \*\*", re.MULTILINE)
_BLOCK = re.compile(r"(?:^ {4,}\S.*\n)+", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")


class Kind(StrEnum):
    """What the reader does."""

    RUN = "run"
    REQUEST = "request"
    """Write the request into the policy, in the place of ``provision: []``."""
    SET = "set"
    """Change the mode: of the request, or of the engine."""


@dataclass(frozen=True)
class Deed:
    """One thing that README.md says is to be done. text: the command, or what is written."""

    kind: Kind
    text: str


def deeds(readme: str) -> list[Deed]:
    """What the section has its reader do, in order, up to the step that is for whoever likes."""
    section = readme.split(f"## {SECTION}\n", 1)[1].split("\n## ", 1)[0]
    head, *steps = _STEP.split(section)
    steps = [step for step in steps if "if you like" not in step.partition("**")[0]]
    return [deed for part in (head, *steps) for deed in _of_part(part)]


def _of_part(text: str) -> Iterator[Deed]:
    """What comes behind the last block of commands is there to be known; a part without one has it all in
    its first sentence."""
    blocks = [(found.start(), found.end()) for found in _BLOCK.finditer(text)]
    end = blocks[-1][1] if blocks else len(text)
    place = 0
    for start, stop in [*blocks, (end, end)]:
        for span in _SPAN.finditer(text, place, max(start, place)):
            said = span[1]
            if _COMMAND.match(said):
                yield Deed(Kind.RUN, said)
            elif said.startswith("mode: ") and text[: span.start()].rstrip().endswith("set"):
                yield Deed(Kind.SET, said)
        lines = [line.partition("  #")[0].rstrip() for line in text[start:stop].splitlines()]
        indent = min((len(line) - len(line.lstrip()) for line in lines), default=0)
        lines = [line[indent:] for line in lines]
        if lines and lines[0] == "provision:":
            yield Deed(Kind.REQUEST, "\n".join(lines) + "\n")
        else:
            yield from (Deed(Kind.RUN, line) for line in lines)
        place = stop


def edited(policy: str, deed: Deed, iset_id: str, unit: str) -> str:
    """The policy after the reader's change. iset_id: the region's, of `tierctl list devices`. unit: whom the
    reader chooses, with the engine's mode. Raises ValueError when there is nothing to change."""
    if deed.kind is Kind.REQUEST:
        request = re.sub(r'(?<=iset_id: )"0x[0-9a-f]+"', f'"{iset_id}"', deed.text)
        return _replaced(policy, "provision: []\n", request)
    if deed.text == "mode: apply":
        return _replaced(policy, "\n    mode: plan\n", f"\n    {deed.text}\n")
    chosen = _replaced(policy, '{cgroup: "*"}', f"{{unit: {unit}}}")
    return _replaced(chosen, "\n  mode: observe\n", f"\n  {deed.text}\n")


def _replaced(text: str, old: str, new: str) -> str:
    if old not in text:
        raise ValueError(f"the policy has no {old!r}")
    return text.replace(old, new, 1)


def iset_id_in(listed: str) -> str:
    """The first region's, as a reader finds it in `tierctl list devices`. Raises ValueError."""
    found = re.search(r"\b0x[0-9a-f]{9,16}\b", listed)
    if found is None:
        raise ValueError("`tierctl list devices` shows no iset_id")
    return found[0]


@dataclass
class _Reader:
    """Does one thing after the other, and notes how long each takes and what it says."""

    guest: Guest
    iset_id: str = ""

    def __post_init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []
        self.faults: list[str] = []

    def do(self, deed: Deed) -> None:
        if deed.kind is Kind.RUN:
            self._run(deed.text)
            return
        policy = self.guest.output(f"cat {scenario.POLICY}") + "\n"
        self.guest.write(scenario.POLICY, edited(policy, deed, self.iset_id, "load.service"))
        self.notes.append(f"(in {scenario.POLICY})\n{deed.text.rstrip()}\n")

    def _run(self, command: str) -> None:
        began = time.monotonic()
        done = self.guest.run(_PREPARE + command, check=False, timeout=600)
        took = self.seconds[command] = round(time.monotonic() - began, 1)
        said = (done.stdout + done.stderr).rstrip()
        self.notes.append(f"$ {command}\n{said}\n[exit status {done.returncode}, {took} s]\n")
        if done.returncode:
            self.faults.append(f"{command}: exit status {done.returncode}")
        if "list devices" in command:
            self.iset_id = iset_id_in(done.stdout)


def _measure(stage: Stage) -> Figure:
    stage.close()
    package = stage.package()
    kernel = image.kernel_names()[-1]
    with machine.boot(machine.Machine(kernel=kernel)) as guest:
        guest.prepare_labels()  # as NVDIMMs are delivered; QEMU's come without
        guest.put(package, f"{DIRECTORY}/{package.name}")
        reader = _Reader(guest)
        before = 0
        try:
            for deed in deeds(README.read_text()):
                if deed.text.startswith(_OWN):
                    continue
                if deed == Deed(Kind.SET, "mode: place"):
                    placing.start_load(guest)
                    before = placing.in_dram(guest)
                reader.do(deed)
            promoted = placing.wait_promoted(guest, before)
            blocks = guest.output(BLOCKS).count("online Movable")
            reader.notes.append(f"{blocks} memory blocks online, {promoted / placing.MIB:.0f} MiB came up\n")
        finally:
            TRANSCRIPT.write_text("\n".join(reader.notes))
    text = (
        f"{len(reader.seconds)} commands in {sum(reader.seconds.values()):.0f} s, {blocks} memory blocks,"
        f" {promoted / placing.MIB:.0f} MiB promoted, {len(reader.faults)} faults"
    )
    text += "".join(f"; {fault}" for fault in reader.faults[:5])
    text += f" (the transcript is {TRANSCRIPT.name})"
    values = {"kernel": kernel, "seconds": reader.seconds, "blocks": blocks, "promoted": promoted}
    return Figure(not reader.faults and blocks > 0, text, {**values, "faults": reader.faults})


NEW_USER = Row(
    "new-user",
    "what README.md says under Run it on a server, word by word, on a server that never had tierd",
    "every command succeeds, the memory is there, and a process is placed by the kernel's account",
    _measure,
)
