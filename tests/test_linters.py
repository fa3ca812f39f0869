"""Style and types are part of "the tests pass"."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dev import lint
from tests.vm import host

# One offender per linter, which proves that a clean answer means something.
OFFENDERS = {
    "ruff check": "import os\n",
    "ruff format": "x = {  'a':1 }\n",
    "mypy": 'def double(number: int) -> str:\n    return number * 2\n\n\nprint(double("x"))\n',
}


@pytest.mark.parametrize("name", lint.linters())
def test_tree_is_clean(name: str) -> None:
    """The tree as it is: everything under ruff, the whole of tierd under mypy --strict."""
    done = subprocess.run(lint.linters()[name], cwd=host.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{name} says:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("name", lint.linters())
def test_linter_sees_an_offender(name: str, tmp_path: Path) -> None:
    shutil.copy2(host.ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tierd").mkdir()
    (tmp_path / "tierd" / "__init__.py").write_text(OFFENDERS[name])
    done = subprocess.run(lint.linters(tmp_path)[name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, f"{name} let it pass:\n{done.stdout}{done.stderr}"
    assert "__init__.py" in done.stdout + done.stderr
