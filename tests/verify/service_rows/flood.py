"""Too many who ask too much: whether tierd goes on placing pages, and answers the others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.verify.service_rows import placing
from tests.verify.table import Figure, Row, Stage
from tests.vm.guest import Guest

CONNECTIONS = 256
"""As many as dbus-daemon lets one user have (max_connections_per_user)."""
SECONDS = 60
DRIFT, LATENCY_MS, GROWTH = 0.10, 100.0, 2 << 20
USER = "flooder"
_PROGRAM = "/usr/local/lib/flood_client.py"
_OUTPUT = "/run/flood.txt"
_COUNTERS = (
    "busctl --json=short --timeout=60 get-property org.tierd1 /org/tierd1 org.tierd1.Manager Counters"
)


@dataclass(frozen=True)
class Minute:
    """rate: rounds of the engine a minute. good: what the good client came to. flood: what the others came
    to, empty where there were none."""

    rate: float
    good: dict[str, Any]
    flood: dict[str, Any]

    @property
    def latency(self) -> float:
        """The 99th percentile of the good client's, in milliseconds."""
        times = sorted(self.good["milliseconds"])
        return float(times[min(len(times) - 1, int(len(times) * 0.99))]) if times else float("inf")


def _rounds(guest: Guest) -> tuple[float, int]:
    """Seconds of the guest's clock, and rounds so far."""
    words = guest.output(f"{_COUNTERS}; cut -d' ' -f1 /proc/uptime").split("\n")
    return float(words[1]), int(json.loads(words[0])["data"]["Rounds"]["data"])


def _minute(guest: Guest, *, flooded: bool) -> Minute:
    if flooded:
        guest.run(
            f"rm -f {_OUTPUT}; systemd-run --quiet --collect --unit=flood --property=User={USER}"
            f" --property=StandardOutput=file:{_OUTPUT}"
            f" python3 {_PROGRAM} flood {SECONDS} {CONNECTIONS}"
        )
        guest.wait_for(f"grep -q ready {_OUTPUT}", timeout=180)
    began, before = _rounds(guest)
    # a little shorter than the flood, which is to last for all of it
    good = guest.output(
        f"runuser -u nobody -- python3 {_PROGRAM} good {SECONDS - 10}", timeout=2 * SECONDS + 60
    )
    ended, after = _rounds(guest)
    flood: dict[str, Any] = {}
    if flooded:
        guest.wait_for("! systemctl is-active flood", timeout=120, interval=1)
        flood = json.loads(guest.output(f"tail -n 1 {_OUTPUT}"))
    return Minute(60 * (after - before) / (ended - began), json.loads(good.splitlines()[-1]), flood)


def _resident(guest: Guest) -> int:
    pid = guest.output("systemctl show -P MainPID tierd")
    return int(guest.output(f"awk '/^VmRSS/ {{print $2}}' /proc/{pid}/status")) * 1024


def flood(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        guest, region = stage.ready(kernel)
        guest.put(Path(__file__).with_name("flood_client.py"), _PROGRAM)
        guest.run(f"id {USER} || useradd {USER}")
        try:
            with placing.placing(guest, placing.policy(region)) as promoted:
                quiet = _minute(guest, flooded=False)
                first = _minute(guest, flooded=True)
                before = _resident(guest)
                second = _minute(guest, flooded=True)
                guest.run("sleep 5")
                after = _resident(guest)
                restarts = guest.output("systemctl show -P NRestarts tierd")
        finally:
            guest.run(f"systemctl stop flood; userdel --force {USER}; rm -f {_OUTPUT}", check=False)
        drift = abs(first.rate / quiet.rate - 1) if quiet.rate else 1.0
        text = (
            f"{first.flood['answers']} answers to {first.flood['connections']} connections,"
            f" {sum(first.flood['errors'].values())} of them errors;"
            f" {first.rate:.1f} rounds a minute, {quiet.rate:.1f} before ({drift:.0%});"
            f" a good client's p99 {first.latency:.0f} ms, {quiet.latency:.0f} ms before;"
            f" {(after - before) / 1024:+.0f} KiB resident in a second flood, {after >> 20} MiB in all"
        )
        values = {
            "kernel": kernel,
            "rate": first.rate,
            "rate_before": quiet.rate,
            "p99": first.latency,
            "p99_before": quiet.latency,
            "p99_again": second.latency,
            "resident_before": before,
            "resident": after,
            "floods": [first.flood, second.flood],
            "promoted": promoted,
        }
        real = first.flood["answers"] > CONNECTIONS and quiet.rate > 0 and first.good["answers"] > 0
        steady = drift <= DRIFT and first.latency < LATENCY_MS and after - before < GROWTH
        return Figure(real and steady and restarts == "0", text, values)

    return Row(
        f"flood-{kernel}",
        f"{CONNECTIONS} connections that read all there is for {SECONDS} s, in an emulated guest with two"
        f" CPUs, Linux {kernel}",
        "rounds within 10 % of the minute before, another client's p99 below 100 ms, less than 2 MiB more"
        " resident in a second flood",
        measure,
    )
