"""Five callers of the bus in a guest, from nobody to root, and what each is answered for a list of calls."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.vm.guest import Guest

CALLERS = ("nobody", "user", "active", "admin", "root")
"""nobody; someone with an account; the same at the machine's own screen (a local, active session of logind);
a member of the group that the polkit rule below lets do all of it; root."""

USER, ADMIN, GROUP = "someone", "operator1", "memory-operators"
RULE_FILE = "/etc/polkit-1/rules.d/40-memory-operators.rules"
RULE = f"""polkit.addRule(function(action, subject) {{
    if (action.id.indexOf("org.tierd1.") == 0 && subject.isInGroup("{GROUP}"))
        return polkit.Result.YES;
}});
"""
EFFECT = "effect"
_SCRIPT = "/run/tierd-ask.sh"
_ANSWERS = "/run/tierd-answers/"
_SESSION = "loginctl show-session $XDG_SESSION_ID -p Active -p Remote -p Seat 2>&1"
# A pid of the caller's own; each call's exit status and words, as one line.
_HEAD = f"""own=$$
ask() {{
  local name=$1; shift
  local said; said=$(busctl --json=short --timeout=60 "$@" 2>&1 </dev/null)
  printf '%s\\t%s\\t%s\\n' "$name" $? "$(base64 -w0 <<<"$said")"
}}
printf 'session\\t0\\t%s\\n' "$({_SESSION} | base64 -w0)"
"""


@dataclass(frozen=True)
class Answer:
    """code: busctl's exit status. words: what it printed, of either kind."""

    code: int
    words: str


def add(guest: Guest) -> None:
    """The accounts and the rule."""
    guest.run(
        f"groupadd --force {GROUP};"
        f" id {USER} || useradd --create-home {USER};"
        f" id {ADMIN} || useradd --create-home --groups {GROUP} {ADMIN};"
        f" install -d {_ANSWERS}"
    )
    guest.write(RULE_FILE, RULE)
    guest.run("systemctl restart polkit", timeout=120)


def remove(guest: Guest) -> None:
    guest.run(
        f"rm -rf {RULE_FILE} {_SCRIPT} {_ANSWERS}; loginctl terminate-user {USER};"
        f" userdel --force --remove {USER}; userdel --force --remove {ADMIN}; groupdel --force {GROUP};"
        " systemctl restart polkit; systemctl reset-failed",
        check=False,
    )


def ask(guest: Guest, caller: str, calls: Sequence[tuple[str, Sequence[str]]]) -> Mapping[str, Answer]:
    """Make the calls in this order, as this caller. calls: a name for the answer, which begins with EFFECT
    for what is to be seen of the call before, and arguments of busctl, in which $own is a pid of the
    caller's. No answers where the caller could not be had, which may be with a session of logind's."""
    lines = [
        # what came of a call is shown with the engine's next round
        f"{'sleep 3; ' if name.startswith(EFFECT) else ''}ask {shlex.quote(name)} {_arguments(words)}"
        for name, words in calls
    ]
    guest.write(_SCRIPT, _HEAD + "\n".join(lines) + "\n")
    output = f"{_ANSWERS}{caller}"
    guest.run(f"rm -f {output}")
    # a session takes logind and a screen, which a guest may lack
    guest.run(f"{_as(caller, output)} bash {_SCRIPT} > {output}", check=caller != "active", timeout=600)
    found = {}
    for line in guest.output(f"cat {output}").splitlines():
        name, code, words = line.split("\t")
        found[name] = Answer(int(code), base64.b64decode(words).decode(errors="replace").strip())
    return found


def _arguments(words: Sequence[str]) -> str:
    return " ".join(word if word == "$own" else shlex.quote(word) for word in words)


def _as(caller: str, output: str) -> str:
    """What stands before a command that is the caller's."""
    if caller == "root":
        return ""
    if caller == "active":
        # PAM opens a session on the screen's first terminal, as a login there does
        properties = (
            *("PAMName=login", f"User={USER}", "TTYPath=/dev/tty1", "StandardInput=tty-force"),
            *(f"StandardOutput=file:{output}", "UtmpIdentifier=tty1", "UtmpMode=user"),
        )
        settings = " ".join(f"--property={one}" for one in properties)
        return f"systemd-run --quiet --wait --collect --unit=active-session {settings}"
    name = {"nobody": "nobody", "user": USER, "admin": ADMIN}[caller]
    return f"runuser -u {name} --"
