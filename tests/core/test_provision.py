"""Plans: every verdict, every refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.machines import (
    BLOCK,
    DRAM,
    GIB,
    MACHINE,
    MIB,
    REGION,
    REQUEST,
    SLOW,
    START,
    blocks,
    device,
    holding,
    kinds,
    namespace,
    with_region,
)
from tierd.core.inventory import Inventory, Span
from tierd.core.policy import ProvisionRequest
from tierd.core.provision import Action, Command, Setting, Verdict, plan
from tierd.core.provision_text import plan_document, plan_lines
from tierd.core.shares import plan_share


def test_free_capacity_becomes_a_namespace_and_then_memory() -> None:
    found = plan(MACHINE, REQUEST)
    assert found.verdict is Verdict.READY
    assert [step.action for step in found.steps] == [Action.CREATE_NAMESPACE, Action.SYSTEM_RAM]
    (create,) = found.steps[0].acts
    assert create == Command(
        ("ndctl", "create-namespace", "-r", "region0", "-s", str(1152 * MIB), "-m", "devdax", "-M", "mem")
        + ("-a", "2M", "-n", "tierd:pmem0", "--no-autolabel")
    )
    hold, convert, put_back = found.steps[1].acts
    path = "devices/system/memory/auto_online_blocks"
    assert (hold, put_back) == (Setting(path, "online_movable"), Setting(path, "online"))
    assert convert == Command(("daxctl", "reconfigure-device", "-m", "system-ram", "-N", "-f", "daxX.Y"))
    assert found.numbers is not None
    assert found.numbers.memory == GIB
    assert found.numbers.lost == 128 * MIB
    assert found.numbers.blocks == 8
    assert found.numbers.page_structures == 17 * MIB
    assert [bool(step.unrecoverable) for step in found.steps] == [False, True]


def test_the_policy_is_not_written_when_it_is_as_needed() -> None:
    found = plan(replace(MACHINE, online_policy="online_movable"), REQUEST)
    assert [type(act) for act in found.steps[1].acts] == [Command]


def test_all_takes_every_whole_block_that_is_left() -> None:
    found = plan(MACHINE, replace(REQUEST, size=None))
    assert found.numbers is not None
    assert found.numbers.memory == 31 * BLOCK
    assert found.numbers.namespace == 4 * GIB


def test_the_whole_region_asked_for_by_size_is_given_short_of_a_block_and_said_so() -> None:
    found = plan(MACHINE, replace(REQUEST, size=4 * GIB))
    assert found.verdict is Verdict.READY
    assert found.numbers is not None and found.numbers.memory == 31 * BLOCK
    assert any("4GiB is asked for" in note for note in found.notes)


def test_a_name_that_the_kernel_changed_is_still_found_by_its_label() -> None:
    found = plan(holding(namespace(name="namespace0.7", dax=device("kmem", blocks()))), REQUEST)
    assert found.verdict is Verdict.DONE


def test_done_runs_nothing() -> None:
    found = plan(holding(namespace(dax=device("kmem", blocks()))), REQUEST)
    assert (found.verdict, found.steps, found.refusals) == (Verdict.DONE, (), ())
    assert found.numbers is not None and found.numbers.page_structures == 0


def test_after_a_reboot_only_the_second_step_remains() -> None:
    found = plan(holding(namespace()), REQUEST)
    assert [step.action for step in found.steps] == [Action.SYSTEM_RAM]
    assert (
        Command(("daxctl", "reconfigure-device", "-m", "system-ram", "-N", "-f", "dax0.0"))
        in found.steps[0].acts
    )


def test_a_device_that_lost_its_driver_is_taken_up() -> None:
    assert plan(holding(namespace(dax=device(""))), REQUEST).verdict is Verdict.READY


def test_offline_blocks_are_brought_online_one_by_one() -> None:
    found = plan(holding(namespace(dax=device("kmem", blocks(offline=2)))), REQUEST)
    (step,) = found.steps
    assert step.action is Action.ONLINE_BLOCKS
    assert step.acts == (
        Setting("devices/system/memory/memory33/state", "online_movable"),
        Setting("devices/system/memory/memory34/state", "online_movable"),
    )


@pytest.mark.parametrize(("zone", "verdict"), [("Movable", Verdict.DONE), ("Normal", Verdict.REFUSED)])
def test_blocks_that_somebody_took_offline_stay_so(zone: str, verdict: Verdict) -> None:
    """All of it was online once: what is offline now is no work of tierd's that was left half done."""
    there = namespace(dax=device("kmem", blocks(zone=zone, offline=2)))
    assert there.uuid is not None
    found = plan(replace(holding(there), whole=frozenset({there.uuid})), REQUEST)
    assert found.verdict is verdict
    if verdict is Verdict.DONE:
        (note,) = found.notes
        assert note.startswith("2 blocks of dax0.0 taken offline by somebody else, and left so")


RAW = namespace(mode="raw", dax=None)


def test_what_a_killed_ndctl_began_is_finished() -> None:
    machine = replace(holding(RAW), unfinished=frozenset({("pmem0", 1152 * MIB)}))
    found = plan(machine, REQUEST)
    assert [step.action for step in found.steps] == [Action.FINISH_NAMESPACE, Action.SYSTEM_RAM]
    (finish,) = found.steps[0].acts
    assert isinstance(finish, Command) and finish.argv[:5] == (
        "ndctl",
        "create-namespace",
        "-e",
        "namespace0.0",
        "-f",
    )
    assert found.steps[0].unrecoverable


@pytest.mark.parametrize("unfinished", [frozenset(), {("other", 1152 * MIB)}, {("pmem0", 1136 * MIB)}])
def test_a_raw_namespace_that_is_not_in_the_record_is_not_touched(unfinished: set[tuple[str, int]]) -> None:
    found = plan(replace(holding(RAW), unfinished=frozenset(unfinished)), REQUEST)
    assert (found.verdict, kinds(found)) == (Verdict.REFUSED, ["mode"])


def test_a_namespace_without_size_is_given_one_when_the_record_says_it_is_ours() -> None:
    ours = replace(with_region(half_made=("namespace0.3",)), unfinished=frozenset({("pmem0", 1152 * MIB)}))
    (first, _) = plan(ours, REQUEST).steps
    assert first.action is Action.SIZE_NAMESPACE
    assert first.acts == (
        Setting("bus/nd/devices/namespace0.3/alt_name", "tierd:pmem0"),
        Setting("bus/nd/devices/namespace0.3/size", str(1152 * MIB)),
    )
    theirs = with_region(half_made=("namespace0.3",))
    assert plan(theirs, REQUEST).steps[0].action is Action.CREATE_NAMESPACE


REFUSED: dict[str, tuple[Inventory, ProvisionRequest, str]] = {
    "region-not-found": (MACHINE, replace(REQUEST, iset_id=0x1234), "0x2468ac00123456 (region0)"),
    "ambiguous-region": (
        replace(MACHINE, regions=(REGION, replace(REGION, name="region1"))),
        REQUEST,
        "region1",
    ),
    "ambiguous-label": (holding(namespace(), namespace(name="namespace0.1")), REQUEST, "tierd:pmem0"),
    "label-less": (with_region(labelled=False), REQUEST, "no labels"),
    "region-disabled": (with_region(enabled=False), REQUEST, "ndctl enable-region region0"),
    "read-only": (with_region(read_only=True), REQUEST, "read-only"),
    "locked": (with_region(locked=("nmem0",)), REQUEST, "nmem0"),
    "badblocks": (with_region(bad_blocks=2), REQUEST, "2 ranges"),
    "misaligned": (
        with_region(span=Span(START, 4 * GIB - 2 * MIB), available=4 * GIB - 2 * MIB),
        REQUEST,
        "16MiB",
    ),
    "not-settled": (with_region(available=3 * GIB), REQUEST, "counts 3GiB free"),
    "capacity": (MACHINE, replace(REQUEST, size=5 * GIB), "5GiB is asked for, 4GiB is free"),
    "one-tier": (
        replace(MACHINE, nodes=(DRAM, replace(SLOW, tier="memory_tier4"))),
        REQUEST,
        "memory_tier4 together with DRAM",
    ),
    "dram": (
        replace(MACHINE, nodes=(replace(DRAM, available=80 * MIB),)),
        REQUEST,
        "take 17MiB and 72MiB are to stay, 80MiB are available; ask for 384MiB or less, or stop what takes",
    ),
    "ratio": (
        replace(MACHINE, nodes=(replace(DRAM, total=120 * MIB, available=118 * MIB),)),
        REQUEST,
        "at most 896MiB more",
    ),
    "name-too-long": (MACHINE, replace(REQUEST, name="x" * 58), "57 bytes"),
    "label-elsewhere": (
        replace(
            MACHINE, regions=(REGION, replace(REGION, name="region1", iset_id=7, namespaces=(namespace(),)))
        ),
        REQUEST,
        "region1",
    ),
    "mode": (holding(namespace(mode="fsdax", dax=None)), REQUEST, "mode fsdax"),
    "disabled": (
        holding(namespace(enabled=False, dax=None)),
        REQUEST,
        "ndctl enable-namespace namespace0.0",
    ),
    "no-device": (holding(namespace(dax=None)), REQUEST, "device_dax"),
    "uuid": (
        replace(holding(namespace()), made=frozenset({("pmem0", "b0dfaf74-0d36-4fb5-ab8c-30aa87af6cb0")})),
        REQUEST,
        "made it anew",
    ),
    "missing-blocks": (holding(namespace(dax=device("kmem", blocks(6)))), REQUEST, "only 6 of 8"),
    "zone": (holding(namespace(dax=device("kmem", blocks(zone="Normal")))), REQUEST, "online in Normal"),
    "stuck": (holding(namespace(dax=device("device_dax", blocks()))), REQUEST, "a reboot frees them"),
    "too-small": (
        holding(
            namespace(
                span=Span(START, 160 * MIB),
                dax=replace(device(), span=Span(START + 2 * MIB, 158 * MIB)),
            )
        ),
        REQUEST,
        "no whole memory block",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_name_their_reason_and_run_nothing(kind: str) -> None:
    machine, request, words = REFUSED[kind]
    found = plan(machine, request)
    assert found.verdict is Verdict.REFUSED
    assert kinds(found) == [kind]
    assert words in found.refusals[0].words
    share = plan_share(machine, request)
    assert (share.verdict, share.next, [r.kind for r in share.refusals]) == (Verdict.REFUSED, None, [kind])
    assert words in share.refusals[0].words
    assert plan_document(share, "sysfs")["steps"] == []


def test_the_ratio_can_be_forced_and_nothing_else() -> None:
    machine, request, _ = REFUSED["ratio"]
    share = plan_share(machine, replace(request, force_ratio=True))
    assert share.verdict is Verdict.READY and not share.refusals
    assert any("is above 4:1" in note for note in share.notes)
    for kind in set(REFUSED) - {"ratio"}:
        machine, request, _ = REFUSED[kind]
        assert kinds(plan(machine, replace(request, force_ratio=True))) == [kind]


@pytest.mark.parametrize("target", [None, 0])
def test_memory_needs_a_node_of_its_own(target: int | None) -> None:
    found = plan(with_region(target_node=target), REQUEST)
    assert (found.verdict, kinds(found)) == (Verdict.REFUSED, ["target-node"])


def test_a_node_that_is_there_in_a_tier_of_its_own_is_used() -> None:
    assert plan(replace(MACHINE, nodes=(DRAM, SLOW)), REQUEST).verdict is Verdict.READY


def test_all_reasons_are_given_at_once() -> None:
    machine = with_region(read_only=True, bad_blocks=1, locked=("nmem0",), target_node=None, available=GIB)
    found = plan(machine, replace(REQUEST, name="x" * 60))
    assert set(kinds(found)) == {
        "read-only",
        "badblocks",
        "locked",
        "target-node",
        "not-settled",
        "name-too-long",
    }


def test_a_machine_without_persistent_memory_says_so() -> None:
    found = plan(replace(MACHINE, regions=()), REQUEST)
    assert "no region of persistent memory at all" in found.refusals[0].words
    nameless = plan(with_region(iset_id=None, labelled=False), REQUEST)
    assert "region0 has no labels" in nameless.refusals[0].words


@pytest.mark.parametrize("kind", [*REFUSED, ""])
def test_text_says_the_same_as_the_plan(kind: str) -> None:
    machine, request, _ = REFUSED.get(kind, (MACHINE, REQUEST, ""))
    found = plan_share(machine, request)
    text = "\n".join(plan_lines(found, "SYSFS"))
    assert text.startswith(f"{request.name}: {found.verdict}")
    assert all(refusal.words in text for refusal in found.refusals)
    assert ("ndctl create-namespace" in text) is (found.verdict is Verdict.READY)
    if found.verdict is Verdict.READY:
        assert "becomes 1GiB in 8 blocks, node 1" in text
        assert "echo online_movable > SYSFS/devices/system/memory/auto_online_blocks" in text


def test_the_plan_says_what_cannot_be_read_back_and_from_when_on() -> None:
    words = "nothing of the 1152MiB of the namespace can be read back, also what was left there by"
    new = plan_share(MACHINE, REQUEST)
    assert f"  no return   from step 2 on {words}" in "\n".join(plan_lines(new, "SYSFS"))
    (found,) = plan_document(new, "SYSFS")["unrecoverable"]  # type: ignore[misc]
    assert found["from_step"] == 2 and found["words"].startswith(words)

    waiting = plan_share(holding(namespace()), REQUEST)
    assert "from step 1 on nothing of the 1152MiB of dax0.0" in "\n".join(plan_lines(waiting, "SYSFS"))

    # memory already: nothing is there that could be lost
    for nothing_lost in (
        plan_share(holding(namespace(dax=device("kmem", blocks(offline=2)))), REQUEST),
        plan_share(holding(namespace(dax=device("kmem", blocks()))), REQUEST),
        plan_share(with_region(read_only=True), REQUEST),
    ):
        assert "no return" not in "\n".join(plan_lines(nothing_lost, "SYSFS"))
        assert plan_document(nothing_lost, "SYSFS")["unrecoverable"] == []


ALTER: list[Callable[[Inventory], Inventory]] = [
    lambda m: with_region(m, labelled=False),
    lambda m: with_region(m, read_only=True),
    lambda m: with_region(m, bad_blocks=3),
    lambda m: with_region(m, locked=("nmem0",)),
    lambda m: with_region(m, enabled=False),
    lambda m: replace(m, nodes=(*m.nodes, replace(SLOW, kernel_memory=True))),
    lambda m: replace(m, nodes=(replace(DRAM, available=0), *m.nodes[1:])),
]


@given(st.lists(st.sampled_from(ALTER), min_size=1, max_size=5, unique_by=id), st.booleans())
def test_nothing_wrong_is_ever_ready(changes: list[Callable[[Inventory], Inventory]], exists: bool) -> None:
    machine = holding(namespace()) if exists else MACHINE
    for change in changes:
        machine = change(machine)
    found = plan(machine, REQUEST)
    assert found.verdict is Verdict.REFUSED
    # a second node of kernel memory is DRAM too, and mends what DRAM is short of
    assert len(changes) - 1 <= len(found.refusals) <= len(changes)


def test_what_daxctl_is_to_reconfigure_is_left_to_it() -> None:
    place = "/etc/daxctl.conf.d/a.conf, line 2"
    found = plan(holding(namespace(claimed=place)), REQUEST)
    assert kinds(found) == ["claimed"] and place in found.refusals[0].words
    done = plan(holding(namespace(claimed=place, dax=device("kmem", blocks()))), REQUEST)
    assert done.verdict is Verdict.DONE and place in done.notes[0]


def test_too_little_dram_says_what_it_is_enough_for() -> None:
    scarce = replace(MACHINE, nodes=(replace(DRAM, available=80 * MIB),))
    assert plan(scarce, replace(REQUEST, size=384 * MIB)).verdict is Verdict.READY
    assert plan(scarce, replace(REQUEST, size=512 * MIB)).verdict is Verdict.REFUSED
    none = replace(MACHINE, nodes=(replace(DRAM, available=73 * MIB),))
    (refusal,) = plan(none, REQUEST).refusals
    assert "available; not even one memory block can be had, so stop what takes DRAM" in refusal.words
