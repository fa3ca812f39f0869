"""Classes that cannot be meant: the place and the words of the complaint."""

from __future__ import annotations

import pytest

from tests.config.wrong import Case, assert_told, classes, problems

RULE = "match: [{unit: a.slice}]"
NAME, DRAM = "classes[0].name", "classes[0].dram"


def named(rest: str) -> str:
    return classes(f"name: a, {rest}")


def rule(text: str) -> str:
    return classes(f"name: a, match: [{text}]")


def one_name(name: str, words: str) -> Case:
    return (classes(f"name: {name}, {RULE}"), [(3, 12, NAME, words)])


def one_rule(text: str, column: int, key: str, words: str) -> Case:
    return (rule(text), [(3, column, f"classes[0].match[0]{key}", words)])


SHAPE: dict[str, Case] = {
    "mapping": (
        "version: 1\nclasses: {}\n",
        [(2, 10, "classes", "write a list of classes, each beginning")],
    ),
    "word": ("version: 1\nclasses: [gold]\n", [(2, 11, "classes[0]", "write name, match and dram")]),
    "none": (
        classes(""),
        [
            (3, 5, "classes[0]", "the key `match` is missing, and only the class default has none"),
            (3, 5, "classes[0]", "the key `name` is missing; write name, match and dram"),
        ],
    ),
    "many": (
        "version: 1\nclasses:\n  [" + "".join(f"{{name: c{i}, {RULE}}}," for i in range(65)) + "]\n",
        [(3, 3, "classes", "65 entries; at most 64 are read")],
    ),
    "unknown": (
        named(f"{RULE}, shares: 3"),
        [(3, 41, "classes[0].shares", "known are name, match, dram, priority, bandwidth")],
    ),
    "misspelt": (
        named(f"{RULE}, prioritiy: 3"),
        [(3, 41, "classes[0].prioritiy", "did you mean `priority`?")],
    ),
    "min-outside": (
        named(f"{RULE}, min: 30%"),
        [(3, 41, "classes[0].min", "write it below dram: dram: {min: 30%}")],
    ),
    "unit-outside": (
        named(f"{RULE}, unit: a.slice"),
        [(3, 41, "classes[0].unit", "write it as a rule: match: [{unit: NAME.service}]")],
    ),
    "outside": (
        "version: 1\nmatch: []\n",
        [(2, 1, "match", "there is no such key here; did you mean `classes[].match`?")],
    ),
    "name-twice": (
        classes(f"name: a, {RULE}", "name: a, match: [{unit: b.slice}]"),
        [(4, 12, "classes[1].name", "this name is already used on line 3; give each class its own")],
    ),
    "default-twice": (
        classes("name: default", "name: default, priority: 1"),
        [(4, 12, "classes[1].name", "this name is already used on line 3")],
    ),
    "no-match": (
        named("dram: guaranteed"),
        [
            (
                3,
                5,
                "classes[0]",
                "the key `match` is missing, and only the class default has none; write a list such as"
                " [{unit: postgresql.service}]",
            )
        ],
    ),
    "no-match-in-it": (
        named("match: []"),
        [(3, 22, "classes[0].match", "this list is empty; write a list such as [{unit:")],
    ),
    "match-nothing": (
        "version: 1\nclasses:\n  - name: a\n    match:\n",
        [(4, 5, "classes[0].match", "this key has no value; remove the line, or write a list such as")],
    ),
    "match-word": (
        named("match: a.slice"),
        [(3, 22, "classes[0].match", "the text `a.slice` cannot be here; write a list such as")],
    ),
    "rules-many": (
        named("match: [" + "{unit: a.slice}," * 257 + "]"),
        [(3, 22, "classes[0].match", "257 entries; at most 256 are read")],
    ),
    "default-match": (
        classes(f"name: default, {RULE}"),
        [
            (
                3,
                21,
                "classes[0].match",
                "the class default is what no rule matches, and has no rules; remove match, or give the"
                " class another name",
            )
        ],
    ),
    "default-guaranteed": (
        classes("name: default, dram: guaranteed"),
        [(3, 27, DRAM, "DRAM cannot be guaranteed to the class default, which grows with whatever")],
    ),
}

NAMES: dict[str, Case] = {
    "upper": one_name(
        "Gold", "write up to 32 lower-case letters, digits and `-`, beginning with a letter or"
    ),
    "upper-example": one_name("Gold Tier_1", "for example gold-tier-1"),
    "underscore": one_name("gold_1", "for example gold-1"),
    "hyphen": one_name("-gold", "for example gold"),
    "long": one_name("a" * 33, f"for example {'a' * 32}"),
    "nothing-left": one_name('"é"', "for example gold"),
    "empty": one_name('""', "`` is not the name of a class"),
    "number": one_name("5", '`5` is a number to YAML; write "5" in quotes if the text is meant'),
    "list": one_name("[a]", "a list cannot be here; write for example gold"),
}

RULES: dict[str, Case] = {
    "empty": one_rule("{}", 23, "", "this rule is empty; write {unit: NAME.service}, {cgroup:"),
    "word": one_rule("a.slice", 23, "", 'write {unit: NAME.service}, {cgroup: "GLOB"}, {user: NAME}, or'),
    "two": one_rule("{unit: a.slice, user: b}", 23, "", "unit and user in one rule; write {unit:"),
    "unknown": one_rule("{units: a.slice}", 24, ".units", "did you mean `unit`?"),
    "unit": one_rule("{unit: a}", 30, ".unit", "`a` has no unit suffix; write a.service"),
    "cgroup": one_rule("{cgroup: a}", 32, ".cgroup", 'cgroup paths begin with a slash; write "/a"'),
    "user-glob": one_rule('{user: "a*"}', 30, ".user", "`a*` is a glob; user takes one whole name"),
    "user-words": one_rule("{user: a b}", 30, ".user", "write one that `getent passwd` lists"),
    "user-empty": one_rule('{user: ""}', 30, ".user", "`` is not the name of a user"),
    "user-negative": one_rule("{user: -1}", 30, ".user", "write one from 0 to 4294967294"),
    "user-none": one_rule("{user: 4294967295}", 30, ".user", "write one from 0 to 4294967294"),
    "user-long": one_rule('{user: "99999999999"}', 30, ".user", "is not the name of a user"),
    "user-fraction": one_rule(
        "{user: 1.5}", 30, ".user", "the number `1.5` is not a user; write a name, or a"
    ),
    "user-true": one_rule("{user: true}", 30, ".user", "the boolean `true` is not a user"),
    "user-no": one_rule("{user: no}", 30, ".user", 'write "no" in quotes if the text is meant'),
    "user-list": one_rule("{user: [a]}", 30, ".user", "a list is not a user"),
    "command-path": one_rule(
        "{command: /usr/bin/prometheus-exporter}",
        33,
        ".command",
        "is a path, and the name of a process is none; write the name that `ps -o comm` shows, for example"
        " prometheus-expo",
    ),
    "command-root": one_rule("{command: /}", 33, ".command", "write the name that `ps -o comm` shows"),
    "command-long": one_rule(
        "{command: prometheus-exporter}",
        33,
        ".command",
        "matches nothing: the kernel cuts the name of a process after 15 bytes; write the name that"
        ' `ps -o comm` shows, here "prometheus-expo"',
    ),
    "command-bytes": one_rule(
        '{command: "éééééééé"}', 33, ".command", "after 15 bytes; write the name that"
    ),
    "command-glob-long": one_rule('{command: "*234567890[ab]23456?"}', 33, ".command", "matches nothing"),
    "command-endless": one_rule(
        '{command: "' + "*" * 257 + '"}', 33, ".command", "longer than 256 characters; match a part of it"
    ),
    "command-empty": one_rule('{command: ""}', 33, ".command", "`` matches nothing"),
    "command-number": one_rule("{command: 5}", 33, ".command", 'write "5" in quotes'),
}


def dram(text: str, column: int, key: str, words: str) -> Case:
    return (named(f"{RULE}, dram: {text}"), [(3, column, f"{DRAM}{key}", words)])


HOW = "write dram: guaranteed, dram: {min: 30%}, or dram: {max: 2GiB}"
SHARES: dict[str, Case] = {
    "word": dram("all", 47, "", f"`all` leaves open which bound it is; {HOW}"),
    "share": dram("30%", 47, "", f"`30%` leaves open which bound it is; {HOW}"),
    "number": dram("5", 47, "", f"the number `5` cannot be here; {HOW}"),
    "list": dram("[guaranteed]", 47, "", f"a list cannot be here; {HOW}"),
    "boolean": dram("yes", 47, "", "`yes` is a boolean in YAML 1.1"),
    "empty": dram("{}", 47, "", f"neither min nor max is here; {HOW}"),
    "guaranteed-and-min": dram(
        "{guaranteed: true, min: 30%}",
        48,
        ".guaranteed",
        "write dram: guaranteed, without min and max: it promises all of the class's memory",
    ),
    "guaranteed-inside": dram(
        "{guaranteed: true}", 48, ".guaranteed", "write dram: guaranteed, without min"
    ),
    "min-above-max-share": dram(
        "{min: 30%, max: 29.99%}", 53, ".min", "`30%` is more than max, which is 29.99% on line 3; lower it"
    ),
    "min-above-max-size": dram(
        "{max: 1GiB, min: 1025MiB}", 64, ".min", "`1025MiB` is more than max, which is 1GiB on line 3"
    ),
    "bare": dram(
        "{min: 30}",
        53,
        ".min",
        "`30` is a bare number; write a size with its unit, for example 30MiB; or a share of the class's"
        " memory, for example 30%",
    ),
    "of-one": dram("{max: 0.3}", 53, ".max", "or a share of the class's memory, for example 30%"),
    "above-all": dram("{max: 100.01%}", 53, ".max", "`100.01%` is more than 100%"),
    "negative": dram('{max: "-5%"}', 53, ".max", "`-5%` is not a share; write per cent from 0% to 100%"),
    "fraction": dram("{max: 1.5GiB}", 53, ".max", "`1.5GiB` is not a size; write 1536MiB; or a share"),
    "rate": dram("{max: 1GiB/s}", 53, ".max", "`1GiB/s` is not a size"),
    "bound-word": dram("{min: guaranteed}", 53, ".min", "`guaranteed` is not a size"),
    "bound-list": dram("{min: [1]}", 53, ".min", "a list cannot be here; write for example 30%, or 2GiB"),
    "unknown": dram("{min: 30%, most: 40%}", 58, ".most", "there is no such key here; known are min, max"),
}

OTHERS: dict[str, Case] = {
    "priority-high": (
        named(f"{RULE}, priority: 1001"),
        [(3, 51, "classes[0].priority", "`1001` is more than the maximum here, which is 1000")],
    ),
    "priority-low": (
        named(f"{RULE}, priority: -1001"),
        [(3, 51, "classes[0].priority", "`-1001` is less than the minimum here, which is -1000")],
    ),
    "priority-word": (
        named(f"{RULE}, priority: high"),
        [(3, 51, "classes[0].priority", "the text `high` cannot be here; write a whole number")],
    ),
    "priority-fraction": (
        named(f"{RULE}, priority: 1.5"),
        [(3, 51, "classes[0].priority", "the number `1.5` cannot be here; write a whole number")],
    ),
    "bandwidth-size": (
        named(f"{RULE}, bandwidth: 64MiB"),
        [(3, 52, "classes[0].bandwidth", "`64MiB` is not a rate; write 64MiB/s")],
    ),
    "bandwidth-low": (
        named(f"{RULE}, bandwidth: 1KiB/s"),
        [(3, 52, "classes[0].bandwidth", "`1KiB/s` is less than the minimum here, which is 1MiB/s")],
    ),
}

GROUPS = {"shape": SHAPE, "name": NAMES, "rule": RULES, "dram": SHARES, "other": OTHERS}
CASES = {f"{group}: {name}": case for group, cases in GROUPS.items() for name, case in cases.items()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_problem_is_told_at_its_place(case: Case) -> None:
    assert_told(case)


def test_all_problems_of_all_classes_are_told_at_once() -> None:
    told = problems(
        "version: 1\nclasses:\n"
        "  - name: Gold\n    match: [{unit: gold}]\n    dram: {min: 2, max: 1GiB}\n"
        "  - name: default\n    match: []\n    dram: guaranteed\n"
        "  - {name: x, dram: {max: 1%, min: 2%}, priority: -5000}\n"
        "engine: {mode: go}\n"
    )
    assert [line.split(": ")[0] for line in told] == [
        f"t.yaml:{place}"
        for place in ("3:11", "4:20", "5:17", "7:5", "7:12", "8:11", "9:5", "9:36", "9:51", "10:16")
    ]


def test_nothing_is_called_missing_of_a_text_that_was_not_read_to_its_end() -> None:
    told = problems("version: 1\nclasses:\n  - {name: gold}\n...\n[\n")
    assert not any("is missing" in line for line in told), told
