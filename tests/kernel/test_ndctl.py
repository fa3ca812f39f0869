"""ndctl's JSON: what was recorded, other shapes of the same, and everything that is not it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel.fixtures.provisioned import ISET, load
from tierd.core.inventory import Dimm
from tierd.errors import MalformedError
from tierd.kernel.ndctl import Listing, parse_listing
from tierd.kernel.tools import parse_json

STATES = ("free", "half-made", "raw", "devdax", "system-ram", "several", "disabled")


@pytest.mark.parametrize("state", STATES)
def test_every_recording_has_the_one_region(state: str) -> None:
    (region,) = parse_listing(load(state)["ndctl"]).regions
    assert (region.name, region.iset_id, region.dimms, region.enabled) == ("region0", ISET, ("nmem0",), True)


def test_a_devdax_namespace() -> None:
    (region,) = parse_listing(load("devdax")["ndctl"]).regions
    found = next(n for n in region.namespaces if n.label)
    assert (found.label, found.mode, found.enabled, found.chardevs) == (
        "tierd:pmem0",
        "devdax",
        True,
        ("dax0.0",),
    )
    assert found.uuid is not None and len(found.uuid) == 36


def test_several_namespaces_of_all_modes() -> None:
    (region,) = parse_listing(load("several")["ndctl"]).regions
    modes = {n.label: n.mode for n in region.namespaces if n.label}
    assert modes == {
        "tierd:pmem0": "devdax",
        "second": "devdax",
        "data": "fsdax",
        "log": "sector",
        "plain": "raw",
    }


def test_the_idle_namespace_has_no_uuid() -> None:
    (region,) = parse_listing(load("free")["ndctl"]).regions
    assert all(n.uuid is None and not n.enabled for n in region.namespaces)


def test_the_shapes_that_ndctl_gives_to_the_same_thing() -> None:
    whole = load("devdax")["ndctl"]
    expected = parse_listing(whole).regions
    assert parse_listing(whole["regions"]).regions == expected
    assert parse_listing(whole["regions"][0]).regions == expected
    assert parse_listing([]) == parse_listing({}) == Listing((), frozenset())


@pytest.mark.parametrize("iset_id", [ISET - (1 << 64), ISET])
def test_an_iset_id_above_the_sign_bit_is_the_same_number(iset_id: int) -> None:
    whole = copy.deepcopy(load("free")["ndctl"])
    whole["regions"][0]["iset_id"] = iset_id
    assert parse_listing(whole).regions[0].iset_id == iset_id % (1 << 64)


def test_locked_dimms_and_regions_of_other_types() -> None:
    whole = copy.deepcopy(load("free")["ndctl"])
    whole["dimms"][0]["security"] = "locked"
    whole["regions"].append({"dev": "region1", "type": "blk"})
    found = parse_listing(whole)
    assert found.locked == {"nmem0"}
    assert [region.name for region in found.regions] == ["region0"]


def test_dimms_with_what_they_say_of_themselves() -> None:
    whole = copy.deepcopy(load("several")["ndctl"])
    whole["dimms"][0] |= {
        "security": "unlocked",
        "flag_failed_flush": True,
        "flag_smart_event": True,
        "flag_failed_map": False,
        "health": {"health_state": "critical", "spares_percentage": 3},
    }
    whole["dimms"].append({"dev": "nmem1"})
    assert parse_listing(whole).dimms == (
        Dimm(
            "nmem0",
            "8680-56341200",
            4 << 30,
            "unlocked",
            ("failed flush", "smart event"),
            "critical",
            ("region0",),
        ),
        Dimm("nmem1", None, None, None, (), None, ()),
    )


def test_block_devices_of_namespaces() -> None:
    (region,) = parse_listing(load("several")["ndctl"]).regions
    assert {n.label: n.blockdev for n in region.namespaces if n.label} == {
        "tierd:pmem0": None,
        "second": None,
        "data": "pmem0.1",
        "log": "pmem0.2s",
        "plain": "pmem0.3",
    }


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("regions",), {}, "regions: expected an array"),
        (("regions", 0), "x", r"regions\[0\]: expected an object"),
        (("regions", 0, "dev"), 7, "dev: expected text"),
        (("regions", 0, "dev"), "", "dev: missing"),
        (("regions", 0, "iset_id"), "0x24", "iset_id: expected a number"),
        (("regions", 0, "iset_id"), True, "iset_id: expected a number"),
        (("regions", 0, "mappings", 0), None, "mappings: expected an object"),
        (("regions", 0, "namespaces"), "none", "namespaces: expected an array"),
        (("regions", 0, "namespaces", 0, "mode"), None, "mode: missing"),
        (("regions", 0, "namespaces", 1, "daxregion"), [], "daxregion: expected an object"),
        (("regions", 0, "namespaces", 1, "daxregion", "devices", 0, "chardev"), 1, "chardev: expected text"),
        (("dimms", 0), 3, "dimms: expected an object"),
        (("dimms", 0, "health"), "ok", "health: expected an object"),
        (("dimms", 0, "id"), 3, "id: expected text"),
    ],
)
def test_what_has_the_wrong_shape_is_named(path: tuple[Any, ...], value: object, place: str) -> None:
    whole = copy.deepcopy(load("devdax")["ndctl"])
    target = whole
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(MalformedError, match=place):
        parse_listing(whole)


leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.floats(allow_nan=False))
keys = st.sampled_from(
    ["regions", "dimms", "dev", "namespaces", "mappings", "iset_id", "daxregion", "mode", "type"]
)
documents = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


@given(documents)
def test_any_document_is_read_or_refused(document: object) -> None:
    try:
        found = parse_listing(document)
    except MalformedError:
        return
    assert all(
        region.name and (region.iset_id is None or 0 < region.iset_id < 1 << 64) for region in found.regions
    )


@given(st.data())
def test_cut_off_or_altered_text_is_never_taken_for_a_region_that_is_not_there(data: st.DataObject) -> None:
    text = bytearray(json.dumps(load("devdax")["ndctl"]).encode())
    if data.draw(st.booleans()):
        del text[data.draw(st.integers(0, len(text) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_listing(parse_json(bytes(text), "ndctl list"))
    except MalformedError:
        return
    assert len(found.regions) <= 1
