"""A policy of several files, in directories of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tierd.config import files
from tierd.config.loader import load_in_force
from tierd.errors import ConfigError


class Tree:
    """The three directories below one. A file is named as ``etc/conf.d/10-a.yaml``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directories = tuple(root / name for name in ("etc", "run", "lib"))

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "DIRECTORIES", self.directories)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return path

    def null(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.devnull)
        return path

    def problems(self) -> list[str]:
        """What keeps the policy from being used, with file names as in `write`."""
        with pytest.raises(ConfigError) as caught:
            load_in_force()
        return [problem.replace(f"{self.root}/", "") for problem in caught.value.problems]
