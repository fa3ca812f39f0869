"""The engine of this machine, put together from what the helper opened."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tierd.core.policy import Policy
from tierd.core.state import MissingFeature
from tierd.kernel.demotion import Demotion
from tierd.kernel.doors import SOURCE_VARIABLE
from tierd.kernel.generations import Generations
from tierd.kernel.paths import Root
from tierd.kernel.processes import hierarchy_trouble
from tierd.service.engine import Engine
from tierd.service.keeping import Keeper
from tierd.service.sources import find_sources, select
from tierd.service.splitting import Splitter


def create_engine(
    policy: Policy, doors: Mapping[str, int], missing: tuple[MissingFeature, ...], keeper: Keeper
) -> Engine:
    """The engine of this machine, from the descriptors that the helper opened. Called by the daemon."""
    root = Root()
    return Engine(
        policy,
        lambda: select(find_sources(root, doors, os.environ.get(SOURCE_VARIABLE, ""))),
        Generations(doors.get("lru_gen", -1)),
        Splitter(root, doors.get("split_huge_pages")),
        root,
        missing,
        _lacking(root, doors),
        demotion=Demotion(doors.get("demotion_enabled")),
        keeper=keeper,
    )


def _lacking(root: Root, doors: Mapping[str, int]) -> str:
    """Why nothing can be placed with these doors, apart from what the sources of accesses lack."""
    needs = {
        "lru_gen": "cold pages cannot be found",
        "demotion_enabled": "the kernel's demotion is not ours to switch on",
    }
    losses = [loss for need, loss in needs.items() if need not in doors]
    return "; ".join(filter(None, (hierarchy_trouble(root), *losses)))
