"""lru_gen of 6.12 and of 7.x, hostile cgroup names, and the commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.errors import MalformedError
from tierd.kernel.generations import Generations, Lineage, parse

RECORDED = Path(__file__).parent / "recorded"
# 6.12: the number is 16 bits wide and not the cgroup's inode
LINUX_6_12 = (RECORDED / "lru_gen-6.12.txt").read_text()
# 7.x: the inode, in 64 bits
LINUX_7 = (RECORDED / "lru_gen-7.txt").read_text()


def test_linux_6_12() -> None:
    root_fast, root_slow, fast, slow = parse(LINUX_6_12)
    assert (root_fast.memcg, root_fast.cgroup, root_fast.node) == (1, "/", 0)
    assert (root_slow.node, root_slow.youngest) == (1, 1)
    assert (fast.memcg, fast.cgroup, fast.node) == (24, "/system.slice/bench.service", 0)
    assert [g.sequence for g in fast.generations] == [41, 42, 43, 44], "oldest first"
    assert [g.age for g in fast.generations] == [9.12, 4.03, 2.01, 0.9], "in seconds"
    assert [g.anon for g in fast.generations] == [60237, 12288, 2048, 512]
    assert [g.file for g in fast.generations] == [0, 16, 0, 2]
    assert fast.youngest == 44
    assert (slow.memcg, slow.node, slow.generations[0].anon) == (24, 1, 180224)


def test_linux_7() -> None:
    _, user = parse(LINUX_7)
    assert (user.memcg, user.cgroup) == (4294969304, "/user.slice/user-1000.slice/a b")
    assert user.youngest == 101


def test_only_the_cgroups_that_are_wanted() -> None:
    wanted = parse(LINUX_6_12, lambda cgroup: cgroup != "/")
    assert wanted == tuple(line for line in parse(LINUX_6_12) if line.cgroup != "/")
    assert parse(LINUX_6_12, lambda cgroup: cgroup == "/") == parse(LINUX_6_12)[:2]
    assert parse(LINUX_6_12, lambda cgroup: False) == ()


def test_nothing() -> None:
    assert parse("") == ()


def test_a_cgroup_without_generations_is_left_out() -> None:
    text = "memcg     5 /empty\nmemcg     6 /a\n node     0\n          1 10 2 3 \n"
    assert [line.cgroup for line in parse(text)] == ["/a"]


def test_letters_behind_numbers_and_negative_counts() -> None:
    """What the full listing and a racing reader print."""
    (line,) = parse("memcg 5 /a\n node 0\n 7 1000 12x -3 \n")
    assert (line.generations[0].anon, line.generations[0].file) == (12, 0)


@pytest.mark.parametrize(
    "text",
    [
        "memcg 5 /a\n node 0\n 7 1000 12\n",
        "memcg 5 /a\n node 0\n 7 1000 12 0 0\n",
        "memcg 5 /a\n node 0\n seven 1000 12 0\n",
        "memcg 5 /a\n node 0\n 7 1000 0x1f\n",
        "not what it should be\n",
        "memcg five /a\n",
        "\0\0\0\0",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match="lru_gen"):
        parse(text)


# no cgroup may have "/" or a newline in its name (cgroup_mkdir); all else is allowed, and users make cgroups
NAMES = st.text(
    st.characters(exclude_characters="/\n\0", exclude_categories=("Cs",)), min_size=1, max_size=20
)


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_any_name_that_a_cgroup_can_have(names: list[str]) -> None:
    cgroup = "".join(f"/{name}" for name in names)
    text = (
        f"memcg    24 {cgroup}\n node     0\n 41 9120 60 0 \n 42 400 1 1 \nmemcg 25 /b\n node 0\n 1 1 1 1 \n"
    )
    assert [(line.memcg, line.cgroup) for line in parse(text)] == [(24, cgroup), (25, "/b")]


@pytest.mark.parametrize(
    "name", ["a\x0bb", "a\x85b", "a\u2028b", "a\x1cb", " a ", "a  ", "memcg 9 /x", "\r"]
)
def test_names_made_to_mislead(name: str) -> None:
    (line,) = parse(f"memcg    24 /user/{name}\n node     0\n 41 9120 60 0 \n")
    assert (line.memcg, line.cgroup) == (24, f"/user/{name}")


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_malformed(text: str) -> None:
    try:
        parse(text)
    except MalformedError:
        pass


@pytest.fixture
def door(tmp_path: Path):
    """A file in the place of lru_gen."""
    path = tmp_path / "lru_gen"
    path.write_text(LINUX_6_12)
    descriptor = os.open(path, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def test_it_is_read_from_the_start_each_time(door: int) -> None:
    generations = Generations(door)
    assert generations.read() == generations.read() == parse(LINUX_6_12)


def test_a_listing_longer_than_one_read(tmp_path: Path) -> None:
    """Thousands of cgroups, as on a host of containers."""
    path = tmp_path / "lru_gen"
    path.write_text(
        "".join(f"memcg {n} /kubepods/pod{n}\n node 0\n 1 10 {n} 0 \n 2 5 1 1 \n" for n in range(1, 5001))
    )
    descriptor = os.open(path, os.O_RDONLY)
    lineages = Generations(descriptor).read()
    os.close(descriptor)
    assert len(lineages) == 5000 and lineages[-1].generations[0].anon == 5000


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "lru_gen"
    path.write_bytes(b"memcg 24 /user/\xff\xfe\n node 0\n 41 9120 60 0 \n")
    descriptor = os.open(path, os.O_RDONLY)
    (line,) = Generations(descriptor).read()
    os.close(descriptor)
    assert line.memcg == 24 and line.generations[0].anon == 60
    assert line.cgroup == os.fsdecode(b"/user/\xff\xfe"), "as os.scandir spells it"


@pytest.mark.parametrize("descriptor", [-1, 999_999])
def test_a_door_that_is_not_open(descriptor: int) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        Generations(descriptor).read()


def written(monkeypatch: pytest.MonkeyPatch, act) -> list[bytes]:
    """Each write(2) is one command, so what matters is what one call was given."""
    writes: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda descriptor, data: writes.append(bytes(data)) or len(data))
    act(Generations(99))
    return writes


def lineage() -> Lineage:
    return next(line for line in parse(LINUX_6_12) if line.memcg == 24)


def test_aging_names_the_youngest_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, lambda g: g.age(lineage())) == [b"+ 24 0 44 1 1\n"]


def test_demotion_takes_so_many_of_the_oldest_anonymous_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, lambda g: g.demote(lineage(), 42, 2048)) == [b"- 24 0 42 200 2048\n"]


def test_demotion_of_page_cache_takes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a swappiness of 0 the kernel leaves anonymous memory alone (isolate_folios, mm/vmscan.c)."""
    commands = written(monkeypatch, lambda g: g.demote(lineage(), 42, 2048, file=True))
    assert commands == [b"- 24 0 42 0 2048\n"]


def test_a_refusal_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="Invalid argument"):
        Generations(99).age(lineage())
