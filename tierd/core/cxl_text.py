"""A plan for CXL memory for people and for programs. Pure; used by tierd-convert and by tierctl."""

from __future__ import annotations

from dataclasses import asdict

from tierd.core.cxl import CxlPlan
from tierd.core.policy import CxlRequest
from tierd.core.provision import Numbers, Step, Verdict
from tierd.core.provision_text import HEADLINES, VERBS, step_documents, step_lines, structure_lines
from tierd.core.units import format_size


def asked_text(request: CxlRequest) -> str:
    """How much is asked for, in the policy's own words."""
    if request.size is None:
        return "all"
    return format_size(request.size) if request.size else "none"


def cxl_lines(plan: CxlPlan, sysfs: str) -> list[str]:
    """The plan in words and numbers, one line each, indented below its headline."""
    request = plan.request
    serials = ", ".join(f"{serial:#x}" for serial in request.serials)
    lines = [f"{request.name}: {HEADLINES[plan.verdict]}"]
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
    return lines + step_lines(_runnable(plan), sysfs)


def _runnable(plan: CxlPlan) -> tuple[Step, ...]:
    return plan.steps if plan.verdict is Verdict.READY else ()


def _number_lines(plan: CxlPlan, numbers: Numbers) -> list[str]:
    node = "" if plan.target_node is None else f", node {plan.target_node}"
    memory = f"{VERBS[plan.verdict]} {format_size(numbers.memory)} in {numbers.blocks} blocks{node}"
    lines = [f"  memory      {memory if numbers.memory else 'none'}"]
    if numbers.lost:
        lines.append(f"  lost        {format_size(numbers.lost)} to alignment")
    return lines + structure_lines(numbers.page_structures)


def cxl_document(plan: CxlPlan, sysfs: str) -> dict[str, object]:
    """The plan as a JSON object; sizes are integers, in bytes."""
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
        "steps": step_documents(plan.request.name, _runnable(plan), sysfs),
    }
