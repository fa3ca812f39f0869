"""Shares of a region: what grows, what is given back, and what a model of the kernel makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.machines import BLOCK, DRAM, GIB, MIB, REGION, START
from tests.core.simulated_shares import LARGE, Kernel, ask
from tierd.core.capacity import page_structures, why_unfit
from tierd.core.drain import plan_drain
from tierd.core.foresight import with_made, without
from tierd.core.inventory import DaxDevice, Inventory, MemoryBlock, MemoryNode, Namespace, Span
from tierd.core.policy import ProvisionRequest
from tierd.core.provision import Action, Verdict
from tierd.core.provision_text import plan_document, plan_lines
from tierd.core.share_plan import slices_of
from tierd.core.shares import MOST_SLICES, plan_share


@pytest.mark.parametrize(
    ("request_", "memory"),
    [
        (ask(GIB), GIB),
        (ask(GIB + 1), GIB + BLOCK),
        (ask(per_cent=50.0), 2 * GIB),
        (ask(per_cent=0.01), BLOCK),
        (ask(per_cent=100.0), 31 * BLOCK),
        (ask(all_but=GIB), 23 * BLOCK),
        (ask(all_but=0), 31 * BLOCK),
        (ask(None), 31 * BLOCK),
        (ask(0), 0),
    ],
)
def test_every_way_to_ask(request_: ProvisionRequest, memory: int) -> None:
    kernel = Kernel()
    predicted = plan_share(kernel.machine, request_).numbers
    assert kernel.run(request_).verdict is Verdict.DONE
    assert kernel.memory() == memory
    assert predicted is not None and predicted.memory == memory
    assert predicted.rest == 4 * GIB - kernel.held()
    assert predicted.page_structures == page_structures(memory)


def test_it_grows_by_one_more_slice_and_loses_one_block() -> None:
    kernel = Kernel()
    kernel.run(ask(GIB))
    found = plan_share(kernel.machine, ask(2 * GIB))
    assert [step.action for step in found.steps] == [Action.CREATE_NAMESPACE, Action.SYSTEM_RAM]
    assert [part.request.name for part in found.parts] == ["pmem0", "pmem0+2"]
    assert found.numbers is not None
    assert (found.numbers.online, found.numbers.memory) == (GIB, 2 * GIB)
    assert (found.numbers.lost_now, found.numbers.lost) == (BLOCK, 2 * BLOCK)
    assert found.numbers.page_structures == page_structures(GIB)
    kernel.run(ask(2 * GIB))
    assert kernel.memory() == 2 * GIB


def test_it_shrinks_by_the_slice_that_is_just_right() -> None:
    kernel = Kernel()
    for size in (4, 7, 10):
        kernel.run(ask(size * BLOCK))
    assert [n.label for n in kernel.machine.regions[0].namespaces] == [
        "tierd:pmem0",
        "tierd:pmem0+2",
        "tierd:pmem0+3",
    ]
    found = plan_share(kernel.machine, ask(6 * BLOCK))
    assert [part.request.name for part in found.changes] == ["pmem0"]
    assert [s.action for s in found.steps] == [
        Action.OFFLINE_BLOCKS,
        Action.DEVDAX,
        Action.DESTROY_NAMESPACE,
    ]
    assert found.numbers is not None and found.numbers.drained == 4 * BLOCK
    assert found.numbers.page_structures == -page_structures(4 * BLOCK)
    assert [bool(step.unrecoverable) for step in found.steps] == [False, False, True]
    kernel.run(ask(6 * BLOCK))
    assert kernel.memory() == 6 * BLOCK


def test_a_smaller_slice_is_made_before_the_large_one_goes() -> None:
    kernel = Kernel()
    kernel.run(ask(8 * BLOCK))
    found = plan_share(kernel.machine, ask(5 * BLOCK))
    assert [(p.request.name, p.steps[0].action) for p in found.changes] == [
        ("pmem0+2", Action.CREATE_NAMESPACE),
        ("pmem0", Action.OFFLINE_BLOCKS),
    ]
    kernel.steps.clear()
    kernel.run(ask(5 * BLOCK))
    assert [s.action for s in kernel.steps] == [step.action for step in found.steps]
    assert kernel.memory() == 5 * BLOCK


def test_without_room_for_that_the_large_one_goes_first() -> None:
    kernel = Kernel()
    kernel.run(ask(None))
    found = plan_share(kernel.machine, ask(GIB))
    assert [(p.request.name, p.steps[0].action) for p in found.changes] == [
        ("pmem0", Action.OFFLINE_BLOCKS),
        ("pmem0", Action.CREATE_NAMESPACE),
    ]
    kernel.run(ask(GIB))
    assert kernel.memory() == GIB


def test_what_is_in_use_must_have_a_place() -> None:
    kernel = Kernel()
    kernel.run(ask(None))
    used = replace(kernel.machine.nodes[1], available=GIB)
    full = replace(kernel.machine, nodes=(replace(DRAM, available=2 * GIB), used))
    found = plan_share(full, ask(GIB))
    assert (found.verdict, found.next) == (Verdict.REFUSED, None)
    assert [r.kind for r in found.refusals] == ["room"]
    assert "2944MiB that is in use on node 1 would have no place" in found.refusals[0].words
    # half of it can stay where it is
    half = replace(
        full, nodes=(replace(DRAM, available=2 * GIB), replace(used, available=2 * GIB + 900 * MIB))
    )
    assert plan_share(half, ask(GIB)).verdict is Verdict.READY


@pytest.mark.parametrize("more", [0, 512 * MIB])
def test_several_slices_that_go_do_not_share_one_place(more: int) -> None:
    kernel = Kernel()
    kernel.run(ask(GIB))
    kernel.run(ask(2 * GIB))
    # 1.5 GiB is in use: for each slice alone others have room, for both they have not
    dram = MemoryNode(0, 4 * GIB, 1485 * MIB + more, True, True, "memory_tier4")
    slow = MemoryNode(1, 2 * GIB, 512 * MIB, False, False, "memory_tier56", True)
    machine = replace(kernel.machine, nodes=(dram, slow))
    found, drained = plan_share(machine, ask(0)), plan_drain(machine, machine.regions[0])
    assert len(found.changes) == 2 and found.verdict is drained.verdict
    if more:
        assert found.verdict is Verdict.READY
    else:
        assert [r.kind for r in found.refusals] == ["room"] and found.next is None
    # one alone has a place
    assert plan_share(machine, ask(GIB)).verdict is Verdict.READY


def test_a_slice_that_goes_is_reckoned_to_fill_dram_first() -> None:
    kernel = Kernel()
    kernel.run(ask(GIB))
    dram = MemoryNode(0, 4 * GIB, 756 * MIB, True, True, "memory_tier4")
    slow = MemoryNode(1, GIB, 24 * MIB, False, False, None, True)
    other = MemoryNode(2, 4 * GIB, 3 * GIB, False, False, None, True)
    machine = replace(kernel.machine, nodes=(dram, slow, other))
    region = machine.regions[0]
    after, _ = without(machine, region, region.namespaces[0])
    given = page_structures(GIB)
    assert [n.available for n in after.nodes] == [256 * MIB + given, 0, 3 * GIB - 600 * MIB]


@pytest.mark.parametrize("lost", ["made", "uuid"])
def test_what_the_record_does_not_name_is_not_given_back(lost: str) -> None:
    kernel = Kernel()
    kernel.run(ask(GIB))
    stranger = frozenset() if lost == "made" else frozenset({("pmem0", "another")})
    found = plan_share(replace(kernel.machine, made=stranger), ask(0))
    assert found.verdict is Verdict.REFUSED and found.next is None
    assert [r.kind for r in found.refusals] == ["not-ours"]


def changed(**changes: object) -> Inventory:
    """A machine with one slice, and something about its namespace that is not as it should be."""
    kernel = Kernel()
    kernel.run(ask(GIB))
    (namespace,) = kernel.machine.regions[0].namespaces
    region = replace(kernel.machine.regions[0], namespaces=(replace(namespace, **changes),))  # type: ignore[arg-type]
    return replace(kernel.machine, regions=(region,))


def device(driver: str, zone: str) -> DaxDevice:
    blocks = tuple(MemoryBlock(33 + i, True, zone, 1) for i in range(8))
    return DaxDevice("dax0.0", Span(START + 2 * MIB, 1150 * MIB), driver, 1, blocks)


@pytest.mark.parametrize(
    ("machine", "kind"),
    [
        (changed(mode="fsdax", dax=None), "mode"),
        (changed(enabled=False), "mode"),
        (changed(dax=device("kmem", "Normal")), "zone"),
        (changed(dax=device("device_dax", "Movable")), "stuck"),
    ],
)
def test_nothing_doubtful_is_given_back(machine: Inventory, kind: str) -> None:
    found = plan_share(machine, ask(0))
    assert (found.verdict, found.next) == (Verdict.REFUSED, None)
    assert [r.kind for r in found.refusals] == [kind]


def test_what_was_begun_to_be_given_back_is_given_back_whatever_it_is_now() -> None:
    torn = changed(mode="raw", dax=None, uuid="ab", label_uuid="cd")
    begun = replace(torn, condemned=frozenset({("pmem0", "cd")}))
    found = plan_share(begun, ask(GIB))
    assert [p.steps[0].action for p in found.changes] == [Action.DESTROY_NAMESPACE, Action.CREATE_NAMESPACE]
    assert plan_share(replace(begun, condemned=frozenset({("pmem0", "ef")})), ask(GIB)).next is None


def test_labels_of_others_are_no_slices() -> None:
    names = [
        "tierd:pmem0",
        "tierd:pmem0+2",
        "tierd:pmem0+1",
        "tierd:pmem0+02",
        "tierd:pmem00",
        "tierd:pmem0+x",
    ]
    found = tuple(Namespace(f"n{i}", None, label, "devdax", True, None) for i, label in enumerate(names))
    region = replace(REGION, namespaces=found)
    assert [(number, n.label) for number, n in slices_of(region, ask())] == [(1, names[0]), (2, names[1])]


def test_more_than_there_is_is_refused_and_what_is_there_is_brought_up() -> None:
    kernel = Kernel()
    kernel.run(ask(GIB))
    kernel.change(lambda b: replace(b, online=b.number != 40))
    found = plan_share(kernel.machine, ask(5 * GIB))
    assert found.verdict is Verdict.REFUSED
    assert found.next is not None and found.next.steps[0].action is Action.ONLINE_BLOCKS
    text = "\n".join(plan_lines(found, "sysfs"))
    assert "only what is there already is brought up" in text and "create-namespace" not in text
    kernel.change(lambda b: replace(b, online=True))
    assert plan_share(kernel.machine, ask(5 * GIB)).next is None


def test_no_more_slices_are_made_than_can_be_numbered() -> None:
    region = replace(REGION, span=Span(START, 64 * GIB), available=64 * GIB)
    dram = replace(DRAM, total=200 * GIB, available=190 * GIB)
    kernel = Kernel(replace(LARGE, regions=(region,), nodes=(dram,)))
    for count in range(1, MOST_SLICES + 1):
        kernel.run(ask(count * BLOCK))
    assert len(kernel.machine.regions[0].namespaces) == MOST_SLICES
    for more in (ask(100 * BLOCK), ask(200 * BLOCK), ask(per_cent=90.0), ask(all_but=GIB)):
        found = plan_share(kernel.machine, more)
        assert [r.kind for r in found.refusals] == ["too-many-slices"] and found.next is None
        assert "`tierctl provision set pmem0 none`" in found.refusals[0].words
    # what they hold can be asked for, and all of it can be given back
    assert plan_share(kernel.machine, ask(MOST_SLICES * BLOCK)).verdict is Verdict.DONE
    assert plan_share(kernel.machine, ask(0)).verdict is Verdict.READY
    # a region that holds no more says so, with as many slices
    full = with_free(kernel.machine, 0)
    found = plan_share(full, ask(200 * BLOCK))
    assert [r.kind for r in found.refusals] == ["capacity"]


def with_free(machine: Inventory, free: int) -> Inventory:
    """The same where a stranger holds all of the region but `free` bytes at its end."""
    (region,) = machine.regions
    assert region.span is not None
    taken = max((n.span.end for n in region.namespaces if n.span is not None), default=region.span.start)
    span = Span(taken, region.span.end - taken - free)
    other = Namespace("namespace0.999", "x", "data", "fsdax", True, span)
    return with_made(machine, region, other, 0)[0]


def test_one_block_short_by_alignment_is_done_and_said() -> None:
    kernel = Kernel()
    found = kernel.run(ask(4 * GIB))
    assert found.verdict is Verdict.DONE
    assert found.notes == ("4GiB is asked for; what is free gives 3968MiB in whole blocks of 128MiB",)


def test_no_room_says_which_of_its_reasons_it_is() -> None:
    kernel = Kernel()
    kernel.run(ask(None))
    (refusal,) = plan_share(kernel.machine, ask(all_but=4 * GIB - 200 * MIB)).refusals
    assert refusal.words == (
        "not enough free capacity in region0: 200MiB is asked for, 4GiB is free in one piece; a namespace of"
        " that size has no whole memory block of 128MiB in it: the smallest that has one takes 256MiB"
    )


@pytest.mark.parametrize(
    ("longest", "size", "words"),
    [
        (200 * MIB, None, ", in which no whole memory block of 128MiB fits"),
        (200 * MIB, 128 * MIB, ", in which no whole memory block of 128MiB fits"),
        (1 * GIB, 129 * MIB, "; a namespace of that size has no whole memory block of 128MiB in it: the"),
        (1 * GIB, 1 * GIB, ", of which 896MiB is whole memory blocks"),
    ],
)
def test_why_what_is_free_in_one_piece_does_not_do(longest: int, size: int | None, words: str) -> None:
    found = why_unfit((Span(4 * GIB, longest),), size, BLOCK, 16 * MIB)
    assert found.startswith(words)


def test_the_text_has_the_numbers_of_a_change() -> None:
    kernel = Kernel()
    kernel.run(ask(8 * BLOCK))
    found = plan_share(kernel.machine, ask(all_but=3 * GIB + 384 * MIB))
    text = "\n".join(plan_lines(found, "sysfs"))
    assert "asked       all but 3456MiB of iset_id" in text
    assert "memory      becomes 512MiB in 4 blocks, node 1 (512MiB less than now)" in text
    assert "lost        128MiB of 640MiB to alignment" in text
    assert "the rest    3456MiB of 4GiB stays for others" in text
    assert "DRAM freed  9MiB of page structures" in text
    assert "drained     up to 1GiB in use move to other memory first" in text
    assert "no return   from step 2 on nothing of the 640MiB of the namespace" in text
    assert "no return   from step 5 on nothing of the 1152MiB of namespace0.0 can be read back," in text
    document = plan_document(found, "sysfs")
    assert document["asked"] == "all but 3456MiB"


requests = st.one_of(
    st.integers(0, 30 * BLOCK).map(ask),
    st.integers(0, 10_000).map(lambda n: ask(per_cent=n / 100)),
    st.integers(0, 4 * GIB).map(lambda n: ask(all_but=n)),
)
others = st.lists(st.tuples(st.integers(0, 255), st.integers(1, 64)), max_size=3)


@settings(deadline=None)
@given(st.lists(requests, min_size=1, max_size=5), others)
def test_any_sequence_of_changes_ends_as_asked(
    wishes: list[ProvisionRequest], taken: list[tuple[int, int]]
) -> None:
    kernel = Kernel()
    for start, size in taken:
        span = Span(START + start * 16 * MIB, min(size, 256 - start) * 16 * MIB)
        region = kernel.machine.regions[0]
        if all(
            n.span is None or n.span.end <= span.start or span.end <= n.span.start for n in region.namespaces
        ):
            other = Namespace(f"other{start}", "x", "data", "fsdax", True, span)
            kernel.machine, _ = with_made(kernel.machine, region, other, 0)
    strangers = [n for n in kernel.machine.regions[0].namespaces if n.label == "data"]
    foreign = sum(n.span.size for n in strangers if n.span is not None)
    for wish in wishes:
        predicted = plan_share(kernel.machine, wish)
        before = kernel.memory()
        kernel.steps.clear()
        found = kernel.run(wish)
        if found.verdict is Verdict.REFUSED:
            assert [r.kind for r in found.refusals] == ["capacity"]
            assert kernel.memory() == before
            continue
        assert found.numbers is not None and predicted.numbers is not None
        assert found.verdict is Verdict.DONE
        # what was predicted has come, in the steps that were shown
        assert predicted.numbers.memory == kernel.memory()
        assert [s.action for s in kernel.steps] == [s.action for s in predicted.steps]
        assert predicted.numbers.page_structures == page_structures(kernel.memory() - before)
        # it is what was asked for, or all that could be had
        if wish.all_but is not None:
            assert kernel.held() - foreign <= max(0, 4 * GIB - wish.all_but)
        elif found.numbers.asked is not None:
            assert kernel.memory() <= found.numbers.asked
            assert kernel.memory() == found.numbers.asked or found.notes
        # one block for each piece of the region that was newly taken, and no more
        made = sum(step.action is Action.CREATE_NAMESPACE for step in kernel.steps)
        assert found.numbers.lost - predicted.numbers.lost_now <= made * BLOCK
        # others keep what they have
        now = [n for n in kernel.machine.regions[0].namespaces if n.label == "data"]
        assert now == strangers
        assert plan_share(kernel.machine, wish).next is None


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_a_change_makes_one_slice_where_the_free_capacity_is_in_one_piece(sizes: list[int]) -> None:
    kernel = Kernel()
    for size in sizes:
        kernel.steps.clear()
        lost = kernel.held() - kernel.memory()
        kernel.run(ask(size * BLOCK))
        made = sum(step.action is Action.CREATE_NAMESPACE for step in kernel.steps)
        extents = 1 + len(kernel.machine.regions[0].namespaces)
        assert made <= extents
        if made <= 1:
            assert kernel.held() - kernel.memory() - lost <= BLOCK


def test_a_killed_change_is_finished_from_any_step() -> None:
    """Each state between two steps is planned from as if nothing else were known."""
    for wish in (5 * BLOCK, 0, 12 * BLOCK):
        kernel = Kernel()
        kernel.run(ask(8 * BLOCK))
        for _ in range(20):
            found = plan_share(kernel.machine, ask(wish))
            if found.next is None:
                break
            kernel.take(found.next.request.name, found.next.steps[0])
            other = Kernel(kernel.machine)
            other.made = kernel.made
            assert other.run(ask(8 * BLOCK)).verdict is Verdict.DONE
            assert other.memory() == 8 * BLOCK
        assert kernel.memory() == wish


@pytest.mark.parametrize(("gib", "warned"), [(1, False), (3, True)])
def test_much_slow_memory_behind_dram_is_warned_of(gib: int, warned: bool) -> None:
    nodes = (replace(DRAM, total=512 * MIB, available=400 * MIB),)
    found = plan_share(replace(Kernel().machine, nodes=nodes), ask(gib * GIB))
    told = [note for note in found.notes if "behind 512 MiB of DRAM is above 4:1" in note]
    assert bool(told) is warned and found.verdict is not Verdict.DONE
