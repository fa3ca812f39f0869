"""Names that are given anew, on a simulated region many times and on the real one a few."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from tests.provisioning import shuffling
from tests.verify.provisioning_rows.server import Held, Witnessed, ready
from tests.verify.table import Figure, Row, Stage

SHUFFLES = 200
REAL, MANY_REAL = 5, 20
SEED = 3
BLOCKS = 2
OTHERS = ("prod-a", "prod-b", "prod-c")

_AGAIN = """
for d in $(ls /sys/bus/dax/drivers/kmem 2>/dev/null | grep ^dax); do
  daxctl reconfigure-device -m devdax -f $d
done
for n in $(ndctl list -N | grep -o 'namespace[0-9.]*'); do ndctl disable-namespace $n; done
ndctl disable-region {region} && ndctl enable-region {region} && udevadm settle
"""
"""What a reboot does to names: everything that the region's driver made is made again, in the labels'
order."""


def _simulated(stage: Stage) -> Figure:
    with tempfile.TemporaryDirectory(prefix="tierd-shuffles-") as scratch:
        found = shuffling.run(Path(scratch), SHUFFLES, SEED)
    text = (
        f"{found.shuffles} shuffles, {found.renamed} namespaces under another name, {found.converted}"
        f" conversions, {len(found.wrong)} wrong"
    )
    holds = not found.wrong and found.renamed > SHUFFLES and found.converted > SHUFFLES // 2
    return Figure(holds, text, {"wrong": found.wrong})


SIMULATED = Row(
    "shuffles",
    "random shuffles of three namespaces of others on a simulated region, a share that grows and shrinks"
    " after each",
    f"{SHUFFLES} shuffles, 0 wrong conversions, the others as they were",
    _simulated,
)


def real(kernel: str, count: int) -> Row:
    def measure(stage: Stage) -> Figure:
        server = ready(stage, kernel)
        chance = random.Random(SEED)
        others = {label: server.sentinel(label, 32 + 16 * number) for number, label in enumerate(OTHERS)}
        sums = server.checksums(others)
        faults: list[str] = []
        renamed = converted = 0
        for number in range(count):
            before = server.held()
            gone = chance.choice(OTHERS)
            # one goes, the labels are read anew, and it comes again, behind or before the rest
            server.guest.run(f"ndctl destroy-namespace -f {before[gone].name}", timeout=120)
            server.guest.run(_AGAIN.format(region=server.region.name), timeout=180)
            others[gone] = server.sentinel(gone, 32 + 16 * chance.randrange(4))
            sums |= server.checksums({gone: others[gone]})
            now = server.held()
            renamed += sum(now[label].name != held.name for label, held in before.items() if label in now)
            blocks = BLOCKS if number % 2 == 0 else chance.choice((0, 1, 3))
            code = server.converted(f"{128 * blocks}MiB" if blocks else "none")
            faults += [f"{number}: {words}" for words in server.state().faults(blocks)]
            faults += [f"{number}: exit status {code}"] if code else []
            converted += code == 0
            faults += _changed(server, others, sums, number)
        text = (
            f"{count} shuffles, {renamed} namespaces under another name, {converted} conversions,"
            f" {len(faults)} faults" + (": " + "; ".join(faults[:3]) if faults else "")
        )
        holds = not faults and converted == count and renamed > 0
        return Figure(holds, text, {"kernel": kernel, "faults": faults, "conversions": converted})

    return Row(
        f"shuffles-{count}-{kernel}",
        "the same on a real region, whose namespaces are made anew and whose labels are read again, Linux "
        + kernel,
        "0 wrong conversions, the others' checksums unchanged",
        measure,
        long=count > REAL,
    )


def _changed(server: Witnessed, others: dict[str, Held], sums: dict[str, str], number: int) -> list[str]:
    found = server.held()
    faults = [
        f"{number}: {label} is {found.get(label)}"
        for label, held in others.items()
        if label not in found
        or (found[label].uuid, found[label].start, found[label].size) != (held.uuid, held.start, held.size)
    ]
    now = server.checksums(others)
    return faults + [
        f"{number}: what {label} holds has changed" for label in others if now[label] != sums[label]
    ]
