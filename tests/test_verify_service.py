"""What the rows of `./dev verify service` make of what they see, without a guest."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import pytest

from tests.verify.service_rows import authorisation, new_user, packaging, security
from tests.verify.service_rows.authorisation import EXPECTED, outcome
from tests.verify.service_rows.callers import CALLERS, Answer
from tests.verify.service_rows.terminal import Shown, frames, too_wide, top_faults
from tests.verify.service_rows.terminal_cases import CASES, Case, left_out
from tests.vm import host, image
from tierd.cli.main import parser
from tierd.config.loader import parse
from tierd.core.policy import EngineMode, ProvisionMode
from tierd.service.log_control import XML as LOG_CONTROL


def test_scores_are_read_from_what_systemd_prints() -> None:
    text = """\
  NAME DESCRIPTION EXPOSURE
✗ RootDirectory= Service runs within the host's root directory 0.1

→ Overall exposure level for tierd.service: 1.9 OK :-)
→ Overall exposure level for tierd-drain@0x1.service: 10.0 UNSAFE
"""
    assert security.scores(text) == {"tierd.service": 1.9, "tierd-drain@0x1.service": 10.0}


def test_every_member_that_the_interfaces_describe_has_its_row_for_each_caller() -> None:
    files = ("org.tierd1.xml", "org.tierd1.Tier.xml")
    described = {
        member
        for xml in (*((host.ROOT / "conf/dbus" / name).read_text() for name in files), LOG_CONTROL)
        for member in authorisation.members(xml)
    }
    known = {name.partition(",")[0] for name in EXPECTED}
    assert described <= known and "org.tierd1.Manager.Pause" in described
    assert {len(row) for row in EXPECTED.values()} == {len(CALLERS)}
    assert set(EXPECTED) - {name for name, _ in authorisation.calls("/tier", "1")} == {
        "org.tierd1.Manager.Resume"
    }


def test_an_answer_is_told_in_the_words_of_the_table() -> None:
    rows = '{"type":"aa{sv}","data":[[%s]]}'
    mine, theirs = '{"Uid":{"type":"u","data":1000}}', '{"Uid":{"type":"u","data":0}}'
    listing = "org.tierd1.Manager.ListProcesses"
    assert outcome(listing, Answer(0, rows % mine)) == "own"
    assert outcome(listing, Answer(0, rows % f"{mine},{theirs}")) == "all"
    assert outcome(listing, Answer(0, rows % "")) == "nothing"
    password = "Call failed: not permitted: it takes a password (org.tierd1.manage)"
    assert outcome("org.tierd1.Manager.Pause", Answer(1, password)) == "password"
    assert outcome("org.tierd1.Manager.Pause", Answer(0, "")) == "yes"
    rejected = 'Call failed: Rejected send message, 2 matched rules; type="method_call"'
    assert outcome("org.tierd1.Manager.Pause", Answer(1, rejected)) == "bus"
    assert (
        outcome("org.tierd1.Manager.Pause", Answer(1, "Call failed: something")) == "Call failed: something"
    )


def test_only_a_path_may_make_a_line_wider_than_the_terminal() -> None:
    path = "/sys/devices/" + "x" * 90
    assert too_wide("word " * 16 + "\r\n", 80) == []
    assert too_wide("\x1b[31m" + "x" * 80 + "\x1b[0m\r\n", 80) == []
    assert too_wide(f"the file {path} is missing\n", 80) == []
    assert len(too_wide("x" * 81 + "\n" + "y" * 81 + f" {path}\n", 80)) == 2


def _shown(case: Case, code: int = 0, output: str = "", errors: str = "", columns: int = 80) -> Shown:
    return Shown(case, columns, code, output, errors)


def test_a_screen_is_held_against_what_is_documented() -> None:
    plain, as_json = Case("status"), Case("status --json", piped=True)
    assert list(_shown(plain, output="fine\r\n").faults()) == []
    assert list(_shown(plain, code=1, output="so\n").faults()) == ["exit status 1, not 0"]
    assert list(_shown(plain, output="Traceback (most recent call last)").faults()) == ["a traceback"]
    assert list(_shown(plain, columns=0, output="\x1b[1mbold").faults()) == ["escape sequences in a pipe"]
    assert list(_shown(as_json, columns=0, output="{}").faults()) == []
    assert list(_shown(as_json, columns=0, output="fine").faults()) == ["no JSON"]
    assert len(list(_shown(plain, output="x" * 81).faults())) == 1
    # a format's own lines are as long as they are
    assert list(_shown(Case("metrics"), output="x" * 81).faults()) == []


ENTER, LEAVE = "\x1b[?1049h\x1b[H\x1b[2J", "\x1b[?1049l"


def _trace(*starts: str) -> str:
    return "".join(f'write(1, "{start}"..., 100) = 100\n' for start in starts)


def test_a_frame_of_top_is_one_write_and_clears_nothing() -> None:
    output = ENTER + "\x1b[Hone\x1b[K\x1b[J" * 3 + LEAVE
    top = _shown(Case("top"), output=output)
    assert len(frames(output)) == 3
    good = _trace("\\33[?1", *["\\33[H\\33"] * 3, "\\33[0m")
    assert list(top_faults(top, good)) == []
    assert "writes" in "".join(top_faults(top, good + _trace("\\33[K\\33")))
    assert "writes" in "".join(top_faults(top, good.replace("= 100", "= 60", 3)))
    clearing = _shown(Case("top"), output=output.replace("one", "\x1b[2Jone"))
    assert "clears the screen 4 times" in "".join(top_faults(clearing, good))
    assert "1 frames" in "".join(top_faults(_shown(Case("top"), output="\x1b[Hx\x1b[J"), good))


def test_every_command_is_tried_and_one_that_is_new_would_be_missed() -> None:
    assert left_out(parser()) == []
    more = argparse.ArgumentParser()
    commands = more.add_subparsers()
    commands.add_parser("status").add_argument("--json", action="store_true")
    commands.add_parser("metrics").add_argument("--json", action="store_true")
    commands.add_parser("new")
    assert left_out(more) == ["metrics --json", "new"]
    assert {case.code for case in CASES} == {0, 1, 2, 3, 4, 5, 6, 78}


def test_the_earlier_package_differs_by_its_version_alone(tmp_path: Path) -> None:
    tree = tmp_path / "made"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: tierd\nVersion: 0.1.0\nArchitecture: all\nMaintainer: a <a@b.invalid>\nDescription: x\n"
    )
    (tree / "file").write_text("text")
    package = tmp_path / "tierd.deb"
    subprocess.run(["dpkg-deb", "-b", tree, package], check=True, capture_output=True)
    (tmp_path / "scratch").mkdir()
    old = packaging.earlier(package, tmp_path / "scratch")
    control = subprocess.check_output(["dpkg-deb", "-f", old], text=True)
    assert f"Version: {packaging.EARLIER_VERSION}\n" in control and "Package: tierd\n" in control
    assert "./file" in subprocess.check_output(["dpkg-deb", "-c", old], text=True)


def test_a_recipe_that_has_a_kernel_is_not_changed_for_it() -> None:
    assert image.having(image.BOOKWORM, "6.1") is image.BOOKWORM
    assert image.having(image.RECIPE, "7.3") is image.RECIPE
    assert "6.1" in [kernel.name for kernel in image.having(image.RECIPE, "6.1").kernels]


def test_what_a_new_user_types_is_what_the_readme_says() -> None:
    found = new_user.deeds((host.ROOT / "README.md").read_text())
    assert [deed.text.partition("\n")[0] for deed in found] == [
        "./dev package --output .",
        "sudo apt install ./tierd_*_all.deb",
        "sudo tierctl list devices",
        "provision:",
        "sudo tierctl provision plan",
        "mode: apply",
        "sudo systemctl enable --now tierd-convert@pmem0",
        "mode: place",
        "sudo tierctl check-config",
        "sudo systemctl enable --now tierd",
        "tierctl status",
    ]


def test_what_a_new_user_writes_is_the_policy_that_the_row_needs() -> None:
    text = (host.ROOT / "conf/tierd.yaml").read_text()
    for deed in new_user.deeds((host.ROOT / "README.md").read_text()):
        if deed.kind is not new_user.Kind.RUN:
            text = new_user.edited(text, deed, "0x123456789abcdef", "load.service")
            with pytest.raises(ValueError, match="the policy has no"):
                new_user.edited(text, deed, "0x123456789abcdef", "load.service")
    policy = parse(text.encode(), "tierd.yaml")
    (request,) = policy.provision
    assert (request.name, request.mode) == ("pmem0", ProvisionMode.APPLY)
    assert request.iset_id == 0x123456789ABCDEF
    assert policy.engine.mode is EngineMode.PLACE
    assert "{unit: load.service}" in text and '{cgroup: "*"}' not in text


def test_an_iset_id_is_told_from_a_serial_number() -> None:
    listed = "nmem0    4.0 GiB  0x00123456  ok\nregion0  4.0 GiB  0x9f2c0e5a1b3d7788\n"
    assert new_user.iset_id_in(listed) == "0x9f2c0e5a1b3d7788"
    with pytest.raises(ValueError, match="shows no iset_id"):
        new_user.iset_id_in("there are no regions")
