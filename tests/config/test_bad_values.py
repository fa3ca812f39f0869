"""Keys and values that a policy does not have: the place and the words of the complaint."""

from __future__ import annotations

import pytest

from tests.config.wrong import Case, assert_told, engine, include

SHAPE: dict[str, Case] = {
    "no-version": (
        "engine: {}\n",
        [(1, 1, "top level", "the key `version` is missing; write `version: 1`")],
    ),
    "version-2": (
        "version: 2\n",
        [(1, 10, "version", "the number `2` is not known here; write `version: 1`")],
    ),
    "version-text": ('version: "1"\n', [(1, 10, "version", "the text `1` cannot be here")]),
    "version-fraction": ("version: 1.0\n", [(1, 10, "version", "the number `1.0` cannot be here")]),
    "version-true": ("version: true\n", [(1, 10, "version", "the boolean `true` cannot be here")]),
    "unknown": ("version: 1\nfoo: 1\n", [(2, 1, "foo", "known are version, processes, engine, classes")]),
    "misspelt": (engine("bandwith: 1MiB/s"), [(3, 3, "engine.bandwith", "did you mean `bandwidth`?")]),
    "hyphen": (engine("dram-floor: 0B"), [(3, 3, "engine.dram-floor", "did you mean `dram_floor`?")]),
    "upper": ("version: 1\nEngine: {}\n", [(2, 1, "Engine", "did you mean `engine`?")]),
    "misplaced": (
        "version: 1\nbandwidth: 1MiB/s\n",
        [(2, 1, "bandwidth", "did you mean `engine.bandwidth`?")],
    ),
    "empty-section": (
        "version: 1\nengine:\n",
        [(2, 1, "engine", "this key has no value; remove the line, or write a mapping")],
    ),
    "empty-value": (
        engine("round:"),
        [(3, 3, "engine.round", "nothing cannot be here; write for example 30s")],
    ),
    "section-list": (
        "version: 1\nengine: [mode]\n",
        [(2, 9, "engine", "a list cannot be here; write a mapping")],
    ),
    "mode": (
        engine("mode: move"),
        [(3, 9, "engine.mode", "the text `move` is not known here; write place or observe")],
    ),
    "mode-list": (
        engine("mode: [place]"),
        [(3, 9, "engine.mode", "a list cannot be here; write place or observe")],
    ),
    "include-one": (
        "version: 1\nprocesses: {include: a.service}\n",
        [(2, 22, "processes.include", "write a list such as")],
    ),
    "include-word": (
        include("a.service"),
        [(4, 7, "processes.include[0]", "write {unit: NAME.service} or {cgroup:")],
    ),
    "rule-empty": (include("{}"), [(4, 7, "processes.include[0]", "this rule is empty")]),
    "rule-both": (
        include("{unit: a.service, cgroup: /a}"),
        [(4, 7, "processes.include[0]", "unit and cgroup in one rule")],
    ),
    "rule-unknown": (
        include("{units: a.service}"),
        [(4, 8, "processes.include[0].units", "did you mean `unit`?")],
    ),
    "rules-many": (
        "version: 1\nprocesses:\n  exclude: [" + "{cgroup: /a}," * 257 + "]\n",
        [(3, 12, "processes.exclude", "257 entries; at most 256 are read")],
    ),
}

VALUES: dict[str, Case] = {
    "size-bare": (
        engine("dram_floor: 512"),
        [
            (
                3,
                15,
                "engine.dram_floor",
                "`512` is a bare number; write a size with its unit, for example 512MiB",
            )
        ],
    ),
    "size-zero": (engine("dram_floor: 0"), [(3, 15, "engine.dram_floor", "for example 0B")]),
    "size-decimal-unit": (
        engine("dram_floor: 512MB"),
        [(3, 15, "engine.dram_floor", "`512MB` is not a size; write 512MiB")],
    ),
    "size-letter": (engine("dram_floor: 2G"), [(3, 15, "engine.dram_floor", "write 2GiB")]),
    "size-space": (engine("dram_floor: 64 MiB"), [(3, 15, "engine.dram_floor", "write 64MiB")]),
    "size-fraction": (engine("dram_floor: 1.5GiB"), [(3, 15, "engine.dram_floor", "write 1536MiB")]),
    "size-negative": (
        engine("dram_floor: -1MiB"),
        [(3, 15, "engine.dram_floor", "write a whole number and one of B, KiB")],
    ),
    "size-huge": (
        engine("dram_floor: 99999999TiB"),
        [(3, 15, "engine.dram_floor", "larger than any memory")],
    ),
    "size-share": (engine("dram_floor: 10%"), [(3, 15, "engine.dram_floor", "is not a size")]),
    "size-mapping": (
        engine("dram_floor: {}"),
        [(3, 15, "engine.dram_floor", "a mapping cannot be here; write for example 512MiB")],
    ),
    "rate-bare": (engine("bandwidth: 512"), [(3, 14, "engine.bandwidth", "for example 512MiB/s")]),
    "rate-size": (
        engine("bandwidth: 512MiB"),
        [(3, 14, "engine.bandwidth", "is not a rate; write 512MiB/s")],
    ),
    "rate-minute": (
        engine("bandwidth: 1GiB/min"),
        [(3, 14, "engine.bandwidth", "is not a rate; write 1GiB/s")],
    ),
    "rate-low": (
        engine("bandwidth: 1KiB/s"),
        [(3, 14, "engine.bandwidth", "`1KiB/s` is less than the minimum here, which is 1MiB/s")],
    ),
    "rate-high": (engine("bandwidth: 2TiB/s"), [(3, 14, "engine.bandwidth", "more than the maximum here")]),
    "duration-bare": (engine("round: 5"), [(3, 10, "engine.round", "for example 5s")]),
    "duration-word": (engine("round: 5 seconds"), [(3, 10, "engine.round", "write 5s")]),
    "duration-minute": (engine("cooldown: 5m"), [(3, 13, "engine.cooldown", "write 5min")]),
    "duration-fraction": (engine("round: 1.5s"), [(3, 10, "engine.round", "write 1500ms")]),
    "duration-short": (
        engine("round: 10ms"),
        [(3, 10, "engine.round", "less than the minimum here, which is 100ms")],
    ),
    "duration-long": (
        engine("round: 61s"),
        [(3, 10, "engine.round", "more than the maximum here, which is 1min")],
    ),
    "half-life-zero": (
        engine("heat_half_life: 0s"),
        [(3, 19, "engine.heat_half_life", "less than the minimum")],
    ),
    "share-bare": (engine("pressure_limit: 40"), [(3, 19, "engine.pressure_limit", "for example 40%")]),
    "share-of-one": (
        engine("pressure_limit: 0.4"),
        [(3, 19, "engine.pressure_limit", "a share with its sign: as a share of one it is 40%")],
    ),
    "share-one": (engine("pressure_limit: 1"), [(3, 19, "engine.pressure_limit", "100% if it is a share")]),
    "share-bare-high": (
        engine("pressure_limit: 140"),
        [(3, 19, "engine.pressure_limit", "for example 40%")],
    ),
    "floor-high": (
        engine("dram_floor: 512TiB"),
        [(3, 15, "engine.dram_floor", "`512TiB` is more than the maximum here, which is 64TiB")],
    ),
    "process-high": (
        engine("minimum_process: 65TiB"),
        [(3, 20, "engine.minimum_process", "`65TiB` is more than the maximum here, which is 64TiB")],
    ),
    "share-high": (engine("pressure_limit: 101%"), [(3, 19, "engine.pressure_limit", "more than 100%")]),
    "share-zero": (
        engine("pressure_limit: 0%"),
        [(3, 19, "engine.pressure_limit", "less than the minimum")],
    ),
    "unit-suffix": (
        include("unit: postgresql"),
        [(4, 13, "processes.include[0].unit", "write postgresql.service")],
    ),
    "unit-timer": (
        include("unit: a.timer"),
        [(4, 13, "processes.include[0].unit", "runs no processes of its own")],
    ),
    "unit-glob": (
        include('unit: "a*.service"'),
        [(4, 13, "processes.include[0].unit", 'write cgroup: "*/a*.service"')],
    ),
    "unit-path": (
        include("unit: /a/b.service"),
        [(4, 13, "processes.include[0].unit", "is a path; unit takes a name")],
    ),
    "unit-template": (
        include("unit: a@.service"),
        [(4, 13, "processes.include[0].unit", 'cgroup: "*/a@*.service"')],
    ),
    "unit-nameless": (
        include("unit: .service"),
        [(4, 13, "processes.include[0].unit", "a suffix and no name")],
    ),
    "unit-space": (
        include("unit: a b.service"),
        [(4, 13, "processes.include[0].unit", "not the name of a systemd unit")],
    ),
    "unit-number": (include("unit: 5"), [(4, 13, "processes.include[0].unit", 'write "5" in quotes')]),
    "cgroup-relative": (
        include("cgroup: a.slice"),
        [(4, 15, "processes.include[0].cgroup", 'write "/a.slice" or "*/a.slice"')],
    ),
    "cgroup-mount": (
        include("cgroup: /sys/fs/cgroup/a"),
        [(4, 15, "processes.include[0].cgroup", "below the cgroup root")],
    ),
    "cgroup-slash": (include("cgroup: /a/"), [(4, 15, "processes.include[0].cgroup", 'write "/a/*"')]),
    "cgroup-dots": (include("cgroup: /a/../b"), [(4, 15, "processes.include[0].cgroup", "matches nothing")]),
    "cgroup-long": (
        include("cgroup: /" + "a" * 2000),
        [(4, 15, "processes.include[0].cgroup", "longer than 1024 characters")],
    ),
    "cgroup-empty": (include('cgroup: ""'), [(4, 15, "processes.include[0].cgroup", "matches nothing")]),
}


@pytest.mark.parametrize("case", [*SHAPE.values(), *VALUES.values()], ids=[*SHAPE, *VALUES])
def test_every_problem_is_told_at_its_place(case: Case) -> None:
    assert_told(case)
