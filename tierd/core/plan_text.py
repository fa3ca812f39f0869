"""A plan as the lines that `tierctl plan`, the bus and the journal show."""

from __future__ import annotations

from collections import Counter

from tierd.core.planner import Plan
from tierd.core.state import PlanLine


def plan_lines(plan: Plan) -> tuple[PlanLine, ...]:
    """What is moved, in order, and what is not, each with its reason. Called by the engine after a round."""
    lines = [
        PlanLine("demote", step.stock.cgroup, step.pages, step.stock.node, None, step.reason)
        for step in plan.demotions
    ]
    lines += [
        PlanLine("demote", f"pages of class {name}", pages, dram, slow, reason)
        for (name, dram, slow, reason), pages in _pushed(plan).items()
    ]
    lines += [
        PlanLine("promote", "the hottest pages", len(step.which), None, step.node, step.reason)
        for step in plan.promotions
    ]
    if plan.held:
        lines.append(PlanLine("hold", "hot pages", plan.wanted - plan.promote, None, None, plan.held))
    return tuple(lines)


def _pushed(plan: Plan) -> Counter[tuple[str, int, int, str]]:
    """Base pages that go down whatever their use, by class, nodes and reason."""
    found: Counter[tuple[str, int, int, str]] = Counter()
    for step in plan.pushes:
        found[step.service_class, step.dram, step.slow, step.reason] += len(step.pages)
    return found
