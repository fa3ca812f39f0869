"""tierd.yaml(5) and the schema say the same, and the pages are in order for those who read them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tierd.config.loader import parse
from tierd.config.shape import schema

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "man").iterdir())


def page() -> str:
    return (ROOT / "man/tierd.yaml.5").read_text()


def keys_of_the_schema(
    node: dict[str, Any] | None = None, path: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key as ``provision[].region.iset_id``, with what the schema says of it."""
    node = schema() if node is None else node
    if "$ref" in node:
        node = schema()["$defs"][node["$ref"].rpartition("/")[2]]
    if path and not path.endswith("]"):
        yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from keys_of_the_schema(inner, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from keys_of_the_schema(node["items"], f"{path}[]")


def keys_of_the_page(text: str) -> dict[str, str]:
    """Every key that has an entry, with the text of the entry as a reader sees it."""
    keys = text[text.index("\n.SH KEYS") : text.index("\n.SH WHAT IS REFUSED")]
    found: dict[str, str] = {}
    for entry in re.split(r"^\.TP\n", keys, flags=re.MULTILINE)[1:]:
        head, _, body = entry.partition("\n")
        body = re.split(r"^\.(?:SS|PP)\b", body, flags=re.MULTILINE)[0]
        for name in re.sub(r'^\.BR?|"[ ,]*"|,', " ", head).split():
            assert name not in found, f"{name} has two entries"
            found[name] = plain(body)
    return found


def plain(roff: str) -> str:
    text = re.sub(r"\\f[A-Z]|\\&", "", roff).replace("\\(dq", '"').replace("\\-", "-")
    lines = [
        re.sub(r'^\.[A-Z]+ |"', "", line) if line.startswith(".") else line for line in text.split("\n")
    ]
    return re.sub(r" ([.,;:)])", r"\1", " ".join(lines))


def test_every_key_has_an_entry_and_every_entry_is_a_key() -> None:
    assert keys_of_the_page(page()).keys() == dict(keys_of_the_schema()).keys()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(".B engine.round\n", ".B engine.rounds\n"),
        lambda text: text.replace(".TP\n.B engine.cooldown\n", ""),
    ],
    ids=["another name", "no entry"],
)
def test_a_key_that_is_missing_is_seen(change: Any) -> None:
    changed = change(page())
    assert changed != page()
    assert keys_of_the_page(changed).keys() != dict(keys_of_the_schema()).keys()


@pytest.mark.parametrize(("key", "says"), list(keys_of_the_schema()), ids=lambda value: str(value)[:40])
def test_an_entry_tells_default_range_and_choices(key: str, says: dict[str, Any]) -> None:
    entry = keys_of_the_page(page())[key]
    default = says.get("default")
    if isinstance(default, str):
        assert f"Default: {default}." in entry
    elif isinstance(default, list):
        assert "Default: [" in entry
    elif default is not None:
        assert f"Default: {default}." in entry
    for bound in ("x-minimum", "x-maximum", "minimum", "maximum"):
        assert str(says.get(bound, "")) in entry
    for choice in says.get("enum", ()):
        assert re.search(rf"\b{choice}\b", entry)
    if "maxItems" in says:
        assert f"at most {says['maxItems']} " in entry
    kinds = {"size": "A size", "rate": "A rate", "duration": "A duration", "share": "A share"}
    assert entry.strip().startswith(kinds.get(says.get("x-kind", ""), ""))


def test_required_keys_are_called_so() -> None:
    entries = keys_of_the_page(page())
    required = [*schema()["required"]]
    request = schema()["properties"]["provision"]["items"]
    required += [f"provision[].{name}" for name in request["required"]]
    for inner in ("region", "namespace", "cxl"):
        says = request["properties"][inner]
        ways = says.get("oneOf", [says])
        required += [f"provision[].{inner}.{name}" for way in ways for name in way["required"]]
    required += [f"provision[].{name}" for way in request["oneOf"] for name in way["required"]]
    service_class = schema()["properties"]["classes"]["items"]
    for where in (service_class, service_class["else"]):
        required += [f"classes[].{name}" for name in where["required"]]
    assert {name for name, entry in entries.items() if "Required" in entry} == set(required)


def test_the_example_is_a_policy() -> None:
    examples = page()[page().index("\n.SH EXAMPLES") :]
    example = plain_lines(examples[examples.index(".EX\n") + 4 : examples.index(".EE\n")])
    assert parse(example.encode(), "example").engine.dram_floor == 512 << 20


def test_the_errors_shown_are_those_that_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tierd.config.check import check

    draft = tmp_path / "draft.yaml"
    draft.write_text("version: 1\nengine:\n  mode: fast\n  bandwidth: 512\n")
    assert check(draft) == 78
    told = [line.removeprefix(f"{tmp_path}/") for line in capsys.readouterr().err.splitlines()]
    assert len(told) == 2
    for line in told:
        assert f"\n    {line}\n" in plain_lines(page())


def plain_lines(roff: str) -> str:
    return roff.replace("\\(dq", '"').replace("\\-", "-")


def test_the_pages_are_installed_and_name_each_other() -> None:
    installed = (ROOT / "debian/tierd.manpages").read_text().split()
    assert sorted(installed) == [f"man/{path.name}" for path in PAGES]
    for path in PAGES:
        others = {other.name for other in PAGES} - {path.name}
        for other in others:
            name, _, section = other.rpartition(".")
            text = path.read_text().replace("\\-", "-")
            assert f".BR {name} ({section})" in text, (path.name, other)
    assert "tierd.yaml(5)" in (ROOT / "conf/tierd.yaml").read_text()


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_groff_has_nothing_to_say(path: Path) -> None:
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tutf8", "-z", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
