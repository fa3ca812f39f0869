"""Changing the size of one request: nothing else of the text changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.config.edit import with_size
from tierd.config.loader import parse
from tierd.errors import ConfigError, GoneError

TEXT = """\
# what is ours — keep this
version: 1
provision:
  - name: a
    region: {iset_id: "0x1"}   # the first
    size: 2GiB                 # grows in March
    mode: apply
  - {name: b, region: {iset_id: "0x2"}, size: 'all but 1GiB', mode: plan}
  - {mode: plan, size: "40%", name: c, region: {iset_id: "0x3"}}
"""


@pytest.mark.parametrize(
    ("name", "size", "was", "becomes"),
    [
        ("a", "none", "size: 2GiB ", "size: none "),
        ("a", "12.5%", "size: 2GiB ", "size: 12.5% "),
        ("b", "128MiB", "'all but 1GiB'", "128MiB"),
        ("b", "all but 64GiB", "'all but 1GiB'", "all but 64GiB"),
        ("c", "all", '"40%"', "all"),
    ],
)
def test_one_value_changes_and_nothing_else(name: str, size: str, was: str, becomes: str) -> None:
    changed, request = with_size(TEXT.encode(), name, size, "here")
    assert changed.decode() == TEXT.replace(was, becomes)
    assert request == next(r for r in parse(changed, "here").provision if r.name == name)


def test_a_request_that_is_not_there() -> None:
    with pytest.raises(GoneError, match="no request named d; there is a, b, c"):
        with_size(TEXT.encode(), "d", "none", "here")


@pytest.mark.parametrize("size", ["0", "0B"])
def test_a_size_of_nothing_is_written_as_none(size: str) -> None:
    with pytest.raises(ValueError, match=f"`{size}` gives everything back; write none"):
        with_size(TEXT.encode(), "a", size, "here")


@pytest.mark.parametrize(
    "size", ["1", "64MiB", "110%", "", "all but", "none # x", "1GiB, mode: apply", "x\ny"]
)
@pytest.mark.parametrize("name", ["a", "b"])
def test_a_size_that_is_none_changes_nothing(name: str, size: str) -> None:
    with pytest.raises(ValueError):
        with_size(TEXT.encode(), name, size, "here")


def test_a_policy_that_is_bad_before_is_told(tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="did you mean `provision`"):
        with_size(b"version: 1\nprovison: []\n", "a", "none", "here")


@given(st.text(max_size=30))
def test_no_text_changes_anything_else(size: str) -> None:
    try:
        changed, request = with_size(TEXT.encode(), "a", size, "here")
    except (ConfigError, ValueError):
        return
    before, after = parse(TEXT.encode(), "here"), parse(changed, "here")
    assert [r for r in after.provision if r.name != "a"] == [r for r in before.provision if r.name != "a"]
    assert (request.name, request.iset_id, request.mode) == ("a", 1, before.provision[0].mode)


def test_a_namespace_before_it_is_passed_over() -> None:
    uuid = "3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1"
    content = (
        f"version: 1\nprovision:\n  - {{name: old, namespace: {{uuid: {uuid}}}}}\n"
        '  - {name: a, region: {iset_id: "0x1"}, size: 1GiB}\n'
    ).encode()
    changed, request = with_size(content, "a", "2GiB", "here")
    assert changed == content.replace(b"1GiB", b"2GiB") and request.size == 2 << 30
    with pytest.raises(GoneError, match="old is a namespace that exists, and has no size"):
        with_size(content, "old", "2GiB", "here")
