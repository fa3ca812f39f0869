"""Every way to write a wrong policy that we could think of: the place and the words of the complaint."""

from __future__ import annotations

import pytest

from tierd.config.loader import parse
from tierd.errors import ConfigError

# (document, [(line, column, path, part of the message), ...]): all problems, in order.
Case = tuple[str, list[tuple[int, int, str, str]]]


def engine(line: str) -> str:
    return f"version: 1\nengine:\n  {line}\n"


def include(rule: str) -> str:
    return f"version: 1\nprocesses:\n  include:\n    - {rule}\n"


def provision(*entries: str) -> str:
    return "version: 1\nprovision:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries)


REGION = 'region: {iset_id: "0x9f2c"}'

YAML: dict[str, Case] = {
    "empty": ("", [(1, 1, "top level", "is empty; write at least the line `version: 1`")]),
    "comment-only": ("# nothing\n", [(1, 1, "top level", "is empty")]),
    "null": ("null\n", [(1, 1, "top level", "is empty")]),
    "marker-only": ("---\n", [(1, 1, "top level", "is empty")]),
    "list": ("[a]\n", [(1, 1, "top level", "a list cannot be here; write a mapping")]),
    "text": ("observe\n", [(1, 1, "top level", "the text `observe` cannot be here")]),
    "tab-indent": (
        "version: 1\nengine:\n\tmode: place\n",
        [(3, 1, "top level", "indent and separate with spaces")],
    ),
    "tab-before-value": (engine("mode:\tplace"), [(3, 8, "engine", "spaces")]),
    "tab-in-text": (engine('mode: "pl\tace"'), [(3, 9, "engine.mode", "a tab (U+0009)")]),
    "duplicate-top": (
        "version: 1\nengine: {}\nengine: {}\n",
        [(3, 1, "engine", "already on line 2; keep one of the two")],
    ),
    "duplicate-nested": (
        "version: 1\nengine:\n  mode: place\n  mode: observe\n",
        [(4, 3, "engine.mode", "already on line 3")],
    ),
    "anchor": (
        engine("round: &r 1s"),
        [(3, 10, "engine.round", "`&r` is an anchor in YAML; write the value out")],
    ),
    "anchor-on-mapping": ("version: 1\nengine: &e {}\n", [(2, 9, "engine", "`&e` is an anchor")]),
    "alias": (engine("round: *r"), [(3, 10, "engine.round", "`*r` is an alias")]),
    "bare-star": (include("{cgroup: *}"), [(4, 16, "processes.include", "write a glob in quotes")]),
    "bare-star-glob": (include("{cgroup: */a}"), [(4, 16, "processes.include", "write a glob in quotes")]),
    "bare-star-word": (include("cgroup: *db*"), [(4, 15, "processes.include[0]", "write a glob in quotes")]),
    "merge": ("version: 1\n<<: {a: 1}\n", [(2, 1, "top level", "merge keys (`<<`) are not accepted")]),
    "tag": (engine("mode: !!str place"), [(3, 9, "engine.mode", "the tag `!!str` is not accepted")]),
    "python-tag": (
        engine("mode: !!python/object/apply:os.system [id]"),
        [(3, 9, "engine.mode", "the tag `!!python/object/apply:os.system` is not accepted")],
    ),
    "undefined-tag": (engine("mode: !x!y place"), [(3, 9, "engine", "begins a tag in YAML")]),
    "number-key": ("version: 1\n5: 1\n", [(2, 1, "top level", "the key `5` is not a word")]),
    "boolean-key": ("version: 1\non: 1\n", [(2, 1, "top level", "the key `on` is not a word")]),
    "null-key": ("version: 1\n~: 1\n", [(2, 1, "top level", "the key `~` is not a word")]),
    "list-key": ("version: 1\n? [a]\n: 1\n", [(2, 3, "top level", "cannot be a key")]),
    "alias-key": ("version: 1\n*a : 1\n", [(2, 1, "?", "is an alias")]),
    "tagged-key": ("version: 1\n!!str engine: {}\n", [(2, 1, "top level", "the tag `!!str`")]),
    "documents": ("version: 1\n---\nversion: 1\n", [(2, 1, "top level", "a second document begins here")]),
    "directive": ("%YAML 1.2\n---\nversion: 1\n", [(1, 1, "top level", "directives (%YAML, %TAG)")]),
    "bad-directive": (
        "%YAML x\n---\nversion: 1\n",
        [(1, 7, "top level", "is a directive in YAML; remove the line")],
    ),
    "deep": ("a: " + "[" * 20 + "]" * 20, [(1, 19, "a[0][0][0]", "nested deeper than 16 levels")]),
    "many": ("a: [" + "1," * 3000 + "]", [(1, 4001, "top level", "more than 2000 values")]),
    "unclosed-quote": (engine('mode: "place'), [(3, 9, "engine", "this quote is not closed")]),
    "after-quote": (engine("mode: 'place'x"), [(3, 16, "engine", "this follows a value that has ended")]),
    "bad-escape": (engine('mode: "pl\\qace"'), [(3, 13, "engine", "unknown escape")]),
    "unclosed-list": (
        "version: 1\nprocesses:\n  include: [{cgroup: '*'}\nengine: {}\n",
        [(3, 12, "processes.include", "this `[` is not closed")],
    ),
    "unclosed-mapping": ("version: 1\nengine: {mode: place\n", [(2, 9, "engine", "this `{` is not closed")]),
    "no-space": ("version:1\nengine: {}\n", [(2, 7, "top level", "does the line above lack its own")]),
    "no-colon": ("version: 1\nengine\n", [(2, 1, "top level", "`key: value` is expected")]),
    "two-colons": (engine("mode: place: x"), [(3, 14, "engine", "no colon is expected here")]),
    "dedent": (
        "version: 1\nengine:\n    mode: place\n  round: 1s\n",
        [(4, 3, "top level", "keys of one block begin in one column")],
    ),
    "top-dedent": (
        "  version: 1\nengine: {}\n",
        [(2, 1, "top level", "top-level keys begin in one column")],
    ),
    "at-sign": (engine("mode: @place"), [(3, 9, "engine", "write the value in quotes")]),
    "entry-in-value": (engine("mode: - place"), [(3, 9, "engine", "a list entry is not expected here")]),
    "two-lines": (engine("mode: |\n    place"), [(3, 9, "engine.mode", "a line break (U+000A)")]),
    "escape-character": (engine('mode: "\\e[31m"'), [(3, 9, "engine.mode", "an escape character (U+001B)")]),
    "surrogate": (engine('mode: "\\ud800"'), [(3, 9, "engine.mode", "U+D800")]),
    "impossible-escape": (engine('mode: "\\Uffffffff"'), [(3, 12, "engine", "cannot be read as YAML")]),
    "no-break-space": (engine("mode: pl\u00a0ace"), [(3, 9, "engine.mode", "U+00A0")]),
    "line-separator": (engine("mode: pl\u2028ace"), [(3, 11, "top level", "U+2028")]),
    "carriage-return": (
        "version: 1\rengine: {}\n",
        [(1, 11, "top level", "a carriage return without a line feed")],
    ),
    "nul": ("version: 1\n# \0\n", [(2, 3, "top level", "a NUL character (U+0000)")]),
}

WORDS: dict[str, Case] = {
    "on": (
        engine("mode: on"),
        [(3, 9, "engine.mode", 'means true in YAML 1.1; write true if that is meant; write "on"')],
    ),
    "yes": (engine("mode: Yes"), [(3, 9, "engine.mode", "`Yes` means true")]),
    "off": (engine("huge_pages: off"), [(3, 15, "engine.huge_pages", "`off` means false")]),
    "n": (engine("huge_pages: n"), [(3, 15, "engine.huge_pages", "`n` means false")]),
    "TRUE": (engine("huge_pages: TRUE"), [(3, 15, "engine.huge_pages", "`TRUE` means true")]),
    "true": (
        engine("huge_pages: true"),
        [(3, 15, "engine.huge_pages", "the boolean `true` cannot be here; write split or leave")],
    ),
    "Null": (engine("mode: Null"), [(3, 9, "engine.mode", "no value at all")]),
    "octal": (engine("round: 010"), [(3, 10, "engine.round", "`010` is an octal number")]),
    "octal-new": (engine("round: 0o10"), [(3, 10, "engine.round", "octal")]),
    "binary": (engine("round: 0b11"), [(3, 10, "engine.round", "binary")]),
    "base-60": (engine("cooldown: 12:30"), [(3, 13, "engine.cooldown", "to base 60")]),
    "exponent": (
        engine("dram_floor: 1e3"),
        [(3, 15, "engine.dram_floor", "`1e3` is read as a number by some")],
    ),
    "underscore": (engine("dram_floor: 1_000"), [(3, 15, "engine.dram_floor", "write plain digits")]),
    "plus": (engine("dram_floor: +5"), [(3, 15, "engine.dram_floor", "write plain digits")]),
    "no-zero": (engine("dram_floor: .5"), [(3, 15, "engine.dram_floor", "write plain digits")]),
    "long": (engine("dram_floor: " + "9" * 5000), [(3, 15, "engine.dram_floor", "too large a number")]),
    "nan": (engine("pressure_limit: .NaN"), [(3, 19, "engine.pressure_limit", "infinite or not a number")]),
    "inf": (engine("pressure_limit: -.inf"), [(3, 19, "engine.pressure_limit", "infinite or not a number")]),
    "date": (
        provision(f"name: 2026-01-02, {REGION}, size: all"),
        [(3, 12, "provision[0].name", "is a date in YAML")],
    ),
    "equals": (engine("mode: ="), [(3, 9, "engine.mode", "stands for a default value")]),
}

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
    "unknown": ("version: 1\nfoo: 1\n", [(2, 1, "foo", "known are version, processes, engine, provision")]),
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

ISET = "provision[0].region.iset_id"
PROVISION: dict[str, Case] = {
    "mapping": ("version: 1\nprovision: {}\n", [(2, 12, "provision", "write a list of requests")]),
    "all": ("version: 1\nprovision: all\n", [(2, 12, "provision", "write a list of requests")]),
    "bare": (
        provision(""),
        [(3, 5, "provision[0]", f"the key `{key}` is missing") for key in ("name", "region", "size")],
    ),
    "region-name": (
        provision("name: a, region: region0, size: all"),
        [(3, 23, "provision[0].region", "names such as region0 renumber")],
    ),
    "region-empty": (
        provision("name: a, region: {}, size: all"),
        [(3, 23, "provision[0].region", "the key `iset_id` is missing; names")],
    ),
    "region-dev": (
        provision("name: a, region: {dev: region0}, size: all"),
        [
            (3, 23, "provision[0].region", "the key `iset_id` is missing"),
            (3, 24, "provision[0].region.dev", "renumber over reboots; write the iset_id"),
        ],
    ),
    "iset-name": (
        provision("name: a, region: {iset_id: region0}, size: all"),
        [(3, 33, ISET, "is a name, and names renumber")],
    ),
    "iset-namespace": (
        provision("name: a, region: {iset_id: namespace0.0}, size: all"),
        [(3, 33, ISET, "is a name, and names renumber")],
    ),
    "iset-all": (
        provision("name: a, region: {iset_id: all}, size: all"),
        [(3, 33, ISET, "is a name, and names renumber")],
    ),
    "iset-glob": (
        provision('name: a, region: {iset_id: "0x9*"}, size: all'),
        [(3, 33, ISET, "is a glob; one region is meant")],
    ),
    "iset-no-0x": (
        provision("name: a, region: {iset_id: 9f2c}, size: all"),
        [(3, 33, ISET, "is not an interleave set; write the iset_id")],
    ),
    "iset-wide": (
        provision('name: a, region: {iset_id: "18446744073709551616"}, size: all'),
        [(3, 33, ISET, "more than 64 bits")],
    ),
    "iset-zero": (
        provision("name: a, region: {iset_id: 0}, size: all"),
        [(3, 33, ISET, "the region has no labels")],
    ),
    "iset-true": (
        provision("name: a, region: {iset_id: true}, size: all"),
        [(3, 33, ISET, "the boolean `true` is not an interleave set")],
    ),
    "namespace": (
        provision(f"name: a, {REGION}, size: all, namespace: namespace0.0"),
        [(3, 55, "provision[0].namespace", "names renumber, and their data would be lost")],
    ),
    "size-small": (
        provision(f"name: a, {REGION}, size: 64MiB"),
        [(3, 50, "provision[0].size", "the minimum here, which is 128MiB")],
    ),
    "size-share": (
        provision(f"name: a, {REGION}, size: 50%"),
        [(3, 50, "provision[0].size", "is not a size")],
    ),
    "name-space": (
        provision(f"name: a b, {REGION}, size: all"),
        [(3, 12, "provision[0].name", "`a b` is not a name")],
    ),
    "name-dash": (
        provision(f"name: -a, {REGION}, size: all"),
        [(3, 12, "provision[0].name", "beginning with a letter or digit")],
    ),
    "name-long": (
        provision(f"name: {'a' * 57}, {REGION}, size: all"),
        [(3, 12, "provision[0].name", "up to 56")],
    ),
    "name-number": (
        provision(f"name: 0, {REGION}, size: all"),
        [(3, 12, "provision[0].name", 'write "0" in quotes')],
    ),
    "mode": (
        provision(f"name: a, {REGION}, size: all, mode: place"),
        [(3, 61, "provision[0].mode", "write apply or plan")],
    ),
    "same-name": (
        provision(f"name: a, {REGION}, size: 1GiB", f"name: a, {REGION}, size: 1GiB"),
        [(4, 12, "provision[1].name", "already used on line 3")],
    ),
    "all-twice": (
        provision(f"name: a, {REGION}, size: all", "name: b, region: {iset_id: 40748}, size: all"),
        [
            (3, 50, "provision[0].size", "also asked for on line 4"),
            (4, 47, "provision[1].size", "also asked for on line 3"),
        ],
    ),
    "all-beside-size": (
        provision(f"name: a, {REGION}, size: 1GiB", f"name: b, {REGION}, size: all"),
        [(4, 50, "provision[1].size", "also asked for on line 3; write a size for each")],
    ),
}

CASES = {
    f"{group}-{name}": case
    for group, cases in (
        ("yaml", YAML),
        ("words", WORDS),
        ("shape", SHAPE),
        ("values", VALUES),
        ("provision", PROVISION),
    )
    for name, case in cases.items()
}


def problems(document: str | bytes) -> list[str]:
    content = document if isinstance(document, bytes) else document.encode("utf-8", "surrogatepass")
    with pytest.raises(ConfigError) as caught:
        parse(content, "t.yaml")
    return list(caught.value.problems)


@pytest.mark.parametrize("name", CASES)
def test_every_problem_is_told_at_its_place(name: str) -> None:
    document, expected = CASES[name]
    told = problems(document)
    assert len(told) == len(expected), told
    for line, (row, column, path, part) in zip(told, expected, strict=True):
        assert line.startswith(f"t.yaml:{row}:{column}: {path}: "), line
        assert part in line
        assert line.isprintable()


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 60


def test_all_problems_at_once_in_the_order_of_the_text() -> None:
    told = problems(
        "version: 3\n"
        "provision:\n  - {name: a, region: region0, size: 5}\n"
        "engine:\n  round: 010\n  rond: 1s\n  mode: place\n  mode: place\n"
        "processes:\n  include: [{unit: a}]\n"
    )
    assert [line.split(": ")[0] for line in told] == [
        "t.yaml:1:10",
        "t.yaml:3:23",
        "t.yaml:3:38",
        "t.yaml:5:10",
        "t.yaml:6:3",
        "t.yaml:8:3",
        "t.yaml:10:20",
    ]


def test_columns_count_characters_not_bytes() -> None:
    assert problems('version: 1\nengine: {"ä": 1, mode: on}\n')[1].startswith("t.yaml:2:24: ")


def test_windows_line_ends_count_once() -> None:
    assert problems("version: 1\r\nengine:\r\n  mode: on\r\n")[0].startswith("t.yaml:3:9: engine.mode: ")


def test_bytes_that_are_not_utf8_have_a_place() -> None:
    assert problems(b"version: 1\n# caf\xe9\n") == [
        "t.yaml:2:6: top level: the byte 0xe9 is not UTF-8; save the file as UTF-8"
    ]
    assert problems("version: 1\n".encode("utf-16")) == [
        "t.yaml:1:1: top level: the file is UTF-16; save it as UTF-8"
    ]


def test_every_control_character_is_told() -> None:
    assert [line[:11] for line in problems("a: \x01\nb: \x7f\n")] == ["t.yaml:1:4:", "t.yaml:2:4:"]


def test_more_problems_than_anybody_reads_are_cut() -> None:
    told = problems("version: 1\n" + "".join(f"key{i}: 1\n" for i in range(150)))
    assert len(told) == 101
    assert told[99].startswith("t.yaml:101:1: key99: ")
    assert told[100] == "t.yaml: more than 100 problems; the rest is not shown"


def test_hostile_names_stay_on_their_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(b'version: 1\n"\\e[31m\\n": 1\n', "a\nb.yaml")
    assert caught.value.problems[0].startswith("a\\nb.yaml:2:1: \\x1b[31m\\n: there is no such key")
