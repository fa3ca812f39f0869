"""The safety matrix asked for by UUID: each namespace refused for what it holds, and the one that holds
nothing accepted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.verify.provisioning_rows.fill_namespaces import ACCEPTABLE, CONTENTS, MODES
from tests.verify.provisioning_rows.server import Witnessed, listed
from tests.vm.test_provision import POLICY_FILE

ALLOW = "/etc/tierd/allow-convert.d"
REFUSED = 69
NO_BLOCK = "too-small"
"""The kind of refusal that says nothing of what is there."""

_APPLY = (
    "/usr/bin/python3 -I -c 'import sys; from tierd.service import convert; print([int(convert.main([name,"
    ' "--wait", "0"])) for name in sys.argv[1:]])\' '
)


@dataclass(frozen=True)
class Asked:
    """What tierd said of each namespace. words: every refusal without consent, by label. accepted: those
    that only their size speaks against, with consent to what holds nothing. faults: what was not refused."""

    words: dict[str, str]
    accepted: tuple[str, ...]
    faults: tuple[str, ...]
    applied: int


def ask(server: Witnessed, cells: Sequence[str]) -> Asked:
    """Plan all of them, without consent and with consent to what holds nothing, and run tierd-convert for
    one of each content without."""
    uuids = {str(n["label"]): str(n["uuid"]) for n in listed(server) if n["label"] in cells}
    names = {label: f"c{number}" for number, label in enumerate(cells)}
    plain = _plan(server, names, uuids, "")
    chosen = [f"{MODES[number % len(MODES)]}/{content}" for number, content in enumerate(CONTENTS)]
    done = server.guest.output(_APPLY + " ".join(names[label] for label in chosen), timeout=400)
    codes = json.loads(done.splitlines()[-1])
    faults = [f"{label} was not refused" for label, plan in plain.items() if plan["verdict"] != "refused"]
    faults += [
        f"{label}: exit status {code}" for label, code in zip(chosen, codes, strict=True) if code != REFUSED
    ]
    server.guest.run(
        f"install -d -m 0755 {ALLOW}; for u in {' '.join(uuids.values())}; do"
        f" install -m 0600 /dev/null {ALLOW}/$u; done"
    )
    free = _plan(server, names, uuids, "destroy")
    accepted = [label for label, plan in free.items() if {r["kind"] for r in plan["refusals"]} <= {NO_BLOCK}]
    words = {label: " ".join(r["words"] for r in plan["refusals"]) for label, plan in plain.items()}
    return Asked(words, tuple(accepted), tuple(faults), len(codes))


def take(server: Witnessed) -> int:
    """Have the one that holds nothing; the blocks that came online."""
    before = server.blocks().count("online Movable")
    (uuid,) = (str(n["uuid"]) for n in listed(server) if n["label"] == ACCEPTABLE)
    _plan(server, {ACCEPTABLE: "zeros"}, {ACCEPTABLE: uuid}, "destroy")
    server.guest.run(_APPLY + "zeros", timeout=200)
    return server.blocks().count("online Movable") - before


def _plan(server: Witnessed, names: dict[str, str], uuids: dict[str, str], consent: str) -> dict[str, Any]:
    """The plan of each, by label."""
    line = f", consent: {consent}" if consent else ""
    requests = "\n".join(
        f"  - {{name: {name}, namespace: {{uuid: {uuids[label]}}}{line}, mode: apply}}"
        for label, name in names.items()
    )
    server.guest.write(POLICY_FILE, f"version: 1\nprovision:\n{requests}\n")
    said = server.guest.run("tierctl provision plan --json", check=False, timeout=300).stdout
    plans = {plan["name"]: plan for plan in json.loads(said)["requests"]}
    return {label: plans[name] for label, name in names.items()}
