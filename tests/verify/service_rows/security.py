"""How far the units are shut in, by systemd's own score, while tierd does what it is for."""

from __future__ import annotations

import re

from tests.verify.service_rows import placing
from tests.verify.table import Figure, Row, Stage

MOST = 2.0
OTHERS = (
    "tierd-convert@pmem0.service",
    "tierd-drain@0x1.service",
    "tierd-hotplug@nd_region.service",
    "tierd-protect.service",
)
"""Of systemd's other units of tierd: shown, and held against nothing. The helper has no unit of its own: it
runs as root, outside of the sandbox, before tierd and after it."""
_SCORE = re.compile(r"Overall exposure level for (\S+): ([\d.]+)")


def scores(text: str) -> dict[str, float]:
    """The exposure of each unit, 0 to 10, out of what `systemd-analyze security UNIT...` prints."""
    return {unit: float(score) for unit, score in _SCORE.findall(text)}


def security(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        with placing.placing(guest, placing.policy(region)) as promoted:
            command = f"systemd-analyze security --no-pager tierd.service {' '.join(OTHERS)}"
            found = scores(guest.output(command, timeout=300))
            restarts = guest.output("systemctl show -P NRestarts tierd")
            missing = guest.output("tierctl show -p Missing", timeout=60)
        mine = found.get("tierd.service", 10.0)
        others = ", ".join(f"{unit.split('.')[0]} {found.get(unit, 10.0)}" for unit in OTHERS)
        text = (
            f"tierd {mine} with {promoted / placing.MIB:.0f} MiB promoted meanwhile, started again"
            f" {restarts} times; {others}; the helper runs as root with no score of its own"
        )
        values = {"kernel": kernel, "scores": found, "promoted": promoted, "missing": missing}
        return Figure(mine <= MOST and promoted >= placing.PROMOTED and restarts == "0", text, values)

    return Row(
        f"security-{kernel}",
        f"`systemd-analyze security tierd` while pages are placed, Linux {kernel}",
        f"at most {MOST}, and at least {placing.PROMOTED // placing.MIB} MiB promoted",
        measure,
    )
