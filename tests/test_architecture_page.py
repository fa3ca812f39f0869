"""docs/architecture.md names modules, directions and files that there are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_architecture import MAY_IMPORT, OFFLINE_COMMANDS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()


def missing(text: str) -> set[str]:
    """Files that the text names in backticks and that there are not: of the package, or beside it."""
    named = set(re.findall(r"`([\w@./-]+\.(?:py|json|toml|catalog))`", text))
    named -= {"doors.json"}  # made by the helper
    beside = {name for name in named if (ROOT / name).is_file() or name.startswith("/run/tierd/")}
    return {name for name in named - beside if not (ROOT / "tierd" / name).is_file()}


def test_every_module_that_it_names_is_there() -> None:
    assert len(set(re.findall(r"`\w+/\w+\.py`", PAGE))) > 50
    assert missing(PAGE) == set()
    assert missing("`core/heat.py`, `core/warmth.py` and `setup.toml`") == {"core/warmth.py", "setup.toml"}


def test_its_directions_are_those_that_are_held() -> None:
    rows = dict(re.findall(r"^\| `(\w+)/` \|.*\| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert rows.keys() == {name for name in MAY_IMPORT if not name.startswith("__")} - {"errors"}
    for package, words in rows.items():
        always = set(re.findall(r"\b(core|kernel|config|service|cli)\b", words.partition(";")[0]))
        assert always | {package, "errors"} == MAY_IMPORT[package], package
    assert "kernel only where" in rows["cli"] and OFFLINE_COMMANDS


def test_capabilities_are_those_of_the_unit() -> None:
    unit = (ROOT / "systemd/tierd.service").read_text()
    (granted,) = re.findall(r"^AmbientCapabilities=(.*)$", unit, re.MULTILINE)
    assert set(re.findall(r"CAP_\w+", PAGE)) == set(granted.split())


def test_units_and_actions_that_it_names_are_there() -> None:
    for name in re.findall(r"`(tierd(?:-\w+)?@?)(?:NAME)?`", PAGE):
        assert name == "tierd" or (ROOT / f"systemd/{name}.service").is_file(), name
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
