"""The plan for a request of any kind: for people, for programs, for the journal. Pure; used by tierd-convert
and tierctl."""

from __future__ import annotations

from tierd.core.consent import NamespacePlan
from tierd.core.consent_text import namespace_document, namespace_lines
from tierd.core.cxl import CxlPlan
from tierd.core.cxl_text import cxl_document, cxl_lines
from tierd.core.provision import Verdict
from tierd.core.provision_text import plan_document, plan_lines
from tierd.core.share_plan import SharePlan

AnyPlan = SharePlan | NamespacePlan | CxlPlan


def any_plan_lines(plan: AnyPlan, sysfs: str) -> list[str]:
    """The plan in words and numbers, one line each; `sysfs` is where sysfs is mounted."""
    if isinstance(plan, NamespacePlan):
        return namespace_lines(plan, sysfs)
    if isinstance(plan, CxlPlan):
        return cxl_lines(plan, sysfs)
    return plan_lines(plan, sysfs)


def any_plan_document(plan: AnyPlan, sysfs: str) -> dict[str, object]:
    """The plan as a JSON object; sizes are integers, in bytes."""
    if isinstance(plan, NamespacePlan):
        return namespace_document(plan, sysfs)
    if isinstance(plan, CxlPlan):
        return cxl_document(plan, sysfs)
    return plan_document(plan, sysfs)


def any_plan_gist(plan: AnyPlan) -> str:
    """The outcome in one line."""
    if plan.refusals:
        return "; ".join(refusal.words for refusal in plan.refusals)
    done = plan.verdict is Verdict.DONE
    if plan.numbers is None or not plan.numbers.memory:
        return "nothing is memory" if done else "all of it to be given back"
    node = "" if plan.target_node is None else f" on node {plan.target_node}"
    kind, zone = "", " in ZONE_MOVABLE"
    if isinstance(plan, CxlPlan):
        kind = " of CXL memory"
        zone = f", {len(plan.fixed)} of them not movable" if plan.fixed else zone
    words = f"{plan.numbers.memory >> 20} MiB{kind}{node}, {plan.numbers.blocks} blocks{zone}"
    return f"{words} are online" if done else f"{words} to come"
