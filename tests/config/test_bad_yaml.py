"""What is no YAML, or YAML that others read otherwise: the place and the words of the complaint."""

from __future__ import annotations

import pytest

from tests.config.wrong import REGION, Case, assert_told, engine, include, provision

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
        [
            (
                3,
                9,
                "engine.mode",
                "`on` is a boolean in YAML 1.1, and no key takes one; write place or observe",
            )
        ],
    ),
    "yes": (engine("mode: Yes"), [(3, 9, "engine.mode", "`Yes` is a boolean in YAML 1.1")]),
    "off": (
        engine("huge_pages: off"),
        [
            (
                3,
                15,
                "engine.huge_pages",
                "`off` is a boolean in YAML 1.1, and no key takes one; write split or",
            )
        ],
    ),
    "n": (engine("huge_pages: n"), [(3, 15, "engine.huge_pages", "no key takes one; write split or leave")]),
    "TRUE": (engine("huge_pages: TRUE"), [(3, 15, "engine.huge_pages", "`TRUE` is a boolean")]),
    "no-share": (
        engine("pressure_limit: no"),
        [(3, 19, "engine.pressure_limit", "no key takes one; write for example 40%")],
    ),
    "off-section": ("version: 1\nengine: off\n", [(2, 9, "engine", "no key takes one; write a mapping")]),
    "on-key": ("version: 1\non: 1\n", [(2, 1, "top level", "the key `on` is not a word to YAML")]),
    "y-name": (
        include("{unit: y}"),
        [(4, 14, "processes.include[0].unit", 'no key takes one; write "y" in quotes if the text is meant')],
    ),
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


@pytest.mark.parametrize("case", [*YAML.values(), *WORDS.values()], ids=[*YAML, *WORDS])
def test_every_problem_is_told_at_its_place(case: Case) -> None:
    assert_told(case)
