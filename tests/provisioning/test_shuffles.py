"""Names that are given anew: what is converted and given back is tierd's own, whatever it is called now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.provisioning import shuffling


@pytest.mark.parametrize("seed", range(4))
def test_no_wrong_namespace_is_touched(tmp_path: Path, seed: int) -> None:
    found = shuffling.run(tmp_path, 50, seed)
    assert not found.wrong
    assert found.renamed > 100 and found.converted > 25, found
