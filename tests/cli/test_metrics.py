"""`tierctl metrics`, read by Prometheus's own parser."""

from __future__ import annotations

import math
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.cli.test_tierctl import Serve, bus, serve, tierctl
from tierd.cli.metrics import metrics

__all__ = ["bus", "serve"]

FACTS: dict[str, Any] = {
    "version": "0.1.0",
    "state": "steady",
    "source": "hint-faults",
    "config_state": "current",
    "missing": ["DAMON"],
    "hosted_processes": 3,
    "hosted_cgroups": 2,
    "placed_dram_bytes": 5 << 30,
    "placed_slow_bytes": 7 << 30,
    "tiers": [
        {"name": "memory_tier4", "kind": "dram", "total_bytes": 1 << 40, "used_bytes": 9},
        {"name": "memory_tier22", "kind": "slow", "total_bytes": 1 << 42, "used_bytes": 0},
    ],
    "counters": {
        **{"promoted_pages": 3, "demoted_pages": 2, "samples": 77},
        **{"move_seconds": 0.25, "round_seconds": 1.5},
    },
    "last_round_time": 1796071200.5,
    "own_cost": {"cpu_seconds": 12.5, "resident_bytes": 60 << 20},
    "classes": [
        {
            "name": "gold",
            "dram_bytes": 11,
            "slow_bytes": 1,
            "least_bytes": 12,
            "most_bytes": 12,
            "processes": 4,
            "promoted_pages": 1,
            "demoted_pages": 0,
            "broken": "lacks 1 B",
        }
    ],
}


def read(text: str) -> dict[tuple[str, str], float]:
    """Each sample by its name and its labels' values."""
    found = {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert text.endswith("# EOF\n") and all(math.isfinite(value) for value in found.values())
    return found


def test_all_that_is_known_is_there() -> None:
    found = read(metrics(FACTS))
    assert found["tierd_build_info", "0.1.0,hint-faults"] == 1
    assert found["tierd_state", "steady"] == 1 and found["tierd_state", "holding"] == 0
    assert sum(value for (name, _), value in found.items() if name == "tierd_state") == 1
    assert (found["tierd_policy_current", ""], found["tierd_missing_features", ""]) == (1, 1)
    assert found["tierd_tier_capacity_bytes", "memory_tier22,slow"] == 1 << 42
    assert found["tierd_tier_used_bytes", "memory_tier4,dram"] == 9
    assert found["tierd_placed_bytes", "slow"] == 7 << 30
    assert found["tierd_promoted_bytes_total", ""] == 3 * 4096
    assert (found["tierd_samples_total", ""], found["tierd_move_seconds_total", ""]) == (77, 0.25)
    assert found["tierd_round_seconds_total", ""] == 1.5
    assert found["tierd_last_round_timestamp_seconds", ""] == 1796071200.5
    assert found["tierd_own_cpu_seconds_total", ""] == 12.5
    assert found["tierd_own_resident_bytes", ""] == 60 << 20
    assert found["tierd_class_dram_bytes", "gold"] == 11 and found["tierd_class_most_bytes", "gold"] == 12
    assert found["tierd_class_promise_kept", "gold"] == 0 and found["tierd_class_processes", "gold"] == 4
    assert found["tierd_class_promoted_bytes_total", "gold"] == 4096


def test_the_collector_of_node_exporter_takes_each_type() -> None:
    """It reads Prometheus's older text format, and drops a whole file for a type that this lacks."""
    types = {line.split()[3] for line in metrics(FACTS).splitlines() if line.startswith("# TYPE ")}
    assert types == {"gauge", "counter"}
    if promtool := shutil.which("promtool"):
        done = subprocess.run(
            [promtool, "check", "metrics"], input=metrics(FACTS), capture_output=True, text=True, check=False
        )
        assert "pars" not in done.stderr and done.returncode in (0, 3)  # 3: it misses help


def test_a_daemon_that_has_just_started_has_metrics_too() -> None:
    found = read(metrics({"version": "0.1.0", "state": "starting", "config_state": "rejected"}))
    assert found["tierd_state", "starting"] == 1 and found["tierd_policy_current", ""] == 0
    assert not any(name.startswith(("tierd_class", "tierd_tier")) for name, _ in found)


@given(st.text(max_size=20).filter(lambda text: "\r" not in text))
def test_any_name_survives(name: str) -> None:
    tier = {"name": name, "kind": "slow", "total_bytes": 8, "used_bytes": 1}
    assert read(metrics({"tiers": [tier]}))["tierd_tier_capacity_bytes", f"{name},slow"] == 8


@pytest.mark.service
def test_the_command_prints_them_or_replaces_a_file(serve: Serve, tmp_path: Path) -> None:
    serve("good")
    shown = tierctl("metrics")
    assert shown.returncode == 0 and read(shown.stdout)["tierd_class_promise_kept", "default"] == 1
    path = tmp_path / "tierd.prom"
    path.write_text("old")
    assert tierctl("metrics", "--output", str(path)).stdout == ""
    assert path.read_text() == shown.stdout and stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in tmp_path.iterdir() if "prom" in entry.name] == ["tierd.prom"]


@pytest.mark.service
def test_where_no_file_can_be_written_or_nobody_answers(bus: str, serve: Serve, tmp_path: Path) -> None:
    assert tierctl("metrics").returncode == 3
    serve("good")
    shown = tierctl("metrics", "--output", str(tmp_path / "none" / "x.prom"))
    assert shown.returncode == 1 and "none" in shown.stderr and "Traceback" not in shown.stderr
