"""A plan as the lines that `tierctl plan`, the bus and the journal show."""

from __future__ import annotations

from tierd.core.planner import Plan
from tierd.core.state import PlanLine


def plan_lines(plan: Plan) -> tuple[PlanLine, ...]:
    """What is moved, in order, and what is not, each with its reason. Called by the engine after a round."""
    lines = [
        PlanLine("demote", step.stock.cgroup, step.pages, step.stock.node, None, step.reason)
        for step in plan.demotions
    ]
    lines += [
        PlanLine("promote", "the hottest pages", len(step.which), None, step.node, step.reason)
        for step in plan.promotions
    ]
    if plan.held:
        lines.append(PlanLine("hold", "hot pages", plan.wanted - plan.promote, None, None, plan.held))
    return tuple(lines)
