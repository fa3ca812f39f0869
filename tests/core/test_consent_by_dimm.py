"""A DIMM without labels becomes memory by its serial number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.machines import BLOCK, GIB, ISET, START, device, with_region
from tests.core.test_consent import EMPTY, EXT4, ask, kinds
from tierd.core.any_plan import any_plan_document, any_plan_lines
from tierd.core.evidence import find_target, given_up
from tierd.core.inventory import Inventory, MemoryBlock, Namespace, Span, Taken
from tierd.core.policy import NamespaceRequest, ProvisionMode
from tierd.core.provision import Action, Command, Verdict

SERIAL = "8680-56341200"
REQUEST = NamespaceRequest("bare", "", "", ProvisionMode.APPLY, SERIAL)
WHOLE = Namespace("namespace0.0", None, "", "raw", True, Span(START, 4 * GIB))
TAKEN = Taken("bare", SERIAL, "", 0, 4 * GIB, 31 * BLOCK, "", Span(0, 4 * GIB), "kept", True)


def bare(**changes: object) -> Inventory:
    """One region of one DIMM without labels, which is one namespace."""
    says = {
        "iset_id": None,
        "labelled": False,
        "dimms": ("nmem0",),
        "serials": (SERIAL,),
        "namespaces": (WHOLE,),
    }
    return with_region(**{**says, "available": 4 * GIB, **changes})


BARE = bare()
LABELLED = bare(iset_id=ISET, labelled=True, namespaces=(), available=4 * GIB)


def test_the_dimm_gets_labels_and_its_free_capacity_becomes_memory() -> None:
    found = ask(EMPTY, REQUEST, BARE)
    assert found.verdict is Verdict.READY, found.refusals
    actions = [step.action for step in found.steps]
    assert actions == [Action.TAKE_NAMESPACE, Action.CREATE_NAMESPACE, Action.SYSTEM_RAM]
    assert found.steps[0].acts == (
        Command(("ndctl", "disable-region", "region0")),
        Command(("ndctl", "init-labels", "nmem0")),
        Command(("ndctl", "enable-region", "region0")),
    )
    assert found.numbers is not None and found.numbers.memory == 31 * BLOCK
    text = "\n".join(any_plan_lines(found, "/sys"))
    assert f"the whole of DIMM {SERIAL}, without labels" in text and "give nmem0 labels" in text
    document = any_plan_document(found, "/sys")
    assert (document["dimm"], document["uuid"]) == (SERIAL, None)


@pytest.mark.parametrize(
    ("consent", "evidence", "kind"),
    [(None, EMPTY, "no-consent"), ("", EXT4, "consent"), ("", replace(EMPTY, allowed="none"), "allow-file")],
)
def test_it_takes_all_that_other_namespaces_take(consent: str | None, evidence: object, kind: str) -> None:
    found = ask(evidence, replace(REQUEST, consent=consent), BARE)  # type: ignore[arg-type]
    assert kinds(found) == {kind}


def test_by_uuid_it_is_refused_for_want_of_labels() -> None:
    uuid = "3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1"
    machine = bare(namespaces=(replace(WHOLE, uuid=uuid, mode="fsdax"),))
    found = ask(EMPTY, NamespaceRequest("bare", uuid, "", ProvisionMode.APPLY), machine)
    assert "label-less" in kinds(found)


@pytest.mark.parametrize(
    ("machine", "kind", "words"),
    [
        (bare(serials=("8680-1",)), "dimm-not-found", "no region has a DIMM 8680-56341200; there is 8680-1"),
        (bare(serials=(SERIAL, "8680-1"), dimms=("nmem0", "nmem1")), "dimm", "not alone in region0"),
        (LABELLED, "dimm", "has labels: ask for free capacity of region0"),
        (bare(namespaces=(), enabled=False), "dimm", "`ndctl enable-region region0`"),
    ],
    ids=["absent", "interleaved", "labelled", "disabled"],
)
def test_what_is_not_one_bare_dimm_is_refused(machine: Inventory, kind: str, words: str) -> None:
    found = ask(None, REQUEST, machine)
    assert kinds(found) == {kind} and words in found.refusals[0].words and not found.steps


@pytest.mark.parametrize("enabled", [False, True], ids=["disabled", "enabled"])
@pytest.mark.parametrize("first", [False, True], ids=["behind", "before"])
def test_a_dimm_that_is_part_of_another_region_is_refused(first: bool, enabled: bool) -> None:
    other = replace(
        BARE.regions[0],
        name="region1",
        span=Span(START + 4 * GIB, 4 * GIB),
        dimms=("nmem0", "nmem1"),
        serials=(SERIAL, "8680-2"),
        enabled=enabled,
        namespaces=(),
    )
    regions = (other, *BARE.regions) if first else (*BARE.regions, other)
    machine = replace(BARE, regions=regions)
    assert find_target(machine, REQUEST) is None
    found = ask(None, REQUEST, machine)
    assert kinds(found) == {"dimm"} and not found.steps
    words = found.refusals[0].words
    assert "region0" in words and "region1" in words and "one region of it" in words


def test_it_is_given_up_when_its_dimm_has_labels() -> None:
    target = find_target(BARE, REQUEST)
    assert target is not None
    assert given_up(LABELLED, target)
    assert not given_up(BARE, target) and not given_up(bare(labelled=True, enabled=False), target)


def test_what_became_of_it_is_found_again() -> None:
    free = replace(LABELLED, taken=(TAKEN,))
    assert [step.action for step in ask(None, REQUEST, free).steps] == [
        Action.CREATE_NAMESPACE,
        Action.SYSTEM_RAM,
    ]
    blocks = tuple(MemoryBlock(33 + n, True, "Movable", 1) for n in range(8))
    made = Namespace("namespace0.0", "new", "tierd:bare", "devdax", True, Span(START, 9 * BLOCK), None)
    made = replace(made, dax=device("kmem", blocks))
    kept = replace(TAKEN, memory=8 * BLOCK)
    machine = bare(iset_id=ISET, labelled=True, namespaces=(made,), available=4 * GIB - 9 * BLOCK)
    machine = replace(machine, taken=(kept,), made=frozenset({("bare", "new")}))
    assert ask(None, REQUEST, machine).verdict is Verdict.DONE


def test_a_dimm_that_is_missing_after_a_reboot_is_named() -> None:
    machine = replace(with_region(serials=("8680-1",)), taken=(TAKEN,))
    assert kinds(ask(None, REQUEST, machine)) == {"dimm-not-found"}


def test_a_run_that_was_stopped_before_the_labels_goes_on() -> None:
    machine = replace(BARE, taken=(replace(TAKEN, done=False),))
    target = find_target(machine, REQUEST)
    assert target is not None and target.taken is not None
    assert ask(replace(EMPTY, as_kept=True), REQUEST, machine).verdict is Verdict.READY
