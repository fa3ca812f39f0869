"""A plan for CXL memory for people and for programs. Pure; used by tierd-convert and by tierctl."""

from __future__ import annotations

from dataclasses import asdict

from tierd.core.cxl import CxlPlan
from tierd.core.policy import CxlRequest
from tierd.core.provision import Numbers, Verdict
from tierd.core.provision_text import act_text, format_mib
from tierd.core.units import format_size

_HEADLINES = {
    Verdict.DONE: "done: it is as asked, nothing is to be run",
    Verdict.READY: "ready",
    Verdict.REFUSED: "refused: nothing is run",
}
_VERBS = {Verdict.DONE: "is", Verdict.READY: "becomes", Verdict.REFUSED: "would be"}
_MOST_ACTS = 8


def asked_text(request: CxlRequest) -> str:
    """How much is asked for, in the policy's own words."""
    if request.size is None:
        return "all"
    return format_size(request.size) if request.size else "none"


def cxl_lines(plan: CxlPlan, sysfs: str) -> list[str]:
    """The plan in words and numbers, one line each, indented below its headline."""
    request = plan.request
    serials = ", ".join(f"{serial:#x}" for serial in request.serials)
    lines = [f"{request.name}: {_HEADLINES[plan.verdict]}"]
    lines.append(f"  asked       {asked_text(request)} of the volatile memory of CXL serial {serials}")
    if plan.region is not None:
        whose = "made by others" if plan.adopted else "made by tierd"
        devices = ", ".join(plan.region.memdevs) or "no device yet"
        lines.append(
            f"  region      {plan.region.name}, {whose}: {format_size(plan.region.size)} of {devices}"
        )
    if plan.numbers is not None:
        lines += _number_lines(plan, plan.numbers)
    lines += [f"  because     {refusal.words}" for refusal in plan.refusals]
    lines += [f"  note        {note}" for note in plan.notes]
    if plan.verdict is not Verdict.READY:
        return lines
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"  {number}. {step.words}")
        lines += [f"       {act_text(act, sysfs)}" for act in step.acts[:_MOST_ACTS]]
        if len(step.acts) > _MOST_ACTS:
            lines.append(f"       ... and {len(step.acts) - _MOST_ACTS} more like these")
    return lines


def _number_lines(plan: CxlPlan, numbers: Numbers) -> list[str]:
    node = "" if plan.target_node is None else f", node {plan.target_node}"
    memory = f"{_VERBS[plan.verdict]} {format_size(numbers.memory)} in {numbers.blocks} blocks{node}"
    lines = [f"  memory      {memory if numbers.memory else 'none'}"]
    if numbers.lost:
        lines.append(f"  lost        {format_size(numbers.lost)} to alignment")
    if numbers.page_structures > 0:
        lines.append(f"  DRAM spent  {format_mib(numbers.page_structures)} on page structures")
    elif numbers.page_structures:
        lines.append(f"  DRAM freed  {format_mib(-numbers.page_structures)} of page structures")
    return lines


def cxl_document(plan: CxlPlan, sysfs: str) -> dict[str, object]:
    """The plan as a JSON object; sizes are integers, in bytes."""
    steps = plan.steps if plan.verdict is Verdict.READY else ()
    return {
        "name": plan.request.name,
        "mode": plan.request.mode.value,
        "cxl_serials": [f"{serial:#x}" for serial in plan.request.serials],
        "asked": asked_text(plan.request),
        "verdict": plan.verdict.value,
        "region": None if plan.region is None else plan.region.name,
        "adopted": plan.adopted,
        "target_node": plan.target_node,
        "numbers": None if plan.numbers is None else asdict(plan.numbers),
        "refusals": [asdict(refusal) for refusal in plan.refusals],
        "notes": list(plan.notes),
        "steps": [
            {
                "action": step.action.value,
                "words": step.words,
                "runs": [act_text(act, sysfs) for act in step.acts],
            }
            for step in steps
        ],
    }


def cxl_gist(plan: CxlPlan) -> str:
    """The outcome in one line, for the journal."""
    if plan.refusals:
        return "; ".join(refusal.words for refusal in plan.refusals)
    if plan.numbers is None or not plan.numbers.memory:
        return "nothing is memory" if plan.verdict is Verdict.DONE else "all of it to be given back"
    node = "" if plan.target_node is None else f" on node {plan.target_node}"
    fixed = 0
    if plan.region is not None and plan.region.dax is not None:
        fixed = sum(block.online and not block.movable for block in plan.region.dax.blocks)
    zone = f", {fixed} of them not movable" if fixed else " in ZONE_MOVABLE"
    words = f"{plan.numbers.memory >> 20} MiB of CXL memory{node}, {plan.numbers.blocks} blocks{zone}"
    return f"{words} are online" if plan.verdict is Verdict.DONE else f"{words} to come"
