"""What is printed in a terminal that is narrower than a line."""

from __future__ import annotations

import io
import shutil

import pytest

from tierd.cli.terminal import folded

UUID = "43cbc2ed-a981-4f04-b7c5-ff9526859902"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    assert shutil.get_terminal_size().columns == 50


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("tierctl: there is no request, DIMM, region, namespace or dax device named x", 2),
        ("  namespace   " + UUID + " (namespace0.0, labelled tierd:pmem0)", 2),
        ("  1. drain 31 memory blocks of namespace0.0, 3968MiB, and take them offline", 2),
        ("  - namespace0.0: it is memory already, made by tierd as pmem0: 3.9 GiB", 2),
        ("  drain 31 memory blocks of namespace0.0, 3968MiB, and take them offline", 2),
        ("       ndctl create-namespace -r region0 -s 1207959552 -m devdax -M mem -a 2M", 1),
        ("short", 1),
    ],
)
def test_prose_goes_on_below_its_own_beginning_and_loses_nothing(line: str, shown: int) -> None:
    lines = folded(line, Terminal()).split("\n")
    assert len(lines) == shown
    assert " ".join(" ".join(lines).split()) == " ".join(line.split())
    if shown > 1:
        assert all(len(one) <= 50 or UUID in one for one in lines)


def test_where_it_goes_on() -> None:
    plan = "  no return   from step 3 on nothing of the 4GiB of namespace0.0 can be read back"
    assert folded(f"pmem0: ready\n{plan}\n", Terminal()) == (
        "pmem0: ready\n"
        "  no return   from step 3 on nothing of the 4GiB\n"
        "              of namespace0.0 can be read back\n"
    )
    step = "  1. drain 31 memory blocks of namespace0.0, 3968MiB, in all"
    assert folded(step, Terminal()).split("\n")[1].startswith("     3968MiB")


def test_a_pipe_gets_lines_whole() -> None:
    assert folded("x " * 100, io.StringIO()) == "x " * 100
