"""Tools that lie: without a guest, on a simulated region."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.provisioning.lies import LIES
from tests.provisioning.lying import Outcome, try_lie
from tests.verify.table import Figure, Row, Stage

LEAST = 60


def _measure(stage: Stage) -> Figure:
    outcomes: dict[str, Outcome] = {}
    for number, lie in enumerate(LIES):
        with tempfile.TemporaryDirectory(prefix="tierd-lie-") as scratch:
            outcomes[f"{number} {lie.name}"] = try_lie(Path(scratch), lie)
    wrong = {name: outcome.wrong for name, outcome in outcomes.items() if outcome.wrong}
    crashed = [name for name, outcome in outcomes.items() if outcome.crashed]
    healed = sum(outcome.code == 0 for outcome in outcomes.values())
    text = (
        f"{len(outcomes)} cases, {len(wrong)} wrong actions, {len(crashed)} tracebacks; {healed} came to"
        f" what was asked for all the same, slowest {max(o.seconds for o in outcomes.values()):.1f} s"
    )
    if wrong or crashed:
        text += f": {', '.join([*wrong, *crashed])}"
    # a tierd that does nothing says nothing, and comes to nothing with tools that work but complain
    holds = len(outcomes) >= LEAST and not wrong and not crashed and healed > 0
    return Figure(holds, text, {"wrong": wrong, "crashed": crashed, "cases": list(outcomes)})


LYING = Row(
    "lying-tools",
    "ndctl and daxctl that lie: silence, garbage, half JSON, hangs, 100 MB, wrong types, other devices'"
    " names",
    f"at least {LEAST} cases, 0 wrong actions, 0 tracebacks",
    _measure,
)
