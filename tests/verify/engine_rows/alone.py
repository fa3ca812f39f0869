"""Parts of tierd by themselves: the mover against a plain loop, and the state for a large machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.verify.table import Figure, Row, Stage
from tests.vm import host, scenario

MOVER_MIB = 256
MOVER_ROUNDS = 5
_HERE = Path(__file__).parent


def mover(kernel: str) -> Row:
    def measure_row(stage: Stage) -> Figure:
        guest = stage.guest(kernel)
        loop = scenario.put_program(guest, "move_loop")
        guest.put(_HERE / "move_through_tierd.py", "/usr/local/lib/move_through_tierd.py")
        said = guest.output(
            f"/usr/bin/python3 /usr/local/lib/move_through_tierd.py {loop} {MOVER_MIB} {MOVER_ROUNDS}",
            timeout=900,
        )
        found = json.loads(said)
        ratio = found["loop_seconds"] / found["tierd_seconds"]
        rate = found["pages"] / found["tierd_seconds"]
        text = (
            f"{ratio:.2f} of the loop's throughput ({rate:.0f} pages/s, emulated), "
            f"{found['missed']} pages missed by tierd, {found['loop_missed']} by the loop"
        )
        moved = found["missed"] == 0 and found["loop_missed"] == 0
        return Figure(moved and ratio >= 0.9, text, {"kernel": kernel, "ratio": ratio, **found})

    return Row(
        f"mover-{kernel}",
        f"moving {MOVER_MIB} MiB to and fro through tierd against a C loop of move_pages, Linux {kernel}",
        "at least 0.9 of its throughput",
        measure_row,
    )


def _state(stage: Stage) -> Figure:
    stage.close()
    done = subprocess.run(
        [host.PYTHON, "-m", "tests.verify.engine_rows.one_tebibyte"],
        cwd=host.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    text = (
        f"{found['resident'] >> 20} MiB resident at most, slowest round {found['slowest_round']:.2f} s "
        f"of CPU, {found['faults']} faults, {found['pages']} pages remembered, "
        f"{found['hot_share']:.0%} of the hottest are hot"
    )
    small, fast = found["resident"] < 200 << 20, found["slowest_round"] < 1
    # a map that forgets everything is small and fast as well
    useful = found["pages"] > 0 and found["hot_share"] >= 0.9
    return Figure(small and fast and useful, text, found)


STATE = Row(
    "state-1tib",
    "state for 1 TiB of address space, simulated sampling at 60,000 faults a second",
    "under 200 MiB resident, a planning round under 1 s",
    _state,
)
