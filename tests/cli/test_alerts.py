"""The alerts and the dashboard ask for what `tierctl metrics` prints, and fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.cli.test_metrics import FACTS
from tierd.cli.metrics import STATES, metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "conf/prometheus/tierd.rules.yml"
DASHBOARD = ROOT / "conf/grafana/tierd.json"
FOREIGN = {"node_textfile_mtime_seconds": {"file"}}
"""Metrics of node_exporter's own, with their labels."""
ADDED = {"job", "instance", "alertname", "alertstate"}
"""Labels that Prometheus adds."""
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)"
)


def printed() -> dict[str, set[str]]:
    """The labels of each metric that tierctl prints, by its name."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics(FACTS)):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def asked() -> Iterator[tuple[str, str]]:
    """Each expression, with where it stands."""
    yield from ((rule["alert"], rule["expr"]) for rule in alerts())
    for panel in panels():
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])


def strangers(expression: str) -> set[str]:
    """What an expression names that nobody prints: metrics, their labels, and states."""
    known = {**printed(), **FOREIGN}
    bare = re.sub(r'"[^"]*"', '""', expression)
    found = set()
    for name, matchers in re.findall(r"\b((?:tierd|node)_\w+)\b(?!\s*=)(?:\{([^}]*)\})?", bare):
        if name not in known:
            found.add(name)
        found |= set(re.findall(r"(\w+)\s*[=!]", matchers)) - known.get(name, set()) - ADDED
    for labels in re.findall(r"\b(?:on|by)\s*\(([^)]*)\)", bare):
        found |= set(re.findall(r"\w+", labels)) - ADDED
    return found | set(re.findall(r'tierd_state="(\w+)"', expression)) - set(STATES)


@pytest.mark.parametrize(("where", "expression"), list(asked()), ids=lambda text: str(text)[:40])
def test_what_is_asked_for_is_printed(where: str, expression: str) -> None:
    assert strangers(expression) == set()
    assert "tierd" in expression


@pytest.mark.parametrize(
    ("expression", "stranger"),
    [
        ("rate(tierd_promoted_total[5m])", "tierd_promoted_total"),
        ('tierd_class_dram_bytes{klass="gold"}', "klass"),
        ('tierd_state{tierd_state="idel"} == 1', "idel"),
        ("sum by (tier) (tierd_processes)", "tier"),
        ("node_memory_MemFree_bytes", "node_memory_MemFree_bytes"),
    ],
)
def test_a_stranger_is_seen(expression: str, stranger: str) -> None:
    assert strangers(expression) == {stranger}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_each_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Tierd")
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert len(rule["annotations"]["summary"]) < 120 and "$labels.instance" in rule["annotations"]["summary"]
    assert len(rule["annotations"]["description"]) > 60
    known = printed() | FOREIGN
    given = set().union(*(labels for name, labels in known.items() if name in rule["expr"])) | ADDED
    assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= given


def test_each_alert_has_a_case_in_which_it_fires() -> None:
    cases = (Path(__file__).parent / "tierd.rules.test.yml").read_text()
    assert [rule["alert"] for rule in alerts() if f'alertname="{rule["alert"]}"' not in cases] == []


def test_the_dashboard_shows_every_metric_once_at_least() -> None:
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    assert {name for name in printed() if name not in shown} == {"tierd_build_info"}
    assert len({panel["id"] for panel in panels()}) == len(panels())
    legends = {label for p in panels() for t in p["targets"] for label in re.findall(r"{{(\w+)}}", str(t))}
    assert legends <= set().union(*printed().values()) | ADDED
    places = [panel["gridPos"] for panel in panels()]
    cells = [
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24


def test_both_are_installed() -> None:
    installed = (ROOT / "debian/tierd.install").read_text()
    assert "conf/prometheus/tierd.rules.yml usr/share/tierd/prometheus\n" in installed
    assert "conf/grafana/tierd.json usr/share/tierd/grafana\n" in installed


@needs_promtool
@pytest.mark.parametrize(
    "what", [("check", RULES), ("test", Path(__file__).parent / "tierd.rules.test.yml")]
)
def test_promtool_agrees(what: tuple[str, Path]) -> None:
    done = subprocess.run(
        ["promtool", what[0], "rules", str(what[1])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_reads_what_the_dashboard_asks_for(tmp_path: Path) -> None:
    asks = [t["expr"].replace("$__rate_interval", "5m") for panel in panels() for t in panel["targets"]]
    rules = [{"record": f"x:{number}", "expr": ask} for number, ask in enumerate(asks)]
    (tmp_path / "x.yml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", "x.yml"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
