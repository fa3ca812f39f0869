"""Putting right what a step that failed, or a run that was stopped, has left behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tierd.core.inventory import DaxDevice, Inventory
from tierd.core.provision import MEMORY_POLICY, Action, Command, Setting
from tierd.core.provision_text import act_text
from tierd.errors import GoneError, TierdError
from tierd.kernel.dax import read_device
from tierd.kernel.files import read_text
from tierd.kernel.intents import Intent, Intents
from tierd.kernel.inventory import take_inventory
from tierd.kernel.memory_blocks import (
    block_state,
    missing_threads,
    read_block_size,
    take_offline,
    write_setting,
)
from tierd.kernel.paths import Root
from tierd.kernel.tools import AbandonedError, ToolError, Tools

COMMAND_DEADLINE = 120.0
"""Seconds for one call of ndctl or daxctl: a terabyte takes the kernel tens of seconds to take up."""
OFFLINE_DEADLINE = 60.0

Report = Callable[[str, str, Mapping[str, str]], None]
"""Takes one event: its kind (``begun``, ``draining``, ``step-done``, ``failed``, ``restored``), words, and
fields for the journal."""


class RecoveryError(TierdError):
    """Something could not be put right."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What converters have in common. Under the lock, from the main thread."""

    root: Root
    tools: Tools
    intents: Intents
    report: Report

    def look(self) -> Inventory:
        """The machine now. Raises what take_inventory raises."""
        return take_inventory(self.root, self.tools, self.intents)

    def recover(self) -> None:
        """Put back what runs that were stopped left behind. Raises DeniedError, MalformedError,
        RecoveryError, and what the look at the machine raises."""
        for intent in self.intents.open_intents():
            done = []
            if intent.boot == self.intents.boot:
                for path, value in intent.saved.items():
                    if self._put_back(path, value):
                        done.append(f"{path} is {value} again")
                device = intent.facts.get("device")
                if intent.action == Action.SYSTEM_RAM.value and isinstance(device, str):
                    done += self._put_right(intent, device)
            words = (
                f"an earlier run was stopped during {intent.action};"
                f" {', '.join(done) or 'nothing was to be put back'}"
            )
            self.intents.conclude(intent, "interrupted", words, {})
            self.report("restored", f"{intent.request}: {words}", {"TIERD_INTENT": intent.id})

    def _put_right(self, intent: Intent, device: str) -> list[str]:
        """After a stop while `device` became memory; what was done, in words."""
        every = (n for region in self.look().regions for n in region.namespaces)
        found = next((n for n in every if n.dax is not None and n.dax.name == device), None)
        if found is None or found.label_uuid != intent.facts.get("label_uuid"):
            # names are given anew
            return [f"{device} is not of the same namespace any more, and left alone"]
        return self._roll_back_if_fixed(intent, device) + self._start_threads(device)

    def _roll_back_if_fixed(self, intent: Intent, device: str) -> list[str]:
        try:
            now = read_device(self.root, device, read_block_size(self.root))
        except GoneError:
            return []
        if now.system_ram and any(block.online and not block.movable for block in now.blocks):
            return self._roll_back(intent, device)
        return []

    def _roll_back(self, intent: Intent, name: str) -> list[str]:
        """Take the device's memory offline and make it devdax again; what was done, in words. It is part of
        what `intent` began, and needs no record of its own: it has to be done on a full disk as well."""
        block_size = read_block_size(self.root)
        now = read_device(self.root, name, block_size)
        if not now.system_ram:
            return []
        command = Command(("daxctl", "reconfigure-device", "-m", "devdax", "-f", name))
        acts = (*(f"take memory{b.number} offline" for b in now.blocks if b.online), self._act_text(command))
        stayed, still = take_offline(self.root, now.blocks, OFFLINE_DEADLINE), False
        if stayed:
            words = f"{len(stayed)} blocks of {name} are in use and stay online until a reboot"
        else:
            try:
                self.tools.run(command.argv, deadline=COMMAND_DEADLINE)
            except AbandonedError:
                raise
            except ToolError:  # what became of the device is read below
                pass
            still = read_device(self.root, name, block_size).system_ram
            words = f"{name} was rolled back: its memory is offline" + (
                ", daxctl left the mode" if still else ""
            )
        fields = {"TIERD_INTENT": intent.id, "TIERD_ARGV": "\n".join(acts)}
        self.report("restored", f"{intent.request}: {words}", fields)
        return [words]

    def _take_back(self, before: DaxDevice) -> list[str]:
        """After blocks of `before` were to come online: those that did outside ZONE_MOVABLE go again. What
        was online is in use, and stays; what was done, in words."""
        online = {block.number for block in before.blocks if block.online}
        now = read_device(self.root, before.name, read_block_size(self.root))
        fixed = [block for block in now.blocks if block.online and not block.movable]
        wrong = tuple(block for block in fixed if block.number not in online)
        stayed = take_offline(self.root, wrong, OFFLINE_DEADLINE) if wrong else ()
        if stayed:
            return [f"{len(stayed)} blocks of {before.name} stay online outside ZONE_MOVABLE until a reboot"]
        return [f"{len(wrong)} blocks of {before.name} are offline again"] if wrong else []

    def _start_threads(self, name: str) -> list[str]:
        """Let the kernel start the threads that the device's node lacks, if any; what was done."""
        try:
            now = read_device(self.root, name, read_block_size(self.root))
        except GoneError:
            return []
        movable = [block for block in now.blocks if block.movable]
        node = now.target_node
        if not movable or node is None or not (missing := missing_threads(self.root, node)):
            return []
        last = movable[-1]
        if not take_offline(self.root, (last,), OFFLINE_DEADLINE):
            write_setting(self.root, block_state(last.number), MEMORY_POLICY)
        if still := missing_threads(self.root, node):
            return [f"node {node} is without {' and '.join(still)} until a reboot"]
        return [f"started {' and '.join(missing)}, which the kernel could not"]

    def _put_back(self, path: str, value: str) -> bool:
        """Write `value` where one of our steps wrote MEMORY_POLICY; whether that was necessary.

        A third value is somebody else's, and stays.
        """
        current = read_text(self.root.sys / path).strip()
        if current == value:
            return False
        if current != MEMORY_POLICY:
            words = f"{path} is {current}, which somebody else set: it is not put back to {value}"
            self.report("failed", words, {})
            return False
        write_setting(self.root, path, value)
        if read_text(self.root.sys / path).strip() != value:
            raise RecoveryError(f"{path} cannot be put back to {value}")
        return True

    def _act_text(self, act: Command | Setting) -> str:
        if isinstance(act, Command):
            act = Command(self.tools.resolve(act.argv))
        return act_text(act, str(self.root.sys))
