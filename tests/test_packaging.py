"""The package's own scripts, without a package: what they ask of systemd, and what a purge takes away."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ("postinst", "prerm", "postrm")


def script(name: str) -> str:
    return (ROOT / f"debian/tierd.{name}").read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_units_are_started_and_stopped_as_the_administrator_s_policy_permits(name: str) -> None:
    """deb-systemd-invoke asks policy-rc.d; reading the units anew needs nobody's leave."""
    assert set(re.findall(r"\bsystemctl\b.*", script(name))) <= {"systemctl --system daemon-reload || true"}
    subprocess.run(["sh", "-n"], input=script(name), text=True, check=True)


def test_a_purge_takes_away_the_links_of_enabled_requests_and_no_other(tmp_path: Path) -> None:
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    for name in ("tierd-convert@pmem0.service", "other@pmem0.service"):
        (wants / name).symlink_to("/nowhere")
    acts = "\n".join(line for line in script("postrm").splitlines() if not line.startswith("#"))
    text = re.sub(r"(?<= )/(?=etc|var|run)", f"{tmp_path}/", acts)
    assert text.count(str(tmp_path)) == 3
    for reason, left in (("remove", 2), ("purge", 1), ("purge", 1)):
        subprocess.run(["sh", "-s", reason], input=text, text=True, check=True)
        assert len(list(wants.iterdir())) == left
    assert [path.name for path in wants.iterdir()] == ["other@pmem0.service"]
