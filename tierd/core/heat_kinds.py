"""Which kind of heat goes with which source of access information."""

from __future__ import annotations

from tierd.core.access import AccessSource, Heat
from tierd.core.heat import HeatMap
from tierd.core.policy import EnginePolicy
from tierd.core.region_heat import RegionHeat
from tierd.core.sampled_heat import SampledHeat


def heat_for(source: AccessSource, engine: EnginePolicy) -> Heat:
    """Where nothing is known yet, for what `source` delivers, with the policy's half-life and cooldown.
    Called by the engine for each source and each policy that changes these."""
    if looks := source.looks:
        return RegionHeat(engine.heat_half_life, looks.interval, looks.number, engine.cooldown)
    if source.period is None:
        return HeatMap(engine.heat_half_life, engine.cooldown)
    return SampledHeat(engine.heat_half_life, source.period, engine.cooldown)
