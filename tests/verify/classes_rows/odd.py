"""Policies that promise too much, or whose rules do not do what they seem to: an error or a warning with its
place."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.verify.table import Figure, Row, Stage
from tests.vm import scenario
from tests.vm.guest import Guest

GOOD = "classes:\n  - {name: gold, match: [{unit: gold.slice}], dram: guaranteed}\n"
TOO_MUCH = """classes:
  - {name: gold, match: [{unit: gold.slice}], dram: guaranteed}
  - name: silver
    match: [{unit: silver.slice}]
    dram: {min: 64GiB}
"""
NOBODY = """classes:
  - {name: gold, match: [{unit: gold.slice}], dram: guaranteed}
  - name: late
    match: [{unit: nothing-like-it.service}]
"""
TWICE = """classes:
  - {name: gold, match: [{unit: gold.slice}], dram: guaranteed}
  - name: silver
    match:
      - {unit: silver.slice}
      - {unit: gold.slice}
"""


def odd(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        units = ["gold.slice", "load.service"]
        head = scenario.policy(region, units=units, engine="minimum_process: 1MiB")
        before = head.count("\n")
        program = scenario.put_program(guest, "churn")
        guest.write(scenario.POLICY, head + GOOD)
        guest.run(f"systemd-run --quiet --unit=m-gold --slice=gold.slice {program} --size 20 --seconds 600")
        faults: list[str] = []

        def expect(what: str, text: str, *parts: str) -> None:
            faults.extend(f"{what}: no {part!r} in {text[:300]!r}" for part in parts if part not in text)

        try:
            scenario.start_tierd(guest)
            guest.wait_for("tierctl list classes --json | grep -q '\"processes\": *[1-9]'", timeout=60)
            dram = guest.output(
                "awk '/MemTotal/ {print int($4 / 1024)}' /sys/devices/system/node/node0/meminfo"
            )
            _too_much(guest, head, before, dram, expect)
            _nobody(guest, head, before, expect)
            _twice(guest, head, before, expect)
        finally:
            scenario.stop_tierd(guest)
            guest.run("systemctl stop m-gold; systemctl reset-failed", check=False)
        told = "each told with line and column, the older policy kept where it is an error"
        text = f"too much promised, a class that nobody has, a unit twice: {'; '.join(faults) or told}"
        return Figure(not faults, text, {"kernel": kernel, "faults": faults})

    return Row(
        f"odd-policies-{kernel}",
        "policies that promise more than there is, that have a class nobody has, and that name a unit twice,"
        f" Linux {kernel}",
        "an error or a warning, with line and column",
        measure,
    )


Expect = Callable[..., None]


def _reload(guest: Guest) -> str:
    done = guest.run(
        "systemctl reload tierd; busctl call org.tierd1 /org/tierd1 org.tierd1.Manager Reload",
        check=False,
        timeout=120,
    )
    return f"exit status {done.returncode}\n{done.stdout}{done.stderr}"


def _digest(guest: Guest) -> str:
    return guest.output("busctl get-property org.tierd1 /org/tierd1 org.tierd1.Manager PolicyDigest")


def _too_much(guest: Guest, head: str, before: int, dram: str, expect: Expect) -> None:
    digest = _digest(guest)
    guest.write(scenario.POLICY, head + TOO_MUCH)
    place = f"{scenario.POLICY}:{before + 5}:11: classes[1].dram"
    expect("too much, reload", _reload(guest), "exit status 1", place, "can be promised")
    expect("too much, the older policy", _digest(guest), digest)
    lines = guest.output("journalctl -o cat -t tierd --output-fields=TIERD_PROBLEMS -o json -n 50")
    said = "\n".join(str(json.loads(line).get("TIERD_PROBLEMS", "")) for line in lines.splitlines())
    expect(
        "too much, journal",
        said,
        place,
        "class silver, min 64.0 GiB" if "64.0" in said else "class silver",
        f"{dram} MiB",
    )
    expect("too much, status", guest.run("tierctl status", check=False).stdout, place)


def _nobody(guest: Guest, head: str, before: int, expect: Expect) -> None:
    guest.write(scenario.POLICY, head + NOBODY)
    expect("nobody, reload", _reload(guest), "exit status 0")
    words = f"{scenario.POLICY}:{before + 3}:5: classes[1]: warning: class late has no process"
    guest.wait_for(f"journalctl -o cat -t tierd | grep -qF '{words}'", timeout=30)
    expect("nobody, list", guest.run("tierctl list classes", check=False).stdout, words[:60])


def _twice(guest: Guest, head: str, before: int, expect: Expect) -> None:
    guest.write(scenario.POLICY, head + TWICE)
    done = guest.run("tierctl check-config", check=False)
    text = f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    place = f"{scenario.POLICY}:{before + 6}:16: classes[1].match[1].unit: warning:"
    expect("twice, check-config", text, "exit status 0", place, f"line {before + 2}, column ")
