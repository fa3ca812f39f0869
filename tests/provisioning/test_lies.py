"""Tools that lie: no wrong action, no traceback, and the next run with honest tools gets over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.provisioning.lies import LIES, Lie
from tests.provisioning.lying import try_lie


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_a_lie_is_not_acted_upon(tmp_path: Path, lie: Lie) -> None:
    outcome = try_lie(tmp_path, lie)
    assert not outcome.wrong
    assert not outcome.crashed, outcome.said
