"""The completions of bash, zsh and fish, and tierctl(1), have what the parser has."""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dev import completions
from tierd.cli.history import EVENTS
from tierd.cli.main import parser

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "conf/completions"

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


def bash(directory: Path, *line: str) -> set[str]:
    """What bash offers behind `line`, whose last word is the one being typed."""
    words = " ".join(map(shlex.quote, ("tierctl", *line)))
    code = (
        f"source {SCRIPTS}/tierctl; COMP_WORDS=({words}); COMP_CWORD={len(line)}; _tierctl;"
        ' (( ${#COMPREPLY[@]} )) && printf "%s\\n" "${COMPREPLY[@]}"; true'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=directory)
    assert done.stderr == ""
    return set(done.stdout.split())


def fish(directory: Path, *line: str) -> set[str]:
    """What fish offers; what it takes from PATH and the user's own settings is not asked."""
    command = " ".join(("tierctl", *line))
    code = f"source {SCRIPTS}/tierctl.fish; complete -C {shlex.quote(command)}"
    home = directory.parent / "home"
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=directory,
        env=environment,
    )
    assert done.stderr == ""
    return {offer.split("\t")[0] for offer in done.stdout.splitlines()}


ZSHRC = """\
PS1=; fpath=($SCRIPTS $fpath); autoload -Uz compinit; compinit -C -d $DUMP
zstyle ':completion:*' list-prompt ''; zstyle ':completion:*' menu no; LISTMAX=1000
compadd() {
  local -a hits
  if (( ! ${@[(I)-[OAD]*]} )); then
    builtin compadd -O hits "$@"
    (( $#hits )) && print -rl -- $hits >>$OFFERED
  fi
  builtin compadd "$@"
}
leave() { print >$OFFERED.done; exit }
zle -N leave; bindkey '^I' complete-word '^Xq' leave
"""
"""zsh completes at a terminal only: what its completion adds is written down on the way."""


def zsh(directory: Path, *line: str) -> set[str]:
    """What zsh offers at a terminal of its own when Tab is pressed behind `line`."""
    home = directory.parent / "home"
    home.mkdir(exist_ok=True)
    offered = home / "offered"
    offered.write_text("")
    (home / "offered.done").unlink(missing_ok=True)
    (home / ".zshrc").write_text(ZSHRC)
    environment = {
        "PATH": os.environ["PATH"],
        "TERM": "dumb",
        "HOME": str(home),
        "ZDOTDIR": str(home),
        "SCRIPTS": str(SCRIPTS),
        "OFFERED": str(offered),
        "DUMP": str(directory.parents[1] / "zcompdump"),  # made once: it takes a second
    }
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-d", "-i"],
        cwd=directory,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        os.write(ours, f"tierctl {' '.join(line)}\t\x18q".encode())
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not (home / "offered.done").exists():
            if select.select([ours], [], [], 0.05)[0]:
                shown += os.read(ours, 65536)
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    assert (home / "offered.done").exists(), shown.decode(errors="replace")
    return {offer.removesuffix("=") for offer in offered.read_text().split()}


Complete = Callable[..., set[str]]
SHELLS = [
    pytest.param(
        shell,
        id=shell.__name__,
        marks=pytest.mark.skipif(
            shutil.which(shell.__name__) is None, reason=f"{shell.__name__} is not installed"
        ),
    )
    for shell in (bash, zsh, fish)
]
each_shell = pytest.mark.parametrize("completed", SHELLS)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty working directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    return directory


def test_the_scripts_are_current() -> None:
    """`./dev completions` writes them anew."""
    assert {path.name: path.read_text() for path in SCRIPTS.iterdir()} == completions.scripts()


def test_an_option_that_means_two_things_is_refused() -> None:
    found = parser()
    commands = next(a for a in found._actions if isinstance(a, argparse._SubParsersAction))
    commands.choices["plan"].add_argument("--output", action="store_true")
    with pytest.raises(ValueError, match="--output takes different"):
        completions.commands_of(found)


def test_the_scripts_are_installed_where_each_shell_looks() -> None:
    installed = dict(line.split() for line in (ROOT / "debian/tierd.install").read_text().splitlines())
    assert {name: where for name, where in installed.items() if "completions" in name} == {
        "conf/completions/tierctl": "usr/share/bash-completion/completions",
        "conf/completions/_tierctl": "usr/share/zsh/vendor-completions",
        "conf/completions/tierctl.fish": "usr/share/fish/vendor_completions.d",
    }


@each_shell
@pytest.mark.parametrize("path", OFFERS, ids=" ".join)
def test_a_shell_offers_what_the_parser_takes(completed: Complete, path: Words, here: Path) -> None:
    assert completed(here, *path, "--") == {word for word in OFFERS[path] if word.startswith("-")}
    commands = {word for word in OFFERS[path] if not word.startswith("-")}
    assert {w for w in completed(here, *path, "") if not w.startswith("-")} == commands


@each_shell
@pytest.mark.parametrize(
    "line", [("check-config", ""), ("provision", "plan", "--policy", ""), ("metrics", "--output", "dr")]
)
def test_files_are_offered_where_a_file_is_meant(completed: Complete, line: Words, here: Path) -> None:
    (here / "draft.yaml").touch()
    assert {word for word in completed(here, *line) if not word.startswith("-")} == {"draft.yaml"}
    assert "draft.yaml" not in completed(here, "status", "")
    assert "draft.yaml" not in completed(here, "drain", "--deadline", "")


@each_shell
def test_events_are_offered_where_one_is_meant(completed: Complete, here: Path) -> None:
    assert completed(here, "history", "--event", "") == set(EVENTS)
    assert completed(here, "history", "--event", "mov") == {"moved"}


@each_shell
def test_a_word_is_completed_behind_options(completed: Complete, here: Path) -> None:
    assert completed(here, "sta") == {"status"}
    assert completed(here, "provision", "plan", "--json", "--p") == {"--policy"}
    assert completed(here, "drain", "--deadline", "300", "--un") == {"--undo"}
    assert completed(here, "provision", "set", "pmem0", "--y") == {"--yes"}
    assert completed(here, "nonsense", "") == set()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_a_file_behind_an_equals_sign(here: Path) -> None:
    (here / "draft.yaml").touch()
    assert bash(here, "provision", "plan", "--policy", "=") == {"draft.yaml"}
    assert bash(here, "provision", "plan", "--policy", "=", "dr") == {"draft.yaml"}
    assert bash(here, "provision", "plan", "--policy", "=", "draft.yaml", "--j") == {"--json"}


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
