"""What contenders write and put back, on a tree of files in place of a guest's."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bench import contenders, damon
from tests.vm import host


class Files:
    """Runs a guest's commands here. Only for scripts whose paths the test has moved into its own
    directory."""

    def run(self, command: Any, *, check: bool = True, **_: Any) -> subprocess.CompletedProcess[str]:
        script = command if isinstance(command, str) else shlex.join(command)
        return subprocess.run(["bash", "-c", script], check=check, capture_output=True, text=True)

    def output(self, command: Any, **_: Any) -> str:
        return self.run(command).stdout.rstrip("\n")


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("demotion", "balancing")}
    for path in found.values():
        path.write_text("0")
    return found


def test_settings_are_put_back_even_when_the_contender_fails(settings: dict[str, Path]) -> None:
    wanted = {str(settings["demotion"]): "1", str(settings["balancing"]): "2"}
    with pytest.raises(RuntimeError), contenders.changed(Files(), wanted):  # type: ignore[arg-type]
        assert [path.read_text() for path in settings.values()] == ["1", "2"]
        raise RuntimeError
    assert [path.read_text() for path in settings.values()] == ["0", "0"]


def test_setting_that_does_not_go_back_is_an_error(settings: dict[str, Path], tmp_path: Path) -> None:
    stubborn = tmp_path / "stubborn"
    stubborn.symlink_to("/dev/null")
    with (
        pytest.raises(host.HostError, match=r"not put back in the guest: .*demotion"),
        contenders.changed(Files(), {str(settings["demotion"]): "1"}),  # type: ignore[arg-type]
    ):
        settings["demotion"].unlink()
        settings["demotion"].symlink_to(stubborn)


@pytest.fixture
def kernel_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DAMON's directory with every file that the two threads' settings name."""
    monkeypatch.setattr(damon, "ADMIN", str(tmp_path))
    monkeypatch.setattr(damon, "node_ranges", lambda guest, node: [(node << 32, (node << 32) + 4096)])
    (tmp_path / "nr_kdamonds").touch()
    for number, scheme in enumerate(damon.SCHEMES):
        paths = [path for path, _ in damon._settings(scheme, [(0, 4096)])]
        for path in (*paths, "state"):
            file = tmp_path / str(number) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return tmp_path


def test_damon_is_set_as_its_script_sets_it(kernel_threads: Path) -> None:
    damon.start(Files())  # type: ignore[arg-type]
    down, up = (kernel_threads / str(number) / "contexts/0" for number in (0, 1))

    def value(path: Path) -> str:
        return path.read_text()

    assert [value(d / "schemes/0/action") for d in (down, up)] == ["migrate_cold", "migrate_hot"]
    assert [value(d / "schemes/0/quotas/goals/0/target_value") for d in (down, up)] == ["50", "9970"]
    assert [value(d / "schemes/0/ops_filters/0/allow") for d in (down, up)] == ["N", "Y"]
    assert [value(d / "targets/0/regions/0/start") for d in (down, up)] == ["0", str(1 << 32)]
    assert value(up / "schemes/0/access_pattern/nr_accesses/min") == "1"
    assert [value(kernel_threads / str(number) / "state") for number in (0, 1)] == ["on", "on"]
    damon.stop(Files())  # type: ignore[arg-type]
    assert [value(kernel_threads / str(number) / "state") for number in (0, 1)] == ["off", "off"]
    assert value(kernel_threads / "nr_kdamonds") == "0"


def test_kernel_without_damon_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(damon, "ADMIN", str(tmp_path / "nowhere"))
    assert damon.lacking(Files()) == "the kernel has no DAMON"  # type: ignore[arg-type]


def test_kernel_whose_damon_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "0/contexts/0/schemes/0/quotas/goals/0").mkdir(parents=True)
    (tmp_path / "0/contexts/0/schemes/0/ops_filters").mkdir()
    monkeypatch.setattr(damon, "ADMIN", str(tmp_path))
    why = damon.lacking(Files())  # type: ignore[arg-type]
    assert why == (
        "its DAMON has no intervals that tune themselves (6.15), no goals for the memory of a node (6.16)"
    )
    assert (tmp_path / "nr_kdamonds").read_text() == "0\n"
