"""What tierd could do with each part: as the plan and the refusals say it, in the same words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.core.machines import (
    BLOCK,
    DRAM,
    GIB,
    MACHINE,
    MIB,
    REGION,
    REQUEST,
    SLOW,
    blocks,
    device,
    holding,
    namespace,
    with_region,
)
from tierd.core import picture
from tierd.core.inventory import Inventory, MemoryBlock
from tierd.core.picture import DaxView, Picture, Prospect
from tierd.core.picture_text import picture_document
from tierd.core.provision import Verdict, plan

OTHERS = namespace(label="data", mode="fsdax", dax=None)


def seen(inventory: Inventory | None = MACHINE, **changes: object) -> Picture:
    found = Picture(
        listed=True,
        dimms=(),
        inventory=inventory,
        sizes={},
        block_devices={},
        dax=(),
        users={},
        blocks=(),
        nodes=inventory.nodes if inventory else (),
        tiers=(),
        blind=False,
        unseen=(),
        faults=(),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def kinds(prospect: Prospect | None) -> list[str]:
    assert prospect is not None
    return [reason.kind for reason in prospect.reasons]


def test_a_free_region_could_become_what_the_plan_for_all_of_it_says() -> None:
    found = picture.of_region(MACHINE, REGION)
    numbers = plan(MACHINE, replace(REQUEST, size=None)).numbers
    assert numbers is not None and found.verdict is Verdict.READY and found.reasons == ()
    assert (found.memory, found.blocks, found.lost) == (numbers.memory, numbers.blocks, numbers.lost)
    assert found.page_structures == numbers.page_structures


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"labelled": False}, "label-less"),
        ({"read_only": True}, "read-only"),
        ({"bad_blocks": 2}, "badblocks"),
        ({"target_node": 0}, "target-node"),
        ({"available": 0, "namespaces": (replace(OTHERS, span=REGION.span),)}, "capacity"),
    ],
)
def test_a_region_is_refused_in_the_words_of_the_plan(changes: dict[str, Any], kind: str) -> None:
    machine = with_region(**changes)
    found = picture.of_region(machine, machine.regions[0])
    assert found.verdict is Verdict.REFUSED and kinds(found) == [kind]
    assert found.reasons == plan(machine, replace(REQUEST, size=None)).refusals


def test_a_region_without_iset_id_has_its_own_reasons_and_not_those_of_a_request() -> None:
    machine = with_region(iset_id=None, labelled=False)
    assert kinds(picture.of_region(machine, machine.regions[0])) == ["label-less"]
    machine = with_region(iset_id=None)
    assert kinds(picture.of_region(machine, machine.regions[0])) == ["no-iset-id"]


def test_who_may_not_see_enough_is_told_what_is_certain_and_no_more() -> None:
    hidden = replace(REGION, span=None)
    assert picture.of_region(MACHINE, hidden, blind=True) == Prospect(None)
    read_only = picture.of_region(MACHINE, replace(hidden, read_only=True), blind=True)
    assert (read_only.verdict, kinds(read_only)) == (Verdict.REFUSED, ["read-only"])
    ours = picture.of_namespace(MACHINE, hidden, namespace(span=None, dax=None), blind=True)
    assert ours == Prospect(None, request="pmem0")
    assert kinds(picture.of_namespace(MACHINE, hidden, OTHERS, blind=True)) == ["not-ours"]


def test_namespaces_of_ours_and_of_others() -> None:
    ours = namespace(dax=device("kmem", blocks()))
    machine = holding(ours)
    found = picture.of_namespace(machine, machine.regions[0], ours)
    assert (found.verdict, found.request, found.reasons) == (Verdict.DONE, "pmem0", ())
    assert (found.memory, found.blocks, found.lost, found.page_structures) == (GIB, 8, 128 * MIB, 17 * MIB)

    waiting = namespace()
    machine = holding(waiting)
    assert picture.of_namespace(machine, machine.regions[0], waiting).verdict is Verdict.READY

    raw = namespace(mode="raw", dax=None)
    machine = holding(raw)
    assert kinds(picture.of_namespace(machine, machine.regions[0], raw)) == ["mode"]

    machine = holding(OTHERS)
    found = picture.of_namespace(machine, machine.regions[0], OTHERS)
    assert (found.verdict, kinds(found), found.request) == (Verdict.REFUSED, ["not-ours"], None)


def view(driver: str, name: str | None = None, **changes: object) -> DaxView:
    found = DaxView("dax1.0", GIB, driver, 1, name, device(driver, blocks() if driver == "kmem" else ()))
    return replace(found, **changes)  # type: ignore[arg-type]


def test_dax_devices_that_no_namespace_has() -> None:
    found = picture.of_device(seen(), view("device_dax"))
    assert kinds(found) == ["no-region"] and found is not None and found.verdict is Verdict.REFUSED
    found = picture.of_device(seen(), view("kmem"))
    assert found is not None and found.verdict is Verdict.DONE and found.reasons == ()
    assert (found.memory, found.blocks, found.page_structures) == (GIB, 8, 17 * MIB)
    fixed = view("kmem", device=device("kmem", blocks(zone="Normal")))
    assert kinds(picture.of_device(seen(), fixed)) == ["zone"]
    assert picture.of_device(seen(), view("kmem", device=None)) == Prospect(Verdict.DONE)
    # the namespace says it, or nobody can
    assert picture.of_device(seen(), view("kmem", "namespace0.0")) is None
    assert picture.of_device(seen(listed=False), view("device_dax")) is None


def test_a_node_in_one_tier_with_dram_is_of_no_use() -> None:
    shared = seen(nodes=(DRAM, replace(SLOW, tier=DRAM.tier)))
    assert picture.of_node(shared, shared.nodes[1]) == "it is in memory_tier4 together with DRAM"
    assert picture.of_node(shared, DRAM) is None
    apart = seen(nodes=(DRAM, SLOW))
    assert picture.of_node(apart, SLOW) is None


def test_the_document_names_users_and_says_things_in_words() -> None:
    ours = namespace(dax=device("kmem", blocks()))
    others = replace(OTHERS, name="namespace0.10", span=replace(REGION.span, start=6 * GIB, size=GIB))
    machine = holding(ours, others, bad_blocks=0)
    document = picture_document(
        seen(
            machine,
            block_devices={"namespace0.10": "pmem0"},
            dax=(replace(view("kmem", "namespace0.0", device=ours.dax), name="dax0.0"),),
            users={"pmem0": ("ext4 at /srv",), "dax0.0": ()},
            sizes={"region0": 4 * GIB, "namespace0.0": 1152 * MIB, "namespace0.10": GIB},
            blocks=blocks(),
        )
    )
    first, second = document["namespaces"]
    assert (first["name"], first["device"]) == ("namespace0.0", "dax0.0")
    assert first["users"] == ["the kernel, as memory of node 1"]
    assert first["could"]["words"] == (
        "it is memory already, made by tierd as pmem0: 1.0 GiB in 8 blocks of node 1, 128 MiB lost to"
        " alignment, 17 MiB of DRAM for page structures"
    )
    assert (second["device"], second["users"]) == ("pmem0", ["ext4 at /srv"])
    assert second["could"]["reasons"][0]["kind"] == "not-ours"
    assert document["regions"][0]["could"]["verdict"] == "ready"
    assert document["memory_blocks"]["runs"] == [
        {"first": 33, "count": 8, "online": True, "zone": "Movable", "node": 1, "device": "dax0.0"}
    ]
    assert document["memory_blocks"]["block_size"] == BLOCK


def test_a_machine_without_anything_has_an_empty_document() -> None:
    document = picture_document(seen(None, blocks=(MemoryBlock(0, True, "Normal", 0),)))
    assert document["regions"] == document["namespaces"] == document["dax_devices"] == []
    assert document["memory_blocks"]["block_size"] is None
    assert len(document["memory_blocks"]["runs"]) == 1
