"""DAMON: who uses it, and the records of its tracepoint."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.kernel.fixtures import fail_reading
from tests.kernel.fixtures.rings import SAMPLE, lost
from tierd.errors import MalformedError
from tierd.kernel.damon import MODULES, damon_trouble
from tierd.kernel.damon_records import FIELDS, parse_format, record_layout
from tierd.kernel.paths import Root
from tierd.kernel.perf import parse_records

# the `format` file as the fields of 6.12's TRACE_EVENT(damon_aggregated) are printed
FORMAT = """\
name: damon_aggregated
ID: 477
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned long target_id;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned int nr_regions;\toffset:16;\tsize:4;\tsigned:0;
\tfield:unsigned long start;\toffset:24;\tsize:8;\tsigned:0;
\tfield:unsigned long end;\toffset:32;\tsize:8;\tsigned:0;
\tfield:unsigned int nr_accesses;\toffset:40;\tsize:4;\tsigned:0;
\tfield:unsigned int age;\toffset:44;\tsize:4;\tsigned:0;

print fmt: "target_id=%lu nr_regions=%u %lu-%lu: %u %u", REC->target_id
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path)
    for path, text in (
        (root.damon / "nr_kdamonds", "0\n"),
        *((root.modules / module / "parameters/enabled", "N\n") for module in MODULES),
    ):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return root


def test_nobody_uses_it(root: Root) -> None:
    assert damon_trouble(root) == ""


def test_a_kernel_without(tmp_path: Path) -> None:
    assert damon_trouble(Root(tmp_path)) == "this kernel has no DAMON"


@pytest.mark.parametrize("module", MODULES)
def test_modules_exclude_others(root: Root, module: str) -> None:
    (root.modules / module / "parameters/enabled").write_text("Y\n")
    assert damon_trouble(root) == f"in use by {module}"


@pytest.mark.parametrize(("number", "words"), [("1", "somebody's kdamond"), ("3", "somebody's 3 kdamonds")])
def test_a_tree_that_somebody_set_up_is_named(root: Root, number: str, words: str) -> None:
    (root.damon / "nr_kdamonds").write_text(f"{number}\n")
    (root.modules / "damon_stat/parameters/enabled").write_text("Y\n")
    before = {path: path.read_text() for path in root.path.rglob("*") if path.is_file()}
    assert damon_trouble(root) == f"in use by damon_stat and {words}"
    assert {path: path.read_text() for path in root.path.rglob("*") if path.is_file()} == before


def test_modules_that_a_kernel_lacks(root: Root) -> None:
    for module in MODULES:
        (root.modules / module / "parameters/enabled").unlink()
    assert damon_trouble(root) == ""


def test_what_cannot_be_read_counts_as_in_use(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_reading(monkeypatch, root.damon / "nr_kdamonds", 13)
    assert "permission denied" in damon_trouble(root)


def record(
    target: int, regions: int, start: int, end: int, accesses: int, age: int, *, more: int = 0
) -> bytes:
    """PERF_RECORD_SAMPLE with TIME and RAW: the count of raw bytes, the tracepoint's record, padding."""
    raw = struct.pack("<HBBi", 477, 0, 0, 123) + bytes(more)
    raw += struct.pack("<QI4xQQII", target, regions, start, end, accesses, age)
    padded = raw + bytes(-(len(raw) + 4) % 8)
    body = struct.pack("<QI", 17_000_000_000, len(padded)) + padded
    return struct.pack("<IHH", SAMPLE, 2, 8 + len(body)) + body


def test_records() -> None:
    layout = record_layout(parse_format(FORMAT))
    first, second = record(0, 2, 0x1000, 0x9000, 20, 3), record(1, 2, 1 << 46, 1 << 47, 0, 99)
    assert layout.itemsize == len(first) == 72
    records, missing = parse_records(first + lost(6) + second, layout)
    assert missing == 6 and records["time"].tolist() == [17_000_000_000] * 2
    fields = records["fields"]
    assert [fields[name].tolist() for name in FIELDS] == [
        *([0, 1], [2, 2], [0x1000, 1 << 46], [0x9000, 1 << 47], [20, 0], [3, 99]),
    ]


def test_fields_that_a_later_kernel_puts_before() -> None:
    """Their places are read, not assumed."""
    text = FORMAT
    for name, offset in (("target_id", 8), ("nr_regions", 16), ("start", 24), ("end", 32)):
        text = text.replace(f" {name};\toffset:{offset};", f" {name};\toffset:{offset + 8};")
    for name, offset in (("nr_accesses", 40), ("age", 44)):
        text = text.replace(f" {name};\toffset:{offset};", f" {name};\toffset:{offset + 8};")
    text = text.replace(
        "\n\n\tfield", "\n\n\tfield:unsigned long context_id;\toffset:8;\tsize:8;\tsigned:0;\n\tfield"
    )
    data = record(1, 2, 0x1000, 0x9000, 20, 3, more=8)
    records, _ = parse_records(data, record_layout(parse_format(text)))
    assert records["fields"]["start"].tolist() == [0x1000] and records["fields"]["age"].tolist() == [3]


@pytest.mark.parametrize(
    "text", ["", FORMAT.replace(" nr_accesses;", " nr_probes;"), FORMAT.replace("size:8", "size:3")]
)
def test_a_format_that_is_not_understood(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_format(text)
