"""A server whose region is free, and the witnesses that the rows ask: QEMU for what the memory holds, sysfs
for what there is, and wrappers that write down what ndctl and daxctl are told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.verify.table import Stage
from tests.vm import image, machine
from tests.vm.qmp import Qmp
from tests.vm.test_provision import CLEAN, POLICY_FILE, Server

CALLS = "/run/calls"
RUN = "/usr/bin/python3 -I -m tierd.service.convert test"

_NAMESPACES = r"""
cd /sys/bus/nd/devices
for n in namespace*; do
  [ -e $n/uuid ] || continue
  printf '%s|%s|%s|%s|%s\n' $n "$(cat $n/uuid)" "$(cat $n/alt_name)" "$(cat $n/size)" "$(cat $n/resource)"
done
"""


@dataclass(frozen=True)
class Held:
    """A namespace as sysfs has it. uuid: the one in the label. start: a physical address. Sizes in bytes."""

    name: str
    uuid: str
    label: str
    size: int
    start: int


@dataclass(frozen=True)
class State:
    """All that a conversion leaves. blocks: state and zone of each block of node 1. half: namespaces that
    have a UUID and no size. lost: bytes of the region that are neither free nor a namespace's."""

    policy: str
    blocks: tuple[str, ...]
    half: tuple[str, ...]
    lost: int

    def faults(self, blocks: int, policy: str = "online") -> list[str]:
        """What is not as it is to be, in words."""
        found = []
        if self.policy != policy:
            found.append(f"auto_online_blocks is {self.policy}, and was {policy}")
        if self.blocks != ("online Movable",) * blocks:
            found.append(f"{blocks} blocks are asked for, there are {', '.join(self.blocks) or 'none'}")
        if self.half or self.lost:
            found.append(f"half made: {', '.join(self.half)}; {self.lost} bytes are lost")
        return found


class Witnessed(Server):
    """The guest with its region, as tests/vm/test_provision.py has it, and its witnesses."""

    def want(self, size: str) -> None:
        """Write a policy whose one request, `test`, asks for this size."""
        region = f"{{iset_id: '{self.region.iset_id:#x}'}}"
        request = f"{{name: test, region: {region}, size: {size}, mode: apply}}"
        self.guest.write(POLICY_FILE, f"version: 1\nprovision:\n  - {request}\n")

    def converted(self, size: str) -> int:
        """Ask for a size and run tierd-convert; its exit status."""
        self.want(size)
        return self.guest.run(RUN, check=False, timeout=400).returncode

    def held(self) -> dict[str, Held]:
        """The namespaces that hold something, by their label."""
        found = {}
        for line in self.guest.output(_NAMESPACES).splitlines():
            name, uuid, label, size, start = line.split("|")
            if int(size):
                found[label] = Held(name, uuid, label, int(size), int(start, 16))
        return found

    def state(self) -> State:
        lines = [line.split("|") for line in self.guest.output(_NAMESPACES).splitlines()]
        region = f"/sys/bus/nd/devices/{self.region.name}"
        size, free = self.guest.output(f"cat {region}/size {region}/available_size").split()
        return State(
            policy=self.policy(),
            blocks=tuple(self.blocks()),
            half=tuple(line[0] for line in lines if line[1] and not int(line[3])),
            lost=int(size) - int(free) - sum(int(line[3]) for line in lines),
        )

    def checksums(self, spans: Mapping[str, Held]) -> dict[str, str]:
        """SHA-256 of all that each namespace holds, its info blocks too, as QEMU sees the memory."""
        self.guest.run("sync; echo 3 > /proc/sys/vm/drop_caches", timeout=120)
        dump = self.guest.directory / "dump"
        found = {}
        with Qmp(self.guest.qmp, timeout=120) as qmp:
            for key, held in spans.items():
                qmp.execute("pmemsave", val=held.start, size=held.size, filename=str(dump))
                found[key] = _sha256(dump)
        dump.unlink(missing_ok=True)
        return found

    def record_calls(self) -> None:
        """Put wrappers in the place of ndctl and daxctl that write down what they are told to do."""
        for tool in ("ndctl", "daxctl"):
            self.replace_tool(
                tool, f'\n[ "$1" = list ] || echo "{tool} $*" >> {CALLS}\nexec /usr/bin/{tool}.real "$@"\n'
            )

    def calls(self) -> list[str]:
        """What they were told, listing apart, since this was last asked."""
        return self.guest.output(f"cat {CALLS} 2>/dev/null; rm -f {CALLS}").splitlines()

    def sentinel(self, label: str = "data", mib: int = 128) -> Held:
        """A namespace of somebody else's, filled at random. Its page structures are in DRAM: within it the
        kernel would make them anew at each boot."""
        find = "print([n['blockdev'] for n in json.load(sys.stdin) if n.get('name') == '" + label + "'][0])"
        self.guest.run(
            f"ndctl create-namespace -r {self.region.name} -m fsdax -M mem -s {mib}M -n {label} &&"
            f' udevadm settle && device=$(ndctl list -N | python3 -c "import json, sys; {find}") &&'
            " dd if=/dev/urandom of=/dev/$device bs=1M oflag=direct status=none 2>/dev/null; true",
            timeout=120,
        )
        return self.held()[label]


def ready(stage: Stage, kernel: str) -> Witnessed:
    """A server of this kernel that tierd never saw."""
    guest, region = stage.free(machine.Machine(kernel=kernel, accessed_bits=False, recipe=image.STORAGE))
    guest.run(CLEAN, timeout=300, check=False)
    return Witnessed(guest, region)


def listed(server: Witnessed) -> list[dict[str, Any]]:
    """The namespaces of `tierctl list devices`."""
    found = json.loads(server.guest.output("tierctl list devices --json", timeout=300))
    return list(found["namespaces"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
