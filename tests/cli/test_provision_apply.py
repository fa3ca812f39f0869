"""`tierctl provision apply` on a simulated region, with the policy of `provision set`'s tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.test_provision_set import TEXT, Bench, bench
from tierd.cli import main

__all__ = ["bench"]


def run(*words: str) -> int:
    return main.main(["provision", "apply", *words])


def test_it_is_shown_and_carried_out_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pmem0", "--yes") == 0
    said = capsys.readouterr().out
    assert "becomes 1GiB in 8 blocks" in said and said.endswith("pmem0: done\n")
    assert bench.units == ["tierd-convert@pmem0.service"] and len(bench.machine.online()) == 8
    assert run("pmem0", "--yes") == 0
    assert len(bench.units) == 1, "there is nothing left to do"


def test_without_consent_it_only_shows(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("pmem0") == 1
    said = capsys.readouterr()
    assert "ndctl create-namespace" in said.out and "nothing was changed" in said.err
    assert bench.units == [] and bench.machine.acts() == []


def test_mode_plan_is_not_carried_out(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.policy.write_text(TEXT.replace("apply", "plan"))
    assert run("pmem0", "--yes") == 1
    assert "nothing is run while the policy says `mode: plan`" in capsys.readouterr().out
    assert bench.units == []


def test_a_refusal_and_a_request_that_is_not_there(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("other", "--yes") == 5
    assert "no request named other; there is pmem0" in capsys.readouterr().err
    bench.policy.write_text(TEXT.replace("1GiB", "64GiB"))
    assert run("pmem0", "--yes") == 1
    assert "not enough free capacity" in capsys.readouterr().out
    assert bench.units == []


def test_a_unit_that_did_not_do_it_is_not_believed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.works = False
    assert run("pmem0", "--yes") == 1
    assert "journalctl -u tierd-convert@pmem0.service" in capsys.readouterr().err


def test_only_root(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("pmem0", "--yes") == 4
    assert bench.units == [] and Path(bench.policy).read_text() == TEXT
