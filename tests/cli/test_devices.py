"""`tierctl list devices`: the whole picture as text and as JSON, on recorded machines and on this one."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.test_tierctl import tierctl
from tests.kernel.fixtures.provisioned import Machine
from tierd.cli import Exit
from tierd.cli.devices import show
from tierd.cli.render import Style
from tierd.kernel.tools import Tools

MIB = 1 << 20
WIDE = Style(width=120)


def text(machine: Machine, style: Style = WIDE, tools: Tools | None = None) -> tuple[str, Exit]:
    return show(machine.root, tools or machine.tools, machine.directory / "record", style)


def test_a_free_region(tmp_path: Path) -> None:
    shown, status = text(Machine(tmp_path))
    assert status is Exit.OK
    assert shown == (
        "DIMM      SIZE  SERIAL         HEALTH    REGIONS\n"
        "nmem0  4.0 GiB  8680-56341200  not told  region0\n"
        "\n"
        "REGION   KIND        SIZE     FREE  NODE  ISET_ID           DIMMS\n"
        "region0  unknown  4.0 GiB  4.0 GiB  1     0x2468ac00123456  nmem0\n"
        "  - region0: all of its free 4.0 GiB could become memory: 3.9 GiB in 31 blocks of"
        " node 1, 128 MiB lost to alignment, 66\n"
        "    MiB of DRAM for page structures\n"
        "\n"
        "NODE  KIND    TOTAL  AVAILABLE  CPUS  TIER\n"
        "0     dram  1.1 GiB    1.0 GiB  yes   memory_tier4\n"
        "\n"
        "TIER          KIND  NODES    TOTAL  USED\n"
        "memory_tier4  dram  0      1.1 GiB   15%"
    )


def test_namespaces_with_who_uses_them_and_why_not(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    machine.write("proc/self/mountinfo", "40 22 0:9 / /srv rw - btrfs /dev/pmem0.1 rw\n")
    machine.write("sys/bus/nd/devices/region0/read_only", "1\n")
    shown, status = text(machine)
    assert status is Exit.OK
    lines = shown.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("namespace0")]
    assert names == [f"namespace0.{number}" for number in range(5)]
    assert "  - namespace0.1: used by btrfs at /srv" in lines
    assert any("namespace0.1: tierd would not make memory of it, because tierd did not" in x for x in lines)
    assert any("- region0: tierd would not make memory of" in x and "is read-only" in x for x in lines)
    assert "dax0.0  persistent memory  1.1 GiB  system-ram  1     8 of 8 movable" in lines
    assert "memory33-40  1.0 GiB  online Movable  1     dax0.0" in lines
    assert "1     slow  1.0 GiB    1.0 GiB  no    memory_tier56" in lines


def test_every_line_fits_and_names_of_others_move_no_cursor(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    listed = json.loads((tmp_path / "ndctl.json").read_text())
    listed["regions"][0]["namespaces"][2]["name"] = "\x1b[2Jlabel"
    (tmp_path / "ndctl.json").write_text(json.dumps(listed))
    machine.write("proc/self/mountinfo", "40 22 0:9 / /\x1b[2J rw - btrfs /dev/pmem0.1 rw\n")
    shown, _ = text(machine, Style(width=60))
    assert "\x1b" not in shown and "\\x1b[2Jlabel" in shown
    assert all(len(line) <= 60 for line in shown.splitlines() if line.startswith("  "))


def test_json_has_the_same_with_reasons_by_kind(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    shown, status = show(machine.root, machine.tools, tmp_path / "record", None)
    found = json.loads(shown)
    assert status is Exit.OK
    could = {entry["name"]: entry["could"]["verdict"] for entry in found["namespaces"]}
    assert could == {"namespace0.0": "done"} | {f"namespace0.{n}": "refused" for n in range(1, 5)}
    assert found["regions"][0]["could"]["page_structures"] == 7 * 17 * MIB // 8
    assert [reason["kind"] for reason in found["namespaces"][1]["could"]["reasons"]] == ["not-ours"]


def test_without_ndctl_it_says_so_and_shows_the_rest(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    shown, status = text(machine, tools=Tools((tmp_path / "nothing",)))
    assert status is Exit.OK
    assert "ndctl is not installed" in shown and "memory33-40" in shown and "namespace0" not in shown


def test_a_fault_is_shown_with_the_rest_and_is_a_failure(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "several")
    machine.stub("ndctl", "echo '{'")
    shown, status = text(machine)
    assert status is Exit.FAILED
    assert "not shown: ndctl list -RNDHvi: not JSON" in shown and "memory33-40" in shown


def test_on_this_machine_as_whoever_runs_it() -> None:
    result = tierctl("list", "devices", "--json")
    assert result.returncode in (Exit.OK, Exit.FAILED), result.stderr
    found = json.loads(result.stdout)
    assert set(found) >= {"dimms", "regions", "namespaces", "dax_devices", "memory_blocks", "nodes", "tiers"}
    assert (result.returncode == Exit.FAILED) is bool(found["faults"])
    assert tierctl("list").returncode == Exit.USAGE
