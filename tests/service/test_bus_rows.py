"""What anybody may ask for as often as they like is made once."""

from __future__ import annotations

from typing import Any

import pytest

from tierd.core.past import STEPS, Moment
from tierd.core.state import EngineState, PlanLine, State
from tierd.service import bus_values
from tierd.service.bus_values import HistoryRows, View
from tierd.service.interface import BUS_NAME, Doers, Manager
from tierd.service.shown import introspection_xml


def moment(time: float) -> Moment:
    tiers = {"memory_tier4": (1, 2)}
    return Moment(time, EngineState.STEADY, 1, 2, 3, 4, tiers, {"gold": (5, 6)})


def test_each_row_of_history_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []
    make = bus_values._moment_values

    def counted(found: Moment) -> dict[str, Any]:
        made.append(found.time)
        return make(found)

    monkeypatch.setattr(bus_values, "_moment_values", counted)
    rows, moments = HistoryRows(), [moment(float(number)) for number in range(STEPS)]
    for asked in (moments, moments[-6:], moments):
        reply = rows.reply(asked)
        assert reply.get_type_string() == "(aa{sv})"
        assert [row["Time"] for row in reply.unpack()[0]] == [found.time for found in asked]
    assert len(made) == STEPS
    later = [*moments[1:], moment(1e6)]
    assert rows.reply(later).unpack()[0][-1]["ClassDramBytes"] == {"gold": 5}
    assert len(made) == STEPS + 1 and len(rows._rows) == STEPS, "what is too old is forgotten"
    assert rows.reply(()).unpack() == ([],)


def test_a_plan_is_made_once_for_each_state() -> None:
    def nothing(*_: Any) -> Any: ...

    def view(pages: int) -> View:
        return View(State(plan=(PlanLine("promote", "/db", pages, 1, 0, "hot"),)))

    manager = Manager(view(1), introspection_xml(BUS_NAME), Doers(*[nothing] * 6))
    first = manager.GetPlan()
    assert manager.GetPlan() is first and first.unpack()[0][0]["Pages"] == 1
    manager.show(view(2), 1.0)
    assert manager.GetPlan().unpack()[0][0]["Pages"] == 2


def test_history_is_answered_beside_the_main_loop() -> None:
    assert Manager.GetHistory.slow  # type: ignore[attr-defined]
