"""tierd-runbook(7): each of its commands is one that there is, and each alert has its place there."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.test_alerts import alerts
from tests.service.test_bus_manual import plain
from tests.service.test_files import fields_in_source
from tests.service.test_monitoring import KINDS, matches, names
from tierd.cli.main import parser
from tierd.config.loader import parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "man/tierd-runbook.7").read_text()
BLOCKS = [plain(block) for block in re.findall(r"^\.EX\n(.*?)^\.EE\n", PAGE, re.MULTILINE | re.DOTALL)]


def commands(text: str = PAGE) -> list[list[str]]:
    """Each command by its words: those of a block, and those in the midst of a sentence."""
    found = [line for block in BLOCKS for line in block.splitlines()] if text is PAGE else []
    found += re.findall(
        r'^\.BR?I? "?((?:tierctl|systemctl|journalctl) (?!\()[^"\n]+?)"? ?[ .,]?$', text, re.MULTILINE
    )
    words = [shlex.split(plain(line)) for line in found if not line.startswith((" ", "provision:"))]
    return [line for line in words if line]


def fault(words: list[str]) -> str:
    """What is wrong with a command; empty when there is such a one."""
    match words[0]:
        case "tierctl":
            if words[1:] in (["provision", "set"],):
                return ""  # by name, without its arguments
            with contextlib.suppress(SystemExit):
                parser().parse_args(words[1:])
                return ""
            return "tierctl does not take it"
        case "journalctl":
            unknown = names(words) - fields_in_source()
            kinds = {value for name, value in matches(words) if name == "TIERD_EVENT"} - set(KINDS)
            return " ".join(sorted(unknown | kinds))
        case "systemctl":
            units = [word for word in words[2:] if word.startswith("tierd")]
            files = [re.sub(r"@.*?\.", "@.", unit) for unit in units]
            missing = [name for name in files if not (ROOT / "systemd" / name).is_file()]
            return " ".join(missing) if units else "names no unit of tierd"
        case "apt-get":
            return "" if words[-1] == "tierd" else "another package"
        case _:
            return "not a command of this page"


def test_every_command_is_one_that_there_is() -> None:
    found = commands()
    assert len(found) > 30
    assert {" ".join(words): fault(words) for words in found if fault(words)} == {}


@pytest.mark.parametrize(
    "line",
    [
        "tierctl pause soon",
        "tierctl drain --undone",
        "journalctl -t tierd TIERD_EVENT=engine-broke",
        "journalctl -t tierd TIERD_DEMAND=pmem0",
        "systemctl start tierd-convert.service",
        "rm -r /",
    ],
)
def test_a_command_that_there_is_not_is_seen(line: str) -> None:
    assert fault(line.split())


def test_every_alert_has_its_place() -> None:
    named = [
        name for group in re.findall(r"^\.SS .*\((.*)\)$", PAGE, re.MULTILINE) for name in group.split(", ")
    ]
    assert sorted(named) == sorted(rule["alert"] for rule in alerts())


def test_the_request_is_a_policy() -> None:
    (request,) = [block for block in BLOCKS if block.startswith("provision:")]
    assert parse(f"version: 1\n{request}".encode(), "page").provision[0].name == "pmem0"


def test_files_that_it_names_are_installed() -> None:
    installed = (ROOT / "debian/tierd.install").read_text()
    for name in re.findall(r"(?<=[ (])/usr/share/\S+\w", plain(PAGE.replace("\n", " "))):
        path = name.removeprefix("/")
        example = ROOT / "conf/examples" / Path(path).name
        assert example.is_file() or f"{Path(path).name} {Path(path).parent}\n" in installed, name
