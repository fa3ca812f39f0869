"""Tools that work, fail, hang, babble and lie."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tierd.errors import MalformedError, UnsupportedError
from tierd.kernel.tools import ToolError, Tools


def tool(tmp_path: Path, script: str) -> Tools:
    path = tmp_path / "ndctl"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Tools((tmp_path,))


def test_exit_code_and_both_streams(tmp_path: Path) -> None:
    found = tool(tmp_path, 'echo "$@"; echo one >&2; echo two >&2; exit 240').run(("ndctl", "list", "a b"))
    assert (found.code, found.stdout, found.stderr) == (240, b"list a b\n", "one two")
    assert found.argv == (str(tmp_path / "ndctl"), "list", "a b")


def test_a_bare_environment_no_terminal_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NDCTL_DEBUG", "1")
    script = 'env | sort; read line; echo "read: $?"; [ -t 1 ] || echo pipe; echo "$1"'
    found = tool(tmp_path, f"export PATH=/usr/bin:/bin; {script}").run(("ndctl", "$(id); *"))
    lines = found.stdout.decode().splitlines()
    assert "LC_ALL=C" in lines and not any(line.startswith(("NDCTL", "HOME", "LANG=")) for line in lines)
    assert lines[-3:] == ["read: 1", "pipe", "$(id); *"]


def test_one_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    started = time.monotonic()
    hanging = tool(tmp_path, f"/bin/sleep 300 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(ToolError, match="did not finish in time"):
        hanging.run(("ndctl",), deadline=0.5)
    assert time.monotonic() - started < 5
    child = int((tmp_path / "child").read_text())
    time.sleep(0.1)
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_one_that_closes_its_output_and_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="did not finish in time"):
        tool(tmp_path, "exec >&- 2>&-; exec /bin/sleep 300").run(("ndctl",), deadline=0.5)


@pytest.mark.parametrize("stream", [1, 2])
def test_one_that_babbles_is_ended(tmp_path: Path, stream: int) -> None:
    with pytest.raises(ToolError, match="wrote more than 4 MiB"):
        tool(tmp_path, f"exec /usr/bin/yes >&{stream}").run(("ndctl",), deadline=30)


def test_one_that_is_not_installed_is_named_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="ndctl is not installed") as caught:
        Tools((tmp_path,)).run(("ndctl", "list"))
    assert caught.value.hint == "apt install ndctl"


def test_path_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, "true")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError):
        Tools((tmp_path / "elsewhere",)).path("ndctl")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        ("echo '[ ]'; echo 'no matching devices found' >&2", []),
        ("echo 'no matching devices found' >&2; exit 1", []),
        ("""echo '{"regions": []}'""", {"regions": []}),
    ],
)
def test_json_of_every_emptiness(tmp_path: Path, script: str, expected: object) -> None:
    assert tool(tmp_path, script).json(("ndctl", "list")) == expected


@pytest.mark.parametrize("text", ["nothing", '{"regions":', "[1,", "\\377\\376", "[]]", "[" * 100000])
def test_json_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(MalformedError, match="ndctl list: not JSON"):
        tool(tmp_path, f"printf '{text}'").json(("ndctl", "list"))


def test_silence_with_an_error_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="exit code 237: no such device"):
        tool(tmp_path, "echo no such device >&2; exit 237").json(("ndctl", "list"))


def test_inherited_descriptors_stay_open_in_the_tool(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    found = tool(tmp_path, f"[ -e /dev/fd/{descriptor} ] && echo open")
    assert Tools(found.search, (descriptor,)).run(("ndctl",)).stdout == b"open\n"
    assert found.run(("ndctl",)).stdout == b""
    os.close(descriptor)
