"""Modules that complain: which of it keeps memory from being made, and what is only said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.machines import (
    MACHINE,
    REQUEST,
    blocks,
    device,
    holding,
    kinds,
    namespace,
    with_region,
)
from tests.core.simulated_shares import Kernel, ask
from tests.core.test_consent import EMPTY
from tests.core.test_consent import ask as convert
from tests.core.test_consent_by_dimm import REQUEST as BY_DIMM
from tests.core.test_consent_by_dimm import bare
from tierd.core import health, picture
from tierd.core.inventory import Dimm, Inventory
from tierd.core.provision import Verdict, plan
from tierd.core.shares import plan_share

WELL = Dimm("nmem1", "8680-2", None, None, (), "ok", ("region0",))


def dimm(*flags: str, state: str | None = None) -> Dimm:
    return Dimm("nmem0", "8680-56341200", None, None, flags, state, ("region0",))


def machine(found: Dimm) -> Inventory:
    return with_region(modules=(WELL, found))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (dimm("failed map"), "failed map: "),
        (dimm("failed arm"), "failed arm: "),
        (dimm("failed flush", "failed restore"), "(failed restore: "),
        (dimm(state="critical"), "its health is critical"),
        (dimm(state="fatal"), "its health is fatal"),
    ],
)
def test_nothing_is_made_of_a_module_that_fails(found: Dimm, words: str) -> None:
    refused = plan(machine(found), REQUEST)
    assert refused.verdict is Verdict.REFUSED and kinds(refused) == ["unhealthy"]
    said = refused.refusals[0].words
    assert words in said and "nmem0 (8680-56341200) in region0" in said and "nmem1" not in said
    assert "`ndctl list -DH -d nmem0`" in said and "replace" in said
    assert kinds(plan_share(machine(found), REQUEST).parts[0]) == ["unhealthy"]
    assert health.of_modules(machine(found).regions[0]) == list(refused.refusals)
    # nor of one that somebody else has, or that has no labels
    assert "unhealthy" in {r.kind for r in convert(EMPTY, BY_DIMM, bare(modules=(found,))).refusals}
    # nor is what has been made brought back as memory
    assert kinds(plan(holding(namespace(), modules=(found,)), REQUEST)) == ["unhealthy"]
    region = machine(found).regions[0]
    for blind in (False, True):
        assert [r.kind for r in picture.of_region(machine(found), region, blind=blind).reasons] == [
            "unhealthy"
        ]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (dimm("failed flush"), "failed flush: "),
        (dimm("failed save"), "failed save: "),
        (dimm("smart event"), "smart event: "),
        (dimm(state="non-critical"), "its health is non-critical"),
        (dimm(state="unknown"), "its health is unknown"),
    ],
)
def test_what_is_past_or_a_warning_is_a_note(found: Dimm, words: str) -> None:
    ready = plan(machine(found), REQUEST)
    assert ready.verdict is Verdict.READY
    (note,) = ready.notes
    assert words in note and "nmem0" in note
    assert plan_share(machine(found), REQUEST).notes == (note,)
    assert convert(EMPTY, BY_DIMM, bare(modules=(found,))).notes == (note,)
    done = plan_share(
        holding(namespace(dax=device("kmem", blocks())), modules=(found,)), replace(REQUEST, size=None)
    )
    assert done.verdict is Verdict.DONE and done.notes == (note,)


def test_who_says_nothing_is_well() -> None:
    assert plan(machine(dimm()), REQUEST).notes == plan(machine(WELL), REQUEST).notes == ()
    assert plan(machine(dimm()), REQUEST).verdict is plan(MACHINE, REQUEST).verdict is Verdict.READY


def test_memory_of_a_module_that_fails_is_said_to_be_and_can_be_given_back() -> None:
    kernel = Kernel()
    kernel.run(ask(size=1 << 30))
    region = replace(kernel.machine.regions[0], modules=(dimm("failed arm", state="fatal"),))
    kernel.machine = replace(kernel.machine, regions=(region,))
    done = plan_share(kernel.machine, ask(size=1 << 30))
    assert done.verdict is Verdict.DONE and "it is in use as memory" in done.notes[0]
    assert kernel.run(ask(0)).verdict is not Verdict.READY and kernel.memory() == 0
