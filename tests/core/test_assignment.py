"""Which class a process has, by which rule, and which classes nobody has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core import assignment
from tierd.core.assignment import Assignment, ClassAssigner, EmptyClass
from tierd.core.classes import DEFAULT_CLASS, ClassRule, Place, ServiceClass
from tierd.core.model import ProcessId, ProcessView

USERS = {"alice": 1000, "bob": 1001}
"""`ghost`, whom rules name too, does not exist."""


def process(
    pid: int = 1, cgroup: str = "/system.slice/a.service", uid: int = 0, command: str = "a"
) -> ProcessView:
    return ProcessView(ProcessId(pid, 7), command, uid, cgroup, 1 << 30)


def classes(*named: tuple[str, ClassRule]) -> tuple[ServiceClass, ...]:
    return (*(ServiceClass(name, (rule,)) for name, rule in named), DEFAULT_CLASS)


@pytest.mark.parametrize(
    ("rule", "matching", "other"),
    [
        (
            ClassRule(unit="gold.slice"),
            process(cgroup="/gold.slice/a.service/worker"),
            process(cgroup="/system.slice/gold.slice.service"),
        ),
        (ClassRule(cgroup="/gold.slice/*"), process(cgroup="/gold.slice/a"), process(cgroup="/gold.slice")),
        (ClassRule(user="alice"), process(uid=1000), process(uid=1001)),
        (ClassRule(user=1001), process(uid=1001), process(uid=1000)),
        (ClassRule(user=0), process(uid=0), process(uid=1000)),
        (ClassRule(command="qemu-*"), process(command="qemu-system-x86"), process(command="aqemu-")),
        (ClassRule(command="[ab]c"), process(command="bc"), process(command="Bc")),
    ],
)
def test_each_kind_of_rule(rule: ClassRule, matching: ProcessView, other: ProcessView) -> None:
    assigner = ClassAssigner(classes(("gold", rule)), USERS)
    assert assigner.find(matching.cgroup, matching.uid, matching.command).service_class.name == "gold"
    assert assigner.find(other.cgroup, other.uid, other.command).service_class.name == "default"


def test_a_user_who_does_not_exist_has_no_processes_and_comes_with_the_next_assigner() -> None:
    rules = classes(("gold", ClassRule(user="ghost")))
    for uid in (0, 1000, 65534):
        assert ClassAssigner(rules, USERS).find("/a", uid, "a").service_class is DEFAULT_CLASS
    assert ClassAssigner(rules, {"ghost": 1234}).find("/a", 1234, "a").service_class.name == "gold"


def test_the_first_match_wins_across_kinds_of_rule() -> None:
    by_user, by_unit = ("user", ClassRule(user=0)), ("unit", ClassRule(unit="a.service"))
    for order in ((by_user, by_unit), (by_unit, by_user)):
        assigner = ClassAssigner(classes(*order))
        assert assigner.find("/a.service", 0, "a").service_class.name == order[0][0]
        assert assigner.find("/b.service", 0, "a").service_class.name == "user"
        assert assigner.find("/a.service", 5, "a").service_class.name == "unit"


def test_the_words_say_which_class_and_which_rule() -> None:
    gold = ServiceClass(
        "gold",
        (ClassRule(user=5, place=Place(9, 7, "classes[3].match[0]")), ClassRule(unit="gold.slice")),
    )
    assigner = ClassAssigner((gold,))
    assert assigner.find("/a", 5, "a").words == "class gold, by classes[3].match[0] (user: 5)"
    by_unit = assigner.find("/gold.slice", 0, "a")
    assert (by_unit.index, by_unit.rule) == (1, gold.match[1])
    assert by_unit.words == "class gold, by match[1] (unit: gold.slice)"
    nothing = assigner.find("/b", 0, "b")
    assert (nothing.rule, nothing.words) == (None, "class default: no rule of another class matches")


def test_the_rest_has_the_class_that_the_policy_gives_it() -> None:
    rest = ServiceClass("default", priority=-5)
    for policy in ((rest,), (rest, ServiceClass("gold", (ClassRule(user=5),)))):
        assert ClassAssigner(policy).find("/a", 0, "a").service_class is rest
    assert ClassAssigner(()).find("/a", 0, "a").service_class is DEFAULT_CLASS


def test_classes_that_nobody_has() -> None:
    place = Place(4, 5, "classes[1]")
    assigner = ClassAssigner(
        (
            ServiceClass("gold", (ClassRule(cgroup="/system.slice/*"),)),
            ServiceClass("late", (ClassRule(unit="a.service"), ClassRule(user=7)), place=place),
            ServiceClass("none", (ClassRule(unit="x.service"), ClassRule(command="x*")), place=place),
            DEFAULT_CLASS,
        )
    )
    late, none = assigner.empty_classes([process(1), process(2), process(3, uid=7), process(4, "/b")])
    assert (late.service_class.name, late.taken) == ("late", 3)
    assert late.warning("t.yaml") == (
        "t.yaml:4:5: classes[1]: warning: class late has no process: 3 processes matched by unit: a.service"
        " or user: 7 belong to classes before it"
    )
    assert none.warning("t.yaml") == (
        "t.yaml:4:5: classes[1]: warning: class none has no process: none that is placed matches"
        ' unit: x.service or command: "x*"'
    )


def test_one_process_that_an_earlier_class_has_reads_well() -> None:
    taken = EmptyClass(ServiceClass("late", (ClassRule(user=7),)), 1)
    assert "1 process matched by user: 7 belongs to a class before it" in taken.warning("t.yaml")


# Few words, so that rules and processes often meet.
UNITS = ("a.service", "b.service", "gold.slice", "silver.slice")
CGROUPS = st.lists(st.sampled_from((*UNITS, "x", "*")), max_size=3).map(lambda parts: "/" + "/".join(parts))
COMMANDS = st.sampled_from(("a", "ab", "qemu", "qemu-kvm", ""))
RULES = st.one_of(
    st.sampled_from(UNITS).map(lambda unit: ClassRule(unit=unit)),
    st.sampled_from(("*", "/gold.slice*", "*/a.service", "/[ab].*")).map(lambda g: ClassRule(cgroup=g)),
    st.sampled_from(("alice", "bob", "ghost", 0, 1000, 1002)).map(lambda user: ClassRule(user=user)),
    st.sampled_from(("a*", "qemu*", "?b")).map(lambda glob: ClassRule(command=glob)),
)
CLASSES = st.lists(st.lists(RULES, min_size=1, max_size=4), max_size=5).map(
    lambda rules: (*(ServiceClass(f"c{i}", tuple(match)) for i, match in enumerate(rules)), DEFAULT_CLASS)
)
VIEWS = st.lists(st.tuples(CGROUPS, st.sampled_from((0, 1000, 1001, 1002)), COMMANDS), max_size=12).map(
    lambda found: [process(pid, *facts) for pid, facts in enumerate(found, 1)]
)


def matches(rule: ClassRule, view: ProcessView) -> bool:
    """What the manual says, with no cache and no order."""
    if rule.unit is not None:
        return rule.unit in view.cgroup.split("/")
    if rule.cgroup is not None:
        return fnmatchcase(view.cgroup, rule.cgroup)
    if rule.command is not None:
        return fnmatchcase(view.command, rule.command)
    return view.uid == USERS.get(str(rule.user), rule.user)


def expected(policy: Sequence[ServiceClass], view: ProcessView) -> Assignment:
    for service_class in policy:
        for index, rule in enumerate(service_class.match):
            if matches(rule, view):
                return Assignment(service_class, index)
    return Assignment(policy[-1])


@given(CLASSES, VIEWS)
def test_the_first_rule_that_matches_decides(
    policy: tuple[ServiceClass, ...], views: list[ProcessView]
) -> None:
    found = ClassAssigner(policy, USERS).assign(views)
    assert found == {view.id: expected(policy, view) for view in views}


@given(CLASSES, VIEWS)
def test_every_process_has_one_class_of_the_policy_and_a_rule_of_it(
    policy: tuple[ServiceClass, ...], views: list[ProcessView]
) -> None:
    found = ClassAssigner(policy, USERS).assign(views)
    assert found.keys() == {view.id for view in views}
    for view in views:
        assignment = found[view.id]
        assert assignment.service_class in policy
        assert (assignment.rule is None) == (assignment.service_class.name == "default")
        assert assignment.rule is None or matches(assignment.rule, view)


@given(CLASSES, VIEWS, st.randoms(use_true_random=False))
def test_neither_the_order_of_processes_nor_what_was_asked_before_matters(
    policy: tuple[ServiceClass, ...], views: list[ProcessView], random: Random
) -> None:
    assigner = ClassAssigner(policy, USERS)
    found = assigner.assign(views)
    shuffled = list(views)
    random.shuffle(shuffled)
    assert assigner.assign(shuffled) == found
    assert ClassAssigner(policy, USERS).assign(shuffled) == found
    assert {view.id: ClassAssigner(policy, USERS).assign([view])[view.id] for view in views} == found


@given(CLASSES, VIEWS)
def test_a_class_is_called_empty_when_nobody_has_it(
    policy: tuple[ServiceClass, ...], views: list[ProcessView]
) -> None:
    assigner = ClassAssigner(policy, USERS)
    filled = {assignment.service_class.name for assignment in assigner.assign(views).values()}
    empty = assigner.empty_classes(views)
    assert [found.service_class.name for found in empty] == [
        c.name for c in policy if c.name not in filled and c.name != "default"
    ]
    for found in empty:
        meant = [view for view in views if any(matches(rule, view) for rule in found.service_class.match)]
        assert found.taken == len(meant)


def counted(counts: Counter[str], name: str, function: Callable[..., bool]) -> Callable[..., bool]:
    def called(*arguments: object) -> bool:
        counts[name] += 1
        return function(*arguments)

    return called


def test_a_rule_is_compared_once_with_what_processes_have_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: Counter[str] = Counter()
    for name in ("_matches_cgroup", "fnmatchcase"):
        monkeypatch.setattr(assignment, name, counted(compared, name, getattr(assignment, name)))
    rules = (
        *(ClassRule(unit=f"u{i}.service") for i in range(15)),
        *(ClassRule(cgroup=f"*/c{i}*.scope/*") for i in range(15)),
        *(ClassRule(user=2000 + i) for i in range(10)),
        *(ClassRule(command=f"worker-{i}-*") for i in range(10)),
    )
    policy = tuple(ServiceClass(f"c{i}", rules[5 * i : 5 * i + 5]) for i in range(10))
    views = [
        process(pid, f"/system.slice/s{pid % 50}.service", uid=pid % 7, command=f"w{pid % 100}")
        for pid in range(500)
    ]
    assigner = ClassAssigner(policy)
    assigner.assign(views)
    pairs = {(view.uid, view.command) for view in views}
    assert compared == {"_matches_cgroup": 30 * 50, "fnmatchcase": 10 * len(pairs)}, "not 500 times each"
    assigner.assign(views)
    assert compared.total() == 30 * 50 + 10 * len(pairs), "nothing, for who has not changed"


def test_what_is_remembered_is_bounded() -> None:
    assigner = ClassAssigner(classes(("gold", ClassRule(unit="a.service")), ("cpu", ClassRule(command="x"))))
    for number in range(10_000):
        assigner.find(f"/run-{number}.scope", number, "a")
    assert assigner.remembered <= 2 * 4096
