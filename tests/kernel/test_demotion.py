"""demotion_enabled through its door."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierd.kernel.demotion import Demotion


@pytest.fixture
def setting(tmp_path: Path) -> Path:
    path = tmp_path / "demotion_enabled"
    path.write_text("false\n")
    return path


@pytest.fixture
def door(setting: Path) -> Iterator[int]:
    descriptor = os.open(setting, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def value(setting: Path) -> str:
    return setting.read_text().split()[0]  # a file keeps the end of a longer word; sysfs does not


def test_on_for_moving_and_back(setting: Path, door: int) -> None:
    demotion = Demotion(door)
    assert not demotion.on
    demotion.follow(True)
    assert (value(setting), demotion.on) == ("true", True)
    setting.write_text("true\n")
    demotion.follow(False)
    assert (value(setting), demotion.on) == ("false", False)


def test_what_was_on_stays_on(setting: Path, door: int) -> None:
    setting.write_text("true\n")
    demotion = Demotion(door)
    demotion.follow(False)
    assert demotion.on
    demotion.follow(True)
    assert setting.read_text() == "true\n", "nothing was written"


def test_what_others_change_is_seen_and_set_again_when_asked(setting: Path, door: int) -> None:
    demotion = Demotion(door)
    demotion.follow(True)
    setting.write_text("false\n")
    assert not demotion.on
    demotion.follow(True)
    assert demotion.on


def test_without_a_door_it_is_off() -> None:
    demotion = Demotion(None)
    demotion.follow(True)
    assert not demotion.on


def test_what_the_kernel_refuses_shows(setting: Path) -> None:
    descriptor = os.open(setting, os.O_RDONLY)
    demotion = Demotion(descriptor)
    demotion.follow(True)
    assert not demotion.on
    os.close(descriptor)
    assert not demotion.on
