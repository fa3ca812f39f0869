"""Requests for CXL memory: good ones, and what is said of bad ones."""

from __future__ import annotations

import pytest

from tierd.config.edit import with_size
from tierd.config.loader import parse
from tierd.core.policy import CxlRequest, ProvisionMode
from tierd.errors import ConfigError

HEAD = "version: 1\nprovision:\n"
HELD = "namespace: {uuid: 3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1}"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse((HEAD + text).encode(), "p")
    return [problem.removeprefix("p:") for problem in caught.value.problems]


def test_a_request_beside_others() -> None:
    policy = parse(
        (
            f"{HEAD}  - {{name: a, cxl: {{serials: ['0x1234', 4661]}}, size: all, mode: apply}}\n"
            "  - {name: b, region: {iset_id: '0x1'}, size: 1GiB}\n"
            "  - {name: c, cxl: {serials: ['0xffffffffffffffff']}, size: none}\n"
            f"  - {{name: d, {HELD}}}\n"
        ).encode(),
        "p",
    )
    assert policy.cxl == (
        CxlRequest("a", (0x1234, 0x1235), None, ProvisionMode.APPLY),
        CxlRequest("c", ((1 << 64) - 1,), 0, ProvisionMode.PLAN),
    )
    assert [request.name for request in policy.requests] == ["b", "d", "a", "c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cxl: {serials: [mem0]}, size: all", "`mem0` is a name, and names renumber over reboots"),
        ("cxl: {serials: [0]}, size: all", "`0` is no serial number of 64 bits"),
        ("cxl: {serials: ['0x11112222333344445']}, size: all", "is not a serial number; write the serial"),
        ("cxl: {serials: [true]}, size: all", "the boolean `true` is not a serial number"),
        ("cxl: {serials: []}, size: all", "this list is empty; write a list such as"),
        ("cxl: {serial: '0x1'}, size: all", 'write a list: serials: ["0x..."]'),
        ("cxl: {serials: ['0x1', 1]}, size: all", "the device is already asked for on line 3; keep one"),
        ("cxl: {serials: ['0x1']}, size: 40%", "`40%` of CXL memory cannot be had; write a size"),
        ("cxl: {serials: ['0x1']}, size: all but 1GiB", "`all but 1GiB` of CXL memory cannot be had"),
        ("cxl: {serials: ['0x1']}", "the key `size` is missing"),
        (
            "cxl: {serials: ['0x1']}, region: {iset_id: '0x1'}, size: all",
            "this key cannot stand beside `cxl`",
        ),
        (
            "cxl: {serials: ['0x1']}, size: all, consent: destroy",
            "this key cannot stand beside `cxl` and `size`: a request is for one kind of memory",
        ),
        (
            f"cxl: {{serials: ['0x1']}}, {HELD}, size: all",
            "provision[0].namespace: this key cannot stand beside `cxl` and `size`",
        ),
        (f"{HELD}, size: all", "provision[0].size: this key cannot stand beside `namespace`"),
        ("size: all", "the key `region` is missing"),
        ("region: {serial: 8680-56341200}, size: all", "one that has none has no labels, and is not taken"),
    ],
)
def test_what_is_said_of_bad_ones(text: str, expected: str) -> None:
    found = problems(f"  - {{name: a, {text}}}\n")
    assert any(expected in problem for problem in found), found


def test_one_device_is_one_request_s() -> None:
    found = problems(
        "  - {name: a, cxl: {serials: ['0x1']}, size: all}\n  - {name: b, cxl: {serials: [1]}, size: all}\n"
    )
    assert found == [
        "4:31: provision[1].cxl.serials[0]: the device is already asked for on line 3; keep one"
    ]


def test_the_size_of_a_request_behind_one_for_cxl_is_changed_and_no_other() -> None:
    text = (
        f"{HEAD}  - {{name: a, cxl: {{serials: ['0x1']}}, size: 1GiB}}\n"
        "  - {name: b, region: {iset_id: '0x1'}, size: 1GiB}\n"
    )
    changed, request = with_size(text.encode(), "b", "2GiB", "p")
    assert changed.decode() == text.replace("'0x1'}, size: 1GiB", "'0x1'}, size: 2GiB")
    assert request.size == 2 << 30


def test_the_size_of_cxl_memory_is_changed() -> None:
    text = f"{HEAD}  - {{name: a, cxl: {{serials: ['0x1']}}, size: 1GiB}}\n"
    changed, request = with_size(text.encode(), "a", "none", "p")
    assert changed.decode() == text.replace("1GiB", "none")
    assert request == CxlRequest("a", (1,), 0)
    with pytest.raises(ValueError, match="cannot be had"):
        with_size(text.encode(), "a", "40%", "p")
