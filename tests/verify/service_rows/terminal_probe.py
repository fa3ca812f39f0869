"""Runs commands in a guest, in terminals of several widths and into pipes, and says what came of each.

usage: terminal_probe.py < JSON. Reads a list of objects: command (its arguments), columns (0: a pipe), user,
environment, seconds (that long after its first output a key `q` is typed; 0: never), trace (the beginning of
the names of strace's files, or empty). Writes one JSON object a line: code (exit status), output (what went
to the terminal, or to standard output), errors (what went to standard error, of a pipe).
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

LONGEST = 120.0
"""Seconds that a command may take here, where everything takes several times as long."""


def in_pipe(command: list[str], environment: dict[str, str]) -> dict[str, object]:
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST
    )
    return {
        "code": done.returncode,
        "output": done.stdout.decode(errors="replace"),
        "errors": done.stderr.decode(errors="replace"),
    }


def in_terminal(
    command: list[str], environment: dict[str, str], columns: int, seconds: float
) -> dict[str, object]:
    """Whoever is asked something answers no."""
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        os.execvpe(command[0], command, environment)
    output, began, first, typed = b"", time.monotonic(), 0.0, False
    while True:
        passed = time.monotonic() - began
        if passed > LONGEST:
            os.kill(pid, 9)
        if seconds and not typed and first and time.monotonic() > first + seconds:
            os.write(master, b"q")
            typed = True
        if not seconds and not typed and output.rstrip().endswith(b"[y/N]"):
            os.write(master, b"n\n")
            typed = True
        if select.select([master], [], [], 0.2)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:  # nobody has the other end any more
                break
            if not data:
                break
            output += data
            first = first or time.monotonic()
    _, status = os.waitpid(pid, 0)
    os.close(master)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "output": output.decode(errors="replace"),
        "errors": "",
    }


def main() -> None:
    for asked in json.load(sys.stdin):
        # The kernel knows how wide the terminal is, and COLUMNS would overrule it.
        plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = {**plain, "TERM": "xterm", "LANG": "C.UTF-8", "PAGER": "cat", **asked["environment"]}
        command = asked["command"]
        if asked["user"] != "root":
            command = ["runuser", "-u", asked["user"], "--", *command]
        if asked["trace"]:
            # a file for each thread, so that no line is cut in two by another's
            command = ["strace", "-ff", "-qq", "-etrace=write", "-s4", "-o", asked["trace"], *command]
        try:
            if asked["columns"]:
                found = in_terminal(command, environment, asked["columns"], asked["seconds"])
            else:
                found = in_pipe(command, environment)
        except subprocess.TimeoutExpired:
            found = {"code": -1, "output": "", "errors": f"not done after {LONGEST:g} s"}
        print(json.dumps(found), flush=True)


main()
