"""Merging, against a model of it: whatever files there are, and whatever each says."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.drop_ins import Tree
from tierd.config.loader import load_in_force, parse
from tierd.config.written import lines, scalar

SECTIONS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "engine": {
        "mode": st.sampled_from(["place", "observe"]),
        "round": st.sampled_from(["1s", "2s", "500ms"]),
        "cooldown": st.sampled_from(["5s", "1min"]),
    },
    "processes": {
        key: st.lists(
            st.sampled_from(["a.service", "b.slice"]).map(lambda u: {"unit": u}), min_size=1, max_size=2
        )
        for key in ("include", "exclude")
    },
}
CLASSES = st.lists(st.sampled_from("xyz"), unique=True, max_size=2).map(
    lambda names: [{"name": n, "match": [{"command": f"{n}*"}], "dram": {"min": "10%"}} for n in names]
)
SAID = st.fixed_dictionaries(
    {"version": st.just(1)},
    optional={
        **{name: st.fixed_dictionaries({}, optional=keys) for name, keys in SECTIONS.items()},
        "classes": CLASSES,
    },
)
NAMES = st.tuples(
    st.sampled_from(["etc", "run", "lib"]), st.sampled_from(["10", "2", "a", "B", "é", "a-1", "a0"])
)
FILES = st.dictionaries(NAMES, st.none() | SAID, max_size=8)


def put(tree: Tree, name: str, said: dict[str, Any] | None) -> None:
    tree.null(name) if said is None else tree.write(
        name, "".join(f"{k}: {scalar(v)}\n" for k, v in said.items())
    )


def model(main: dict[str, Any], drop_ins: dict[tuple[str, str], dict[str, Any] | None]) -> dict[str, Any]:
    """What the man page says, in as few words."""
    chosen: dict[str, dict[str, Any] | None] = {}
    for directory in ("lib", "run", "etc"):
        chosen.update({name: said for (where, name), said in drop_ins.items() if where == directory})
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in main.items()}
    for name in sorted(chosen, key=lambda name: f"{name}.yaml".encode()):  # - comes before the dot
        for key, value in (chosen[name] or {}).items():
            if isinstance(value, dict):
                merged[key] = {**merged.get(key, {}), **value}
            else:
                merged[key] = value
    return merged


@settings(deadline=None, max_examples=60)
@given(SAID, FILES)
def test_every_set_of_files_is_merged_as_the_model_has_it(
    main: dict[str, Any], drop_ins: dict[tuple[str, str], dict[str, Any] | None]
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as monkeypatch:
        tree = Tree(Path(directory))
        tree.use(monkeypatch)
        put(tree, "etc/tierd.yaml", main)
        for (where, name), said in drop_ins.items():
            put(tree, f"{where}/conf.d/{name}.yaml", said)
        found = load_in_force()
        assert found.merged.document.data == model(main, drop_ins)
        assert len(found.found) == 1 + len(drop_ins)
        for location, origin in found.merged.origins.items():
            text = Path(origin.file).read_text().split("\n")[origin.mark.line - 1][origin.mark.column - 1 :]
            assert text.strip('"').startswith(str(location[-1])), "each setting stands where it is said to"
        assert set(found.merged.document.values) == set(locations(found.merged.document.data))
        written = "\n".join(lines(found.merged))
        assert asked(parse(written.encode(), "written")) == asked(found.policy)


def locations(data: Any, here: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of every value below `data`."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield (*here, key)
        yield from locations(value, (*here, key))


def asked(policy: Any) -> tuple[Any, ...]:
    """What a policy asks for, wherever it comes from."""
    return policy.engine, policy.processes, policy.classes, policy.requests


@given(
    st.text(max_size=12)
    | st.sampled_from(["on", "0x1", "010", "1e3", "12:30", "a b ", "-", "2026-01-01", "~"])
)
def test_a_text_is_written_so_that_it_is_read_again(text: str) -> None:
    from tierd.config.document import read
    from tierd.config.report import Report

    if not text.isprintable() or "\ufeff" in text:
        return
    report = Report()
    document = read(f"[{scalar(text)}]".encode(), report)
    assert not report and document.data == [text]
