"""A plan for a namespace that exists, for people and programs. Pure; used by tierd-convert and tierctl."""

from __future__ import annotations

from dataclasses import asdict

from tierd.core.consent import NamespacePlan, consent_text, held_words
from tierd.core.provision_text import (
    HEADLINES,
    VERBS,
    step_documents,
    step_lines,
    structure_lines,
    unrecoverable_steps,
)
from tierd.core.units import format_size


def namespace_lines(plan: NamespacePlan, sysfs: str) -> list[str]:
    """The plan in words and numbers, one line each, indented below its headline."""
    request, part = plan.request, plan.part
    where = f" of {part.region}" if part.region else ""
    asked = f"DIMM {request.dimm}, without labels" if request.dimm else f"namespace {request.uuid}"
    lines = [
        f"{request.name}: {HEADLINES[plan.verdict]}",
        f"  asked       the whole of {asked}{where}",
        f"  consent     {consent_text(request.consent)}",
    ]
    if part.namespace is not None:
        namespace = part.namespace
        label = f", labelled {namespace.label}" if namespace.label else ""
        lines.append(
            f"  namespace   {namespace.uuid or 'without UUID'} ({namespace.name}, {namespace.mode}{label})"
        )
    if plan.evidence is not None:
        lines.append(f"  holds       {held_words(plan.found)}")
        said = "; ".join(f"{w.name} finds {w.words}" for w in plan.evidence.witnesses) or "nobody was asked"
        lines.append(f"  witnesses   {said}; head and tail are {plan.evidence.content.value}")
        lines.append(f"  allowed     {plan.evidence.allowed or f'by {plan.evidence.allow_file}'}")
    if plan.numbers is not None:
        numbers = plan.numbers
        node = "" if plan.target_node is None else f", node {plan.target_node}"
        memory = f"{format_size(numbers.memory)} in {numbers.blocks} blocks{node}"
        lines.append(f"  memory      {VERBS[plan.verdict]} {memory}")
        lost = f"{format_size(numbers.lost)} of {format_size(numbers.namespace)}"
        lines.append(f"  lost        {lost} to alignment")
        lines += structure_lines(numbers.page_structures)
    lines += [
        f"  no return   from step {number} on {words}" for number, words in unrecoverable_steps(plan.steps)
    ]
    lines += [f"  because     {refusal.words}" for refusal in plan.refusals]
    lines += [f"  note        {note}" for note in plan.notes]
    return lines + step_lines(plan.steps, sysfs)


def namespace_document(plan: NamespacePlan, sysfs: str) -> dict[str, object]:
    """The plan as a JSON object; sizes are integers, in bytes."""
    request, part, evidence = plan.request, plan.part, plan.evidence
    return {
        "name": request.name,
        "mode": request.mode.value,
        "uuid": request.uuid or None,
        "dimm": request.dimm or None,
        "consent": None if request.consent is None else {"destroy": request.consent},
        "verdict": plan.verdict.value,
        "region": part.region,
        "namespace": None if part.namespace is None else part.namespace.uuid,
        "target_node": part.target_node,
        "holds": plan.found,
        "evidence": None
        if evidence is None
        else {
            "witnesses": {w.name: {"found": w.found, "trouble": w.trouble} for w in evidence.witnesses},
            "head_and_tail": evidence.content.value,
            "uses": [asdict(use) for use in evidence.uses],
            "allow_file": evidence.allow_file,
        },
        "numbers": None if part.numbers is None else asdict(part.numbers),
        "unrecoverable": [
            {"from_step": number, "words": words} for number, words in unrecoverable_steps(plan.steps)
        ],
        "refusals": [asdict(refusal) for refusal in plan.refusals],
        "notes": list(plan.notes),
        "steps": step_documents(request.name, plan.steps, sysfs),
    }
