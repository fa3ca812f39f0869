"""A provisioning plan for people and for programs. Pure; used by tierd-convert and by `tierctl provision
plan`."""

from __future__ import annotations

import shlex
from dataclasses import asdict

from tierd.core.provision import Command, ProvisionPlan, Setting, Verdict
from tierd.core.refusals import label_of
from tierd.core.units import format_size

_HEADLINES = {
    Verdict.DONE: "done: it is as asked, nothing is to be run",
    Verdict.READY: "ready",
    Verdict.REFUSED: "refused: nothing is run",
}
_VERBS = {Verdict.DONE: "is", Verdict.READY: "becomes", Verdict.REFUSED: "would be"}


def act_text(act: Command | Setting, sysfs: str) -> str:
    """`act` as one would type it in a shell; `sysfs` is where sysfs is mounted."""
    if isinstance(act, Command):
        return shlex.join(act.argv)
    return f"echo {act.value} > {sysfs}/{act.path}"


def plan_lines(plan: ProvisionPlan, sysfs: str) -> list[str]:
    """The plan in words and numbers, one line each, indented below its headline."""
    asked = "all free capacity" if plan.request.size is None else format_size(plan.request.size)
    where = f"iset_id 0x{plan.request.iset_id:x}" + (f" ({plan.region})" if plan.region else "")
    lines = [f"{plan.request.name}: {_HEADLINES[plan.verdict]}", f"  asked       {asked} of {where}"]
    if plan.namespace is not None:
        uuid = plan.namespace.uuid or "without UUID"
        lines.append(f"  namespace   {uuid} ({plan.namespace.name}, labelled {label_of(plan.request)})")
    if plan.numbers is not None:
        numbers = plan.numbers
        node = "" if plan.target_node is None else f", node {plan.target_node}"
        verb = _VERBS[plan.verdict]
        lines.append(f"  memory      {verb} {format_size(numbers.memory)} in {numbers.blocks} blocks{node}")
        lost, whole = format_size(numbers.lost), format_size(numbers.namespace)
        lines.append(f"  lost        {lost} of {whole} to alignment")
        if numbers.page_structures:
            lines.append(f"  DRAM spent  {format_mib(numbers.page_structures)} on page structures")
    if unrecoverable := unrecoverable_words(plan):
        lines.append(f"  no return   {unrecoverable}")
    lines += [f"  because     {refusal.words}" for refusal in plan.refusals]
    lines += [f"  note        {note}" for note in plan.notes]
    if plan.verdict is Verdict.READY:
        for number, step in enumerate(plan.steps, 1):
            lines.append(f"  {number}. {step.words}")
            lines += [f"       {act_text(act, sysfs)}" for act in step.acts[:8]]
            if len(step.acts) > 8:
                lines.append(f"       ... and {len(step.acts) - 8} more like these")
    return lines


def unrecoverable_words(plan: ProvisionPlan) -> str | None:
    """What cannot be read back once the plan has been run, and from when on; None when nothing is run, or
    nothing is lost by it."""
    step = plan.point_of_no_return
    if plan.verdict is not Verdict.READY or step is None or plan.numbers is None:
        return None
    size = format_size(plan.numbers.namespace)
    what = "the namespace" if plan.namespace is None else plan.namespace.name
    held = ", also what was left there by namespaces that are gone" if plan.namespace is None else ""
    return f"from step {step} on nothing of the {size} of {what} can be read back{held}"


def plan_document(plan: ProvisionPlan, sysfs: str) -> dict[str, object]:
    """The plan as a JSON object; sizes are integers, in bytes."""
    return {
        "name": plan.request.name,
        "mode": plan.request.mode.value,
        "iset_id": f"0x{plan.request.iset_id:x}",
        "size": plan.request.size,
        "verdict": plan.verdict.value,
        "region": plan.region,
        "namespace": None if plan.namespace is None else plan.namespace.uuid,
        "target_node": plan.target_node,
        "numbers": None if plan.numbers is None else asdict(plan.numbers),
        "unrecoverable": _unrecoverable(plan),
        "refusals": [asdict(refusal) for refusal in plan.refusals],
        "notes": list(plan.notes),
        "steps": [
            {
                "action": step.action.value,
                "destructive": step.destructive,
                "words": step.words,
                "runs": [act_text(act, sysfs) for act in step.acts],
            }
            for step in plan.steps
            if plan.verdict is Verdict.READY
        ],
    }


def _unrecoverable(plan: ProvisionPlan) -> dict[str, object] | None:
    words = unrecoverable_words(plan)
    if words is None or plan.numbers is None:
        return None
    return {"from_step": plan.point_of_no_return, "bytes": plan.numbers.namespace, "words": words}


def format_mib(size: int) -> str:
    """`size` for people: rounded up to whole MiB."""
    return f"{-(-size // (1 << 20))}MiB"
