"""The completion for bash and tierctl(1) have the commands and options that the parser has."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierd.cli.history import EVENTS
from tierd.cli.main import parser

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "debian/completions/tierctl"
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

Words = tuple[str, ...]


def offers(
    found: argparse.ArgumentParser | None = None, path: Words = ()
) -> Iterator[tuple[Words, set[str]]]:
    """Each command by its words, with the commands and long options that may follow."""
    found = found or parser()
    words = {o for action in found._actions for o in action.option_strings if o.startswith("--")}
    for action in found._actions:
        if isinstance(action, argparse._SubParsersAction):
            words |= set(action.choices)
            for name, inner in action.choices.items():
                yield from offers(inner, (*path, name))
    yield path, words


OFFERS = dict(offers())
# Without a command, tierctl shows the status.
OFFERS[()] |= OFFERS[("status",)]


def completed(directory: Path, *line: str) -> set[str]:
    """What bash offers behind `line`, whose last word is the one being typed."""
    words = " ".join(map(shlex.quote, ("tierctl", *line)))
    code = (
        f"source {SCRIPT}; COMP_WORDS=({words}); COMP_CWORD={len(line)}; _tierctl;"
        ' (( ${#COMPREPLY[@]} )) && printf "%s\\n" "${COMPREPLY[@]}"; true'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=directory)
    assert done.stderr == ""
    return set(done.stdout.split())


@needs_bash
@pytest.mark.parametrize("path", OFFERS, ids=" ".join)
def test_bash_offers_what_the_parser_takes(path: Words, tmp_path: Path) -> None:
    assert completed(tmp_path, *path, "--") == {word for word in OFFERS[path] if word.startswith("-")}
    commands = {word for word in OFFERS[path] if not word.startswith("-")}
    assert {w for w in completed(tmp_path, *path, "") if not w.startswith("-")} == commands


@needs_bash
@pytest.mark.parametrize("line", [("check-config", ""), ("provision", "plan", "--policy", "")])
def test_files_are_offered_where_a_file_is_meant(line: Words, tmp_path: Path) -> None:
    (tmp_path / "draft.yaml").touch()
    assert completed(tmp_path, *line) == {"draft.yaml"}


@needs_bash
def test_events_are_offered_where_one_is_meant(tmp_path: Path) -> None:
    assert completed(tmp_path, "history", "--event", "") == set(EVENTS)
    assert completed(tmp_path, "history", "--event", "mov") == {"moved"}


@needs_bash
def test_a_word_is_completed_behind_options(tmp_path: Path) -> None:
    assert completed(tmp_path, "st") == {"status"}
    assert completed(tmp_path, "provision", "plan", "--json", "--p") == {"--policy"}
    assert completed(tmp_path, "nonsense", "") == set()


def test_the_manual_page_has_every_command_and_option() -> None:
    text = (ROOT / "man/tierctl.1").read_text().replace("\\-", "-")
    synopsis, rest = text[text.index(".SH SYNOPSIS") :].split(".SH DESCRIPTION")
    for path, words in OFFERS.items():
        if path and not any(word for word in words if not word.startswith("-")):
            assert re.search(rf"^\.B {' '.join(path)}$", rest, re.MULTILINE), path
            assert path[-1] in synopsis
        for option in words - {"--help", "--version"}:
            assert not option.startswith("-") or option in synopsis, (path, option)
        for option in words:
            assert not option.startswith("-") or option in rest, (path, option)
