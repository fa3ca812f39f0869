"""Events as the kernel takes them, and which of them a CPU has, on recorded sysfs trees.

The trees are those of an Ice Lake server and of a Zen 4 server as the kernel's event files describe them.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tierd.errors import UnsupportedError
from tierd.kernel import perf_event, syscalls
from tierd.kernel.paths import Root
from tierd.kernel.perf_event import find_ibs, find_pebs

ICE_LAKE = {
    "cpu/type": "4",
    "cpu/events/mem-loads": "event=0xcd,umask=0x1,ldlat=3",
    "cpu/format/event": "config:0-7",
    "cpu/format/umask": "config:8-15",
    "cpu/format/ldlat": "config1:0-15",
}
ZEN_4 = {
    "cpu/type": "4",
    "cpu/format/event": "config:0-7,32-35",
    "ibs_op/type": "11",
    "ibs_op/format/cnt_ctl": "config:19",
    "ibs_op/format/l3missonly": "config:16",
}


def machine(path: Path, files: dict[str, str]) -> Root:
    root = Root(path)
    for name, text in files.items():
        file = root.event_sources / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, int, int]]:
    calls: list[tuple[bytes, int, int]] = []

    def perf_event_open(attributes: bytes, pid: int, cpu: int) -> int:
        calls.append((attributes, pid, cpu))
        return 99

    monkeypatch.setattr(syscalls, "perf_event_open", perf_event_open)
    return calls


def attributes(data: bytes) -> dict[str, int]:
    """The fields of struct perf_event_attr that tierd sets, by their offsets in the header file."""
    assert len(data) == 112
    fields = {
        **{"type": ("<I", 0), "size": ("<I", 4), "config": ("<Q", 8), "period": ("<Q", 16)},
        **{"sample_type": ("<Q", 24), "flags": ("<Q", 40), "config1": ("<Q", 56), "clockid": ("<i", 92)},
    }
    return {name: struct.unpack_from(kind, data, offset)[0] for name, (kind, offset) in fields.items()}


def test_the_page_fault_event(opened: list[tuple[bytes, int, int]]) -> None:
    assert perf_event.open_fault_event(3) == 99
    data, pid, cpu = opened[0]
    assert (pid, cpu) == (-1, 3)
    assert attributes(data) == {
        **{"type": 1, "size": 112, "config": 2, "period": 1, "sample_type": 0b1000_1110},
        **{"flags": 1 | 1 << 25, "config1": 0, "clockid": 1},
    }


def test_pebs(tmp_path: Path, opened: list[tuple[bytes, int, int]]) -> None:
    event = find_pebs(machine(tmp_path, ICE_LAKE))
    perf_event.open_hardware_event(event, 5)
    data, pid, cpu = opened[0]
    assert (pid, cpu) == (-1, 5)
    found = attributes(data)
    assert (found["type"], found["config"], found["config1"]) == (4, 0x1CD, 30)
    assert found["sample_type"] == 2 | 4 | 8 | 1 << 7 | 1 << 15 | 1 << 19
    assert found["flags"] == 1 | 1 << 5 | 1 << 6 | 2 << 15 | 1 << 25, "disabled, user only, precise, clock"
    assert found["clockid"] == 1 and found["period"] == 10_007


@pytest.mark.parametrize(("files", "config"), [(ZEN_4, 1 << 19 | 1 << 16), (None, 1 << 19)])
def test_ibs(
    tmp_path: Path, opened: list[tuple[bytes, int, int]], files: dict[str, str] | None, config: int
) -> None:
    older = {name: text for name, text in ZEN_4.items() if "l3missonly" not in name}
    event = find_ibs(machine(tmp_path, files or older))
    perf_event.open_hardware_event(event, 0)
    found = attributes(opened[0][0])
    assert (found["type"], found["config"], found["config1"]) == (11, config, 0)
    assert found["flags"] == 1 | 1 << 25, "IBS filters nothing, and refuses to be asked"
    assert found["period"] % 16 == 0


def test_a_machine_without(tmp_path: Path) -> None:
    """As virtual machines are."""
    root = machine(tmp_path, {"software/type": "1"})
    for find in (find_pebs, find_ibs):
        with pytest.raises(UnsupportedError, match="not in this CPU"):
            find(root)


def test_each_cpu_has_one_of_the_two(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError):
        find_pebs(machine(tmp_path / "amd", ZEN_4))
    with pytest.raises(UnsupportedError):
        find_ibs(machine(tmp_path / "intel", ICE_LAKE))


def test_an_event_that_needs_a_leader_is_refused(tmp_path: Path) -> None:
    """Sapphire Rapids: alone, the event would count nothing."""
    with pytest.raises(UnsupportedError, match="auxiliary"):
        find_pebs(machine(tmp_path, {**ICE_LAKE, "cpu/events/mem-loads-aux": "event=0x03,umask=0x82"}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cpu/events/mem-loads", "event=many"),
        ("cpu/events/mem-loads", "event=0xcd,unheard=1"),
        ("cpu/format/event", "config:0-7,32-35"),
        ("cpu/format/event", "somewhere"),
        ("cpu/format/ldlat", "config1:0-3"),
        ("cpu/type", "four"),
    ],
)
def test_files_that_are_not_understood(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(UnsupportedError):
        find_pebs(machine(tmp_path, {**ICE_LAKE, name: text}))
