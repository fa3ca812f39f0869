"""A provisioning plan for people and for programs. Pure; used by tierd-convert and by tierctl."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict

from tierd.core.policy import ProvisionRequest
from tierd.core.provision import Command, ProvisionPlan, Setting, Step, Verdict
from tierd.core.share_plan import ShareNumbers, SharePlan
from tierd.core.units import format_share, format_size

HEADLINES = {
    Verdict.DONE: "done: it is as asked, nothing is to be run",
    Verdict.READY: "ready",
    Verdict.REFUSED: "refused: nothing is run",
}
VERBS = {Verdict.DONE: "is", Verdict.READY: "becomes", Verdict.REFUSED: "would be"}
_MOST_ACTS = 8


def act_text(act: Command | Setting, sysfs: str) -> str:
    """`act` as one would type it in a shell; `sysfs` is where sysfs is mounted."""
    if isinstance(act, Command):
        return shlex.join(act.argv)
    return f"echo {act.value} > {sysfs}/{act.path}"


def asked_text(request: ProvisionRequest) -> str:
    """How much is asked for, in the policy's own words."""
    if request.per_cent is not None:
        return format_share(request.per_cent)
    if request.all_but is not None:
        return f"all but {format_size(request.all_but)}"
    if request.size is None:
        return "all"
    return format_size(request.size) if request.size else "none"


def plan_lines(plan: SharePlan, sysfs: str) -> list[str]:
    """The plan in words and numbers, one line each, indented below its headline."""
    headline = HEADLINES[plan.verdict]
    if plan.verdict is Verdict.REFUSED and plan.next is not None:
        headline = "refused: only what is there already is brought up"
    where = f"iset_id 0x{plan.request.iset_id:x}" + (f" ({plan.region})" if plan.region else "")
    asked = "all free capacity" if asked_text(plan.request) == "all" else asked_text(plan.request)
    lines = [f"{plan.request.name}: {headline}", f"  asked       {asked} of {where}"]
    for part in plan.parts:
        if (namespace := part.namespace) is not None:
            uuid = namespace.uuid or "without UUID"
            lines.append(f"  namespace   {uuid} ({namespace.name}, labelled {namespace.label})")
    if plan.numbers is not None:
        lines += _number_lines(plan, plan.numbers)
    for number, words in unrecoverable(plan):
        lines.append(f"  no return   from step {number} on {words}")
    lines += [f"  because     {refusal.words}" for refusal in plan.refusals]
    lines += [f"  note        {note}" for note in plan.notes]
    return lines + step_lines([step for part in _runnable(plan) for step in part.steps], sysfs)


def step_lines(steps: Sequence[Step], sysfs: str) -> list[str]:
    """The steps, numbered, with what each runs."""
    lines = []
    for number, step in enumerate(steps, 1):
        lines.append(f"  {number}. {step.words}")
        lines += [f"       {act_text(act, sysfs)}" for act in step.acts[:_MOST_ACTS]]
        if len(step.acts) > _MOST_ACTS:
            lines.append(f"       ... and {len(step.acts) - _MOST_ACTS} more like these")
    return lines


def _number_lines(plan: SharePlan, numbers: ShareNumbers) -> list[str]:
    node = "" if plan.target_node is None else f", node {plan.target_node}"
    change = numbers.memory - numbers.online
    more = f" ({format_size(abs(change))} {'more' if change > 0 else 'less'} than now)" if change else ""
    memory = f"{VERBS[plan.verdict]} {format_size(numbers.memory)} in {numbers.blocks} blocks{node}{more}"
    whole = format_size(numbers.memory + numbers.lost)
    lines = [
        f"  memory      {memory}",
        f"  lost        {format_size(numbers.lost)} of {whole} to alignment",
        f"  the rest    {format_size(numbers.rest)} of {format_size(numbers.region)} stays for others",
    ]
    lines += structure_lines(numbers.page_structures)
    if numbers.drained:
        lines.append(f"  drained     up to {format_size(numbers.drained)} in use move to other memory first")
    return lines


def structure_lines(spent: int) -> list[str]:
    """What the kernel's page structures cost: `spent` bytes of DRAM, negative when they are given back."""
    if spent > 0:
        return [f"  DRAM spent  {format_mib(spent)} on page structures"]
    return [f"  DRAM freed  {format_mib(-spent)} of page structures"] if spent else []


def _runnable(plan: SharePlan) -> list[ProvisionPlan]:
    """The parts that would be run."""
    parts = plan.kept if plan.verdict is Verdict.REFUSED else plan.parts
    return [part for part in parts if part.verdict is Verdict.READY]


def unrecoverable(plan: SharePlan) -> list[tuple[int, str]]:
    """What cannot be read back once the plan has been run: from which step on, counted from 1, and what."""
    return unrecoverable_steps([step for part in _runnable(plan) for step in part.steps])


def unrecoverable_steps(steps: Sequence[Step]) -> list[tuple[int, str]]:
    """The same of steps in order."""
    return [(number, step.unrecoverable) for number, step in enumerate(steps, 1) if step.unrecoverable]


def plan_document(plan: SharePlan, sysfs: str) -> dict[str, object]:
    """The plan as a JSON object; sizes are integers, in bytes."""
    return {
        "name": plan.request.name,
        "mode": plan.request.mode.value,
        "iset_id": f"0x{plan.request.iset_id:x}",
        "asked": asked_text(plan.request),
        "verdict": plan.verdict.value,
        "region": plan.region,
        "target_node": plan.target_node,
        "numbers": None if plan.numbers is None else asdict(plan.numbers),
        "slices": [
            {
                "name": part.request.name,
                "namespace": None if part.namespace is None else part.namespace.uuid,
                "verdict": part.verdict.value,
                "numbers": None if part.numbers is None else asdict(part.numbers),
            }
            for part in plan.parts
        ],
        "unrecoverable": [{"from_step": number, "words": words} for number, words in unrecoverable(plan)],
        "refusals": [asdict(refusal) for refusal in plan.refusals],
        "notes": list(plan.notes),
        "steps": [
            document
            for part in _runnable(plan)
            for document in step_documents(part.request.name, part.steps, sysfs)
        ],
    }


def step_documents(name: str, steps: Sequence[Step], sysfs: str) -> list[dict[str, object]]:
    """The steps of the slice `name` as JSON objects."""
    return [
        {
            "slice": name,
            "action": step.action.value,
            "destructive": bool(step.unrecoverable),
            "words": step.words,
            "runs": [act_text(act, sysfs) for act in step.acts],
        }
        for step in steps
    ]


def format_mib(size: int) -> str:
    """`size` for people: rounded up to whole MiB."""
    return f"{-(-size // (1 << 20))}MiB"
