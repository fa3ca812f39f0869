"""`./dev completions`: what bash, zsh and fish complete behind tierctl, written from its own parser.

shtab, which Debian 12 and 13 have, knows no fish, and cannot say that no command means `status`.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm import host

DIRECTORY = host.ROOT / "conf/completions"
MADE = "Made by `./dev completions` from the parser; do not edit."


@dataclass(frozen=True)
class Option:
    """An option by its names, the long one last. value: what its argument is called, empty where it takes
    none; files: whether that is a file; choices: the words that it may be, when there are few."""

    names: tuple[str, ...]
    words: str
    value: str = ""
    files: bool = False
    choices: tuple[str, ...] = ()

    @property
    def long(self) -> str:
        return self.names[-1]


@dataclass(frozen=True)
class Command:
    """A command by its words. commands: those below it, with what they are for. arguments: what they are
    called, and whether each is a file."""

    path: tuple[str, ...]
    options: tuple[Option, ...]
    commands: tuple[tuple[str, str], ...] = ()
    arguments: tuple[tuple[str, bool], ...] = ()

    @property
    def files(self) -> bool:
        return any(files for _, files in self.arguments)


def commands_of(parser: argparse.ArgumentParser) -> tuple[Command, ...]:
    """All commands of tierctl's parser, those above first. The first is tierctl itself, which also takes
    the options of `status`. Raises ValueError for an option that means different things in two commands,
    which the scripts could not tell apart."""
    top, *others = _walk(parser, ())
    (status,) = (found for found in others if found.path == ("status",))
    options = {option.long: option for option in (*status.options, *top.options)}
    found = (Command((), tuple(options.values()), top.commands), *others)
    seen: dict[str, tuple[str, bool, tuple[str, ...]]] = {}
    for command in found:
        for option in command.options:
            takes = (option.value, option.files, option.choices)
            if seen.setdefault(option.long, takes) != takes:
                raise ValueError(f"{option.long} takes different arguments in different commands")
    return found


def _walk(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[Command]:
    def words(action: argparse.Action) -> str:
        return parser._get_formatter()._expand_help(action) if action.help else ""

    options, commands, inner, arguments = [], [], [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands += [(str(choice.dest), words(choice)) for choice in action._choices_actions]
            inner += list(action.choices.items())
        elif action.option_strings:
            value = "" if action.nargs == 0 else str(action.metavar or action.dest)
            names = tuple(sorted(action.option_strings, key=len))
            choices = tuple(map(str, action.choices or ()))
            options.append(Option(names, words(action), value, bool(value) and action.type is Path, choices))
        else:
            arguments.append((str(action.metavar or action.dest), action.type is Path))
    yield Command(path, tuple(options), tuple(commands), tuple(arguments))
    for name, below in inner:
        yield from _walk(below, (*path, name))


def _taking(commands: Sequence[Command], files: bool | None = None) -> list[str]:
    """The long options that take an argument: a file, another, or either."""
    options = {option.long: option for command in commands for option in command.options if option.value}
    return sorted(name for name, option in options.items() if files in (None, option.files))


def _choosing(commands: Sequence[Command]) -> dict[str, str]:
    """The long options that take one of a few words, with these."""
    options = {option.long: option for command in commands for option in command.options}
    return {name: " ".join(option.choices) for name, option in sorted(options.items()) if option.choices}


def bash(commands: Sequence[Command]) -> str:
    """The script of /usr/share/bash-completion/completions."""
    arms = []
    for command in commands:
        path = " ".join(command.path)
        pattern = f'"{path}"' if command.commands else f'"{path}" | "{path} "*'
        words = " ".join((*(name for name, _ in command.commands), *(o.long for o in command.options)))
        arms.append(f'\t{pattern}) words="{words}"{" files=yes" if command.files else ""} ;;')
    arms_of_choice = "".join(
        f'\t{name}) words="{words}" files= ;;\n' for name, words in _choosing(commands).items()
    )
    text = f"""\
# bash completion for tierctl(1). {MADE}
_tierctl() {{
	local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
	local word skip= words= files=
	local -a path=()
	# bash splits --policy=FILE into three words
	if [[ $current == = ]]; then
		current=
	elif [[ $previous == = ]]; then
		previous=${{COMP_WORDS[COMP_CWORD - 2]}}
	fi
	for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
		if [[ $skip ]]; then
			[[ $word == = ]] || skip=
			continue
		fi
		case $word in
		{" | ".join(_taking(commands))}) skip=yes ;;
		-*) ;;
		*) path+=("$word") ;;
		esac
	done
	case "${{path[*]}}" in
{chr(10).join(arms)}
	esac
	case $previous in
{arms_of_choice}	{" | ".join(_taking(commands, True))}) words= files=yes ;;
	{" | ".join(_taking(commands, False))}) words= files= ;;
	esac
	if [[ $files && $current != -* ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		compopt -o filenames 2>/dev/null
	else
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
	fi
}}
complete -F _tierctl tierctl
"""
    return text


def zsh(commands: Sequence[Command]) -> str:
    """The function of /usr/share/zsh/vendor-completions."""
    parts = [f"#compdef tierctl\n# zsh completion for tierctl(1). {MADE}\n"]
    for command in reversed(commands):
        name = "_".join(("_tierctl", *command.path))
        lines = [_zsh_option(option) for option in command.options]
        if command.commands:
            rows = " \\\n".join(f"\t\t{_quoted(f'{n}:{words}')}" for n, words in command.commands)
            lines += ["'1:command:->command'", "'*:: :->behind'"]
            tail = f"""
	case $state in
	command)
		commands=( \\
{rows} \\
		)
		_describe -t commands command commands
		;;
	behind)
		(( $+functions[{name}_$line[1]] )) && {name}_$line[1]
		;;
	esac"""
            head = "\tlocal curcontext=$curcontext state line\n\tlocal -a commands\n\ttypeset -A opt_args\n"
            start = "_arguments -C"
        else:
            head, start, tail = "", "_arguments", ""
            for number, (name_of, files) in enumerate(command.arguments, 1):
                lines.append(_quoted(f"{number}:{name_of}:{'_files' if files else ' '}"))
        body = " \\\n".join([f"\t{start}", *(f"\t\t{line}" for line in lines)])
        parts.append(f"{name}() {{\n{head}{body}{tail}\n}}\n")
    parts.append('_tierctl "$@"\n')
    return "\n".join(parts)


def _zsh_option(option: Option) -> str:
    words = option.words.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    what = f"({' '.join(option.choices)})" if option.choices else "_files" if option.files else " "
    argument = f":{option.value}:{what}" if option.value else ""
    end = "=" if option.value else ""
    if option.long in ("--help", "--version"):
        return " ".join(_quoted(f"(- *){name}[{words}]") for name in option.names)
    return " ".join(_quoted(f"{name}{end}[{words}]{argument}") for name in option.names)


def fish(commands: Sequence[Command]) -> str:
    """The script of /usr/share/fish/vendor_completions.d."""
    lines = [
        f"""\
# fish completion for tierctl(1). {MADE}

# The words so far that are neither options nor their arguments.
function __tierctl_words
    set -l skip
    for word in (commandline -opc)[2..]
        if set -q skip[1]
            set -e skip
            continue
        end
        switch $word
            case {" ".join(_taking(commands))}
                set skip yes
            case '-*'
            case '*'
                echo $word
        end
    end
end

# Whether these are all of the words.
function __tierctl_at
    test (string join ' ' -- (__tierctl_words) '') = (string join ' ' -- $argv '')
end

# Whether the words begin with these.
function __tierctl_behind
    string match -q -- (string join ' ' -- $argv '')'*' (string join ' ' -- (__tierctl_words) '')
end

complete -c tierctl -f"""
    ]
    for command in commands:
        kind = "at" if command.commands else "behind"
        start = f"complete -c tierctl -n '{' '.join((f'__tierctl_{kind}', *command.path))}'"
        lines.append("")
        lines += [f"{start} -a {name} -d {_fish(words)}" for name, words in command.commands]
        lines += [f"{start} -F"] if command.files else []
        for option in command.options:
            names = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
            )
            argument = (" -r -F" if option.files else " -x") if option.value else ""
            if option.choices:
                argument += f" -a {_fish(' '.join(option.choices))}"
            lines.append(f"{start} {names}{argument} -d {_fish(option.words)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS = {"tierctl": bash, "_tierctl": zsh, "tierctl.fish": fish}
"""Each file of conf/completions, by the name that its shell looks for."""


def scripts() -> dict[str, str]:
    """What each file should hold."""
    from tierd.cli.main import parser

    commands = commands_of(parser())
    return {name: make(commands) for name, make in SCRIPTS.items()}


def main(argv: list[str]) -> int:
    """Called by `./dev completions`; exit code 1 when --check finds a file that is not current."""
    parser = argparse.ArgumentParser(
        prog="./dev completions", description="Write the completions for bash, zsh and fish anew."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, and show what would change")
    asked = parser.parse_args(argv)
    host.install_packages()
    old = 0
    for name, text in scripts().items():
        path = DIRECTORY / name
        now = path.read_text() if path.exists() else ""
        old += now != text
        if asked.check:
            sys.stdout.writelines(difflib.unified_diff(now.splitlines(True), text.splitlines(True), name))
        else:
            path.write_text(text)
    return 1 if asked.check and old else 0
