"""Namespaces that exist: what makes memory of them, and every reason that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.machines import BLOCK, DRAM, ISET, MIB, START, device, holding, with_region
from tierd.core.any_plan import any_plan_document, any_plan_lines
from tierd.core.consent import ROOM, NamespacePlan, plan_namespace
from tierd.core.evidence import UNKNOWN_DATA, Content, Evidence, Witness, find_target, finding
from tierd.core.inventory import Inventory, MemoryBlock, Namespace, Span, Taken, Use
from tierd.core.policy import NamespaceRequest, ProvisionMode
from tierd.core.provision import Action, Command, Verdict

UUID = "3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1"
LABEL_UUID = "aaaaaaaa-0b7d-4c1e-9a52-7d1f0c9be6a1"
REQUEST = NamespaceRequest("old", UUID, "ext4", ProvisionMode.APPLY)
HELD = Namespace("namespace0.1", UUID, "store", "fsdax", True, Span(START, 1152 * MIB), None, LABEL_UUID)
MACHINE = holding(HELD)
EXT4 = Evidence(
    device="pmem0.1",
    witnesses=(Witness("blkid", "ext4"), Witness("udev", "ext4")),
    content=Content.DATA,
    allow_file="/etc/tierd/allow-convert.d/UUID",
    allowed="",
    room=ROOM,
)
EMPTY = replace(EXT4, witnesses=(Witness("blkid"), Witness("udev")), content=Content.ZEROS)
TAKEN = Taken(
    "old", UUID, LABEL_UUID, ISET, 1152 * MIB, 8 * BLOCK, "ext4", Span(4 * MIB, 1148 * MIB), "kept", False
)


def ask(
    evidence: Evidence | None = EXT4, request: NamespaceRequest = REQUEST, machine: Inventory = MACHINE
) -> NamespacePlan:
    return plan_namespace(machine, request, evidence)


def kinds(found: NamespacePlan) -> set[str]:
    return {refusal.kind for refusal in found.refusals}


def held(**changes: object) -> Inventory:
    return holding(replace(HELD, **changes))  # type: ignore[arg-type]


def test_with_everything_in_order_it_is_given_up_and_made_anew() -> None:
    found = ask()
    assert found.verdict is Verdict.READY
    steps = found.steps
    assert [s.action for s in steps] == [Action.TAKE_NAMESPACE, Action.CREATE_NAMESPACE, Action.SYSTEM_RAM]
    destroy = ("ndctl", "destroy-namespace", "-r", "region0", "-f", "namespace0.1")
    assert steps[0].acts == (Command(destroy),)
    create = steps[1].acts[0]
    assert isinstance(create, Command)
    assert ("-s", str(1152 * MIB)) == create.argv[4:6] and "tierd:old" in create.argv
    assert found.numbers is not None and found.numbers.memory == 8 * BLOCK


def test_the_ratio_can_be_forced() -> None:
    little = replace(MACHINE, nodes=(replace(DRAM, total=100 * MIB, available=98 * MIB),))
    assert kinds(ask(machine=little)) == {"ratio"}
    forced = replace(REQUEST, force_ratio=True)
    assert ask(request=forced, machine=little).verdict is Verdict.READY
    begun = replace(little, regions=with_region().regions, taken=(TAKEN,))
    assert kinds(ask(None, machine=begun)) == {"ratio"}
    assert ask(None, forced, begun).verdict is Verdict.READY


def test_the_plan_names_the_point_of_no_return() -> None:
    lines = any_plan_lines(ask(), "/sys")
    assert "  consent     {destroy: ext4}" in lines and "  holds       ext4" in lines
    (first, second) = [line for line in lines if line.startswith("  no return")]
    assert first.startswith(
        "  no return   from step 1 on nothing of the 1152MiB of namespace0.1 can be had back"
    )
    assert "which holds ext4" in first and "from step 3" in second
    document = any_plan_document(ask(), "/sys")
    assert document["holds"] == "ext4" and document["consent"] == {"destroy": "ext4"}


@pytest.mark.parametrize(
    ("consent", "evidence", "ready"),
    [
        ("ext4", EXT4, True),
        ("", EMPTY, True),
        (UNKNOWN_DATA, replace(EMPTY, content=Content.DATA), True),
        ("", EXT4, False),
        ("xfs", EXT4, False),
        ("EXT4", EXT4, False),
        (UNKNOWN_DATA, EXT4, False),
        ("ext4", EMPTY, False),
        (UNKNOWN_DATA, EMPTY, False),
        ("", replace(EMPTY, content=Content.DATA), False),
    ],
)
def test_the_consent_is_to_what_is_there(consent: str, evidence: Evidence, ready: bool) -> None:
    found = ask(evidence, replace(REQUEST, consent=consent))
    assert kinds(found) == (set() if ready else {"consent"})
    if not ready:
        assert "`consent: " in found.refusals[0].words


@pytest.mark.parametrize("evidence", [EXT4, EMPTY])
def test_without_consent_it_says_what_is_there_and_what_to_write(evidence: Evidence) -> None:
    found = ask(evidence, replace(REQUEST, consent=None))
    assert kinds(found) == {"no-consent"}
    written = "{destroy: ext4}" if evidence is EXT4 else "destroy"
    assert f"`consent: {written}` is consent" in found.refusals[0].words


@pytest.mark.parametrize(("mode", "why"), [("raw", "forced into raw mode"), ("fsdax", "copied into it")])
def test_the_header_of_another_namespace_is_named(mode: str, why: str) -> None:
    found = ask(replace(EXT4, info_block="btt"), machine=held(mode=mode))
    (refusal,) = (r for r in found.refusals if r.kind == "info-block")
    assert "the header of a btt namespace" in refusal.words and why in refusal.words


def says(blkid: str, udev: str) -> Evidence:
    return replace(EXT4, witnesses=(Witness("blkid", blkid), Witness("udev", udev)))


REFUSED: dict[str, tuple[Evidence, set[str]]] = {
    "mounted": (replace(EXT4, uses=(Use("mounted", "mounted on /srv"),)), {"mounted"}),
    "swap": (replace(EXT4, uses=(Use("swap", "/dev/pmem0 is swap"),)), {"swap"}),
    "held": (replace(EXT4, uses=(Use("holder", "dm-0 is made of it"),)), {"holder"}),
    "open": (replace(EXT4, uses=(Use("open", "process 7 (db) has it open"),)), {"open"}),
    "mapped": (replace(EXT4, uses=(Use("mapped", "process 7 (db) has it mapped"),)), {"mapped"}),
    "named": (replace(EXT4, uses=(Use("named", "/etc/fstab, line 3, says UUID=x"),)), {"named"}),
    "use unknown": (replace(EXT4, blind="/proc/7/fd: permission denied"), {"use-unknown"}),
    "read-only": (replace(EXT4, read_only=True), {"read-only"}),
    "btt below": (replace(EXT4, info_block="btt"), {"info-block"}),
    "no file": (replace(EXT4, allowed="/etc/x does not exist"), {"allow-file"}),
    "no room": (replace(EXT4, room=ROOM - 1), {"no-room"}),
    "room unknown": (replace(EXT4, room=None), {"no-room"}),
    "differ": (says("ext4", "xfs"), {"witnesses-differ"}),
    "blkid alone": (says("ext4", ""), {"witnesses-differ"}),
    "udev alone": (says("", "ext4"), {"witnesses-differ"}),
    "late": (
        replace(EXT4, witnesses=(Witness("blkid", trouble="it took too long"), Witness("udev", "ext4"))),
        {"witness"},
    ),
    "both ambivalent": (
        replace(EXT4, witnesses=(Witness("blkid", trouble="two"), Witness("udev", trouble="two"))),
        {"witness"},
    ),
    "unreadable": (replace(EXT4, content=Content.UNREADABLE, content_words="EIO"), {"unreadable"}),
    "nobody asked": (replace(EXT4, witnesses=(), content=Content.UNREADABLE), {"unreadable"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_each_reason_refuses_by_itself(name: str) -> None:
    evidence, expected = REFUSED[name]
    found = ask(evidence)
    assert found.verdict is Verdict.REFUSED and found.next is None and found.steps == ()
    assert kinds(found) == expected
    assert all(refusal.words.isprintable() and len(refusal.words) > 20 for refusal in found.refusals)


@pytest.mark.parametrize("name", [name for name in REFUSED if kinds(ask(REFUSED[name][0])) & {"witness"}])
def test_a_witness_in_trouble_is_no_witness_of_emptiness(name: str) -> None:
    evidence = replace(REFUSED[name][0], content=Content.ZEROS)
    assert ask(evidence, replace(REQUEST, consent="")).verdict is Verdict.REFUSED


STATES: dict[str, tuple[Inventory, str]] = {
    "sector": (held(mode="sector"), "sector"),
    "unknown mode": (held(mode="safe"), "mode"),
    "disabled": (held(enabled=False), "disabled"),
    "another request's": (held(label="tierd:other+2"), "ours"),
    "memory already": (
        held(mode="devdax", dax=device("kmem", (MemoryBlock(33, True, "Movable", 1),))),
        "system-ram",
    ),
    "label-less": (holding(HELD, labelled=False), "label-less"),
    "no iset_id": (holding(HELD, iset_id=None), "no-iset-id"),
    "read-only region": (holding(HELD, read_only=True), "read-only"),
    "locked": (holding(HELD, locked=("nmem0",)), "locked"),
    "badblocks": (holding(HELD, bad_blocks=2), "badblocks"),
    "no node": (holding(HELD, target_node=None), "target-node"),
    "DRAM's node": (holding(HELD, target_node=0), "target-node"),
    "claimed": (held(claimed="/etc/daxctl.conf.d/a.conf, line 2"), "claimed"),
    "too small": (held(span=Span(START, 100 * MIB)), "too-small"),
    "not settled": (with_region(namespaces=(HELD,), available=MIB), "not-settled"),
    "label in use": (
        holding(HELD, replace(HELD, name="namespace0.2", uuid="x", label="tierd:old", span=Span(0, MIB))),
        "label-in-use",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_each_state_refuses(name: str) -> None:
    machine, kind = STATES[name]
    found = ask(machine=machine)
    assert found.verdict is Verdict.REFUSED and kind in kinds(found)


def test_too_little_dram_refuses_before_anything_is_given_up() -> None:
    nodes = tuple(replace(node, available=64 * MIB) for node in MACHINE.nodes)
    assert kinds(ask(machine=replace(MACHINE, nodes=nodes))) == {"dram"}


def test_what_a_table_says_is_refused_with_its_place() -> None:
    found = ask(replace(EXT4, uses=(Use("named", "/etc/fstab, line 3, says /dev/pmem0"),)))
    assert found.refusals[0].words == (
        "namespace0.1 is meant to be mounted, or to be swap: /etc/fstab, line 3, says /dev/pmem0; take that"
        " out of there first"
    )


def test_all_reasons_are_told_at_once() -> None:
    bad = replace(
        says("ext4", "xfs"),
        uses=(Use("mounted", "mounted on /a"), Use("open", "process 7 (x) has it open")),
        allowed="no file",
        read_only=True,
        room=0,
    )
    found = ask(bad, replace(REQUEST, consent=None), held(mode="sector", enabled=False))
    assert kinds(found) == {
        *("mounted", "open", "allow-file", "read-only", "no-room", "witnesses-differ"),
        *("no-consent", "sector", "disabled"),
    }


def test_it_is_known_by_its_uuid_alone() -> None:
    renamed = held(name="namespace0.7", label="other")
    assert ask(machine=renamed).verdict is Verdict.READY
    other = held(uuid="00000000-0b7d-4c1e-9a52-7d1f0c9be6a1")
    found = ask(None, machine=other)
    assert kinds(found) == {"namespace-not-found"}
    assert "there is 00000000-0b7d-4c1e-9a52-7d1f0c9be6a1 (namespace0.1)" in found.refusals[0].words
    twice = holding(HELD, replace(HELD, name="namespace0.2", span=Span(START + 1152 * MIB, 1152 * MIB)))
    assert kinds(ask(None, machine=twice)) == {"ambiguous-uuid"}


def given_up(*namespaces: Namespace, **changes: object) -> Inventory:
    return replace(holding(*namespaces), taken=(replace(TAKEN, done=True),), **changes)  # type: ignore[arg-type]


def made(**changes: object) -> Namespace:
    whole = tuple(MemoryBlock(33 + i, True, "Movable", 1) for i in range(8))
    new = Namespace(
        "namespace0.0", "new", "tierd:old", "devdax", True, Span(START, 1152 * MIB), device("kmem", whole)
    )
    return replace(new, **changes)  # type: ignore[arg-type]


def test_when_it_is_given_up_one_of_tierds_own_is_made_of_what_it_left() -> None:
    found = ask(None, machine=given_up())
    assert [step.action for step in found.steps] == [Action.CREATE_NAMESPACE, Action.SYSTEM_RAM]
    assert found.numbers is not None and found.numbers.memory == 8 * BLOCK


def test_it_is_found_again_after_a_reboot_and_nothing_is_done_twice() -> None:
    machine = given_up(made(), made=frozenset({("old", "new")}))
    assert find_target(machine, REQUEST) is None
    assert ask(None, machine=machine).verdict is Verdict.DONE
    idle = made(dax=device())
    again = ask(None, machine=given_up(idle, made=frozenset({("old", "new")})))
    assert [step.action for step in again.steps] == [Action.SYSTEM_RAM]


def test_a_request_that_was_renamed_says_so() -> None:
    found = ask(None, replace(REQUEST, name="new"), given_up())
    assert kinds(found) == {"namespace-not-found"}
    assert "gave it up for the request old, whose name must stay" in found.refusals[0].words


def test_what_somebody_made_of_it_since_is_left_alone() -> None:
    remade = made(uuid="theirs", mode="fsdax", dax=None)
    assert kinds(ask(None, machine=given_up(remade, made=frozenset({("old", "new")})))) == {"uuid"}
    gone = given_up(made=frozenset({("old", "new")}))
    assert kinds(ask(None, machine=gone)) == {"namespace-gone"}


INTERRUPTED = replace(
    holding(replace(HELD, uuid=LABEL_UUID, mode="raw")), taken=(TAKEN,), online_policy="online"
)


def test_a_run_that_was_stopped_goes_on_when_all_is_as_it_was_kept() -> None:
    target = find_target(INTERRUPTED, REQUEST)
    assert target is not None and target.taken == TAKEN
    seen = replace(EMPTY, content=Content.DATA, as_kept=True, info_block="pfn")
    found = ask(seen, machine=INTERRUPTED)
    assert found.verdict is Verdict.READY and found.found == "ext4"
    assert kinds(ask(replace(seen, as_kept=False), machine=INTERRUPTED)) >= {"changed"}


def test_a_run_that_was_stopped_before_it_did_anything_starts_anew_when_the_data_changed() -> None:
    machine = replace(MACHINE, taken=(TAKEN,))
    now = replace(says("xfs", "xfs"), as_kept=False)
    assert kinds(ask(now, machine=machine)) == {"consent"}
    assert ask(now, replace(REQUEST, consent="xfs"), machine).verdict is Verdict.READY


def test_a_stopped_run_needs_consent_and_file_as_any_other() -> None:
    seen = replace(EMPTY, content=Content.DATA, as_kept=True, allowed="gone")
    assert kinds(ask(seen, replace(REQUEST, consent=""), INTERRUPTED)) == {"consent", "allow-file"}


SIGNATURES = st.sampled_from(["", "ext4", "xfs", "gpt"])
TROUBLES = st.sampled_from(["", "", "late"])


@given(
    SIGNATURES, SIGNATURES, TROUBLES, TROUBLES, st.sampled_from(Content), st.sampled_from([None, "", "ext4"])
)
def test_nothing_is_taken_that_two_witnesses_do_not_agree_on(
    blkid: str, udev: str, late: str, later: str, content: Content, consent: str | None
) -> None:
    evidence = replace(
        EXT4, witnesses=(Witness("blkid", blkid, late), Witness("udev", udev, later)), content=content
    )
    found = ask(evidence, replace(REQUEST, consent=consent))
    agreed = not late and not later and blkid == udev and content is not Content.UNREADABLE
    known = blkid or ("" if content is Content.ZEROS else UNKNOWN_DATA)
    assert (found.verdict is Verdict.READY) == (agreed and consent == known)
    assert finding(evidence) == (known if agreed else None)
