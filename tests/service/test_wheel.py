"""The wheel in a virtual environment of its own: what the code needs is inside, and Debian has the rest."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.dev import package
from tests.vm import host

INSIDE = (
    *("tierd/service/org.tierd1.xml", "tierd/service/org.tierd1.Tier.xml"),
    *("tierd/config/tierd.schema.json", "tierd/py.typed"),
)
IMPORTS = """
import tierd, tierd.__main__, tierd.service.daemon, tierd.service.helper, tierd.service.convert
from tierd.service import presence, tier_objects
for name in (presence.BUS_NAME, tier_objects.INTERFACE):
    presence.introspection_xml(name)
print(tierd.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERD_CACHE", str(tmp_path_factory.mktemp("cache")))
        return package.build_wheel()


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_the_data_that_the_code_reads_and_no_link(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as inside:
        for name in INSIDE:
            assert inside.read(name) == (host.ROOT / name).read_bytes()
        assert not [name for name in inside.namelist() if name.startswith(("tests", "conf", "debian"))]


def test_the_wheel_runs_where_debian_s_packages_are_seen(wheel: Path, tmp_path: Path) -> None:
    run(host.PYTHON, "-m", "venv", "--system-site-packages", tmp_path / "venv", cwd=tmp_path)
    programs = tmp_path / "venv/bin"
    # PyGObject wants pycairo for what tierd does not use, which Debian's python3-gi goes without
    pip = (programs / "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps", wheel)
    run(*pip, cwd=tmp_path)
    assert run(programs / "tierctl", "--help", cwd=tmp_path).startswith("usage: tierctl ")
    assert Path(run(programs / "python", "-c", IMPORTS, cwd=tmp_path).strip()).is_relative_to(tmp_path)
    policy = tmp_path / "tierd.yaml"
    policy.write_text("version: 1\n")
    assert run(programs / "tierd", "--check-config", policy, cwd=tmp_path) == f"{policy}: OK\n"
