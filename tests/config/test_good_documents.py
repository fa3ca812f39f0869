"""What a policy in order means, and that the schema, the defaults and the shipped files agree."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tierd.config import kinds, shape
from tierd.config.loader import parse
from tierd.core.classes import ClassRule, DramBound, DramShare, ServiceClass
from tierd.core.policy import (
    GIB,
    MIB,
    CxlRequest,
    EngineMode,
    EnginePolicy,
    NamespaceRequest,
    Policy,
    ProcessMatch,
    ProcessSelection,
    ProvisionMode,
    ProvisionRequest,
)

CONF = Path(__file__).parents[2] / "conf"

WHOLE = """
version: 1
processes:
  include:
    - {unit: postgresql.service}
    - {cgroup: "/system.slice/*"}
  exclude:
    - unit: ssh.service
engine:
  mode: place
  bandwidth: 256MiB/s
  dram_floor: 1GiB
  minimum_process: 128MiB
  round: 500ms
  cooldown: 2min
  heat_half_life: 1h
  huge_pages: leave
  pressure_limit: 12.5%
classes:
  - {name: default, dram: {max: 50%}, priority: -7}
  - name: gold
    match:
      - {unit: gold.slice}
      - {cgroup: "/machine.slice/*gold*"}
    dram: guaranteed
  - name: silver-1
    match: [{user: root}, {user: 4294967294}, {user: "0"}, {command: "qemu-*"}]
    dram: {min: 30%, max: 2GiB}
    bandwidth: 64MiB/s
  - {name: plain, match: [{unit: plain.slice}]}
provision:
  - name: pmem0
    region: {iset_id: "0x9f2c51e3a4b0d678"}
    size: 2GiB
    mode: apply
  - {name: pmem1, region: {iset_id: -5}, size: all, mode: plan}
  - {name: "1.x_y-z", region: {iset_id: 0x10}, size: 128MiB, force: ratio}
  - {name: old, namespace: {uuid: 3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1}, consent: {destroy: ext4},
     force: ratio}
  - {name: cxl0, cxl: {serials: ["0x1234"]}, size: all, mode: apply, force: ratio}
"""


def read(text: str) -> Policy:
    return parse(text.encode(), "here")


def test_every_key_maps_to_its_field() -> None:
    assert read(WHOLE) == Policy(
        processes=ProcessSelection(
            include=(ProcessMatch(unit="postgresql.service"), ProcessMatch(cgroup="/system.slice/*")),
            exclude=(ProcessMatch(unit="ssh.service"),),
        ),
        engine=EnginePolicy(
            mode=EngineMode.PLACE,
            bandwidth=256 * MIB,
            dram_floor=GIB,
            minimum_process=128 * MIB,
            round=0.5,
            cooldown=120.0,
            heat_half_life=3600.0,
            huge_pages=False,
            pressure_limit=12.5,
        ),
        provision=(
            ProvisionRequest("pmem0", 0x9F2C51E3A4B0D678, 2 * GIB, ProvisionMode.APPLY),
            ProvisionRequest("pmem1", (1 << 64) - 5, None, ProvisionMode.PLAN),
            ProvisionRequest("1.x_y-z", 16, 128 * MIB, ProvisionMode.PLAN, force_ratio=True),
        ),
        namespaces=(
            NamespaceRequest("old", "3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1", "ext4", force_ratio=True),
        ),
        cxl=(CxlRequest("cxl0", (0x1234,), None, ProvisionMode.APPLY, force_ratio=True),),
        classes=(
            ServiceClass(
                "gold",
                (ClassRule(unit="gold.slice"), ClassRule(cgroup="/machine.slice/*gold*")),
                DramShare(guaranteed=True),
            ),
            ServiceClass(
                "silver-1",
                (
                    ClassRule(user="root"),
                    ClassRule(user=(1 << 32) - 2),
                    ClassRule(user=0),
                    ClassRule(command="qemu-*"),
                ),
                DramShare(minimum=DramBound(per_cent=30.0), maximum=DramBound(size=2 * GIB)),
                bandwidth=64 * MIB,
            ),
            ServiceClass("plain", (ClassRule(unit="plain.slice"),)),
            ServiceClass("default", dram=DramShare(maximum=DramBound(per_cent=50.0)), priority=-7),
        ),
        origin="here",
        digest=hashlib.sha256(WHOLE.encode()).hexdigest(),
    )


@pytest.mark.parametrize(
    ("size", "fields"),
    [
        ("none", (0, None, None)),
        ("all", (None, None, None)),
        ("128MiB", (128 * MIB, None, None)),
        ("12.5%", (None, 12.5, None)),
        ("100%", (None, 100.0, None)),
        ("all but 64GiB", (None, None, 64 * GIB)),
    ],
)
def test_every_way_to_ask_for_a_share(size: str, fields: tuple[object, ...]) -> None:
    text = f'version: 1\nprovision:\n  - {{name: a, region: {{iset_id: "0x1"}}, size: {size}}}\n'
    (request,) = read(text).provision
    assert (request.size, request.per_cent, request.all_but) == fields
    assert re.fullmatch(
        shape.schema()["properties"]["provision"]["items"]["properties"]["size"]["pattern"], size
    )


def test_the_whole_document_names_every_key_of_the_schema() -> None:
    sections = shape.schema()["properties"]
    keys = {*sections, *sections["processes"]["properties"], *sections["engine"]["properties"]}
    for name in ("provision", "classes"):
        keys |= set(sections[name]["items"]["properties"])
    keys |= set(sections["classes"]["items"]["properties"]["dram"]["properties"])
    keys |= set(shape.schema()["$defs"]["class_rule"]["properties"])
    assert keys <= set(re.findall(r"\w+(?=:)", WHOLE))


def test_the_least_policy_observes_and_converts_nothing() -> None:
    policy = read("version: 1")
    assert policy == Policy(origin="here", digest=policy.digest)
    assert policy.engine.mode is EngineMode.OBSERVE
    assert policy.provision == ()


def test_an_empty_include_selects_nothing() -> None:
    assert not read("{version: 1, processes: {include: []}}").processes.selects("/a")


@pytest.mark.parametrize("wrapping", ["---\n{}...\n", "\ufeff{}", "# a\n{}\n# b\n", "{}\r\n"])
def test_harmless_wrapping(wrapping: str) -> None:
    assert read(wrapping.format("version: 1\n")).engine == EnginePolicy()


def test_json_is_a_policy_too() -> None:
    document = json.dumps({"version": 1, "engine": {"mode": "place", "round": "2s"}})
    assert read(document).engine == EnginePolicy(mode=EngineMode.PLACE, round=2.0)


@pytest.mark.parametrize(
    "value", ['"0xfffffffffffffffb"', "18446744073709551611", "-5", '"-5"', "0xFFFFFFFFFFFFFFFB"]
)
def test_an_interleave_set_in_each_way_ndctl_prints_it(value: str) -> None:
    policy = read(f"{{version: 1, provision: [{{name: a, region: {{iset_id: {value}}}, size: all}}]}}")
    assert policy.provision[0].iset_id == 0xFFFFFFFFFFFFFFFB


@pytest.mark.parametrize(
    "path", [CONF / "tierd.yaml", *sorted((CONF / "examples").glob("*.yaml"))], ids=lambda p: p.name
)
def test_shipped_files_are_in_order(path: Path) -> None:
    policy = parse(path.read_bytes(), path.name)
    assert policy.processes.include


def test_there_are_examples() -> None:
    assert len(list((CONF / "examples").glob("*.yaml"))) >= 3


def test_the_shipped_policy_changes_nothing_and_shows_the_defaults() -> None:
    text = (CONF / "tierd.yaml").read_text(encoding="utf-8")
    policy = read(text)
    assert policy.engine == EnginePolicy()
    assert policy.provision == ()
    for key in shape.schema()["properties"]["engine"]["properties"]:
        assert re.search(rf"^  # .+\n  {key}: ", text, re.MULTILINE), key
    assert policy.processes.selects("/system.slice/postgresql.service")
    assert policy.processes.selects("/user.slice/user-1000.slice/session-1.scope")
    for system in ("/init.scope", "/system.slice/systemd-journald.service", "/system.slice/tierd.service"):
        assert not policy.processes.selects(system), system


def test_the_commented_provisioning_example_is_in_order_once_uncommented() -> None:
    text = (CONF / "tierd.yaml").read_text(encoding="utf-8")
    head, tail = text.split("provision: []\n")
    uncommented = "\n".join(line[1:] for line in tail.splitlines())
    request = read(f"{head}provision:\n{uncommented}\n").provision[0]
    assert (request.name, request.size, request.mode) == ("pmem0", 2 * GIB, ProvisionMode.PLAN)


def test_the_commented_classes_are_in_order_once_uncommented() -> None:
    text = (CONF / "tierd.yaml").read_text(encoding="utf-8")
    head, tail = text.split("classes: []\n")
    commented, _, rest = tail.partition("\n\n")
    uncommented = "\n".join(line[1:] for line in commented.splitlines())
    policy = read(f"{head}classes:\n{uncommented}\n{rest}")
    gold, bronze, _ = policy.classes
    assert gold.dram == DramShare(guaranteed=True)
    assert bronze.dram == DramShare(minimum=DramBound(size=512 * MIB), maximum=DramBound(per_cent=10.0))
    assert read(text).classes == Policy().classes


def test_the_schema_is_a_schema_and_conf_shows_the_same_file() -> None:
    Draft202012Validator.check_schema(shape.schema())
    assert (CONF / "tierd.schema.json").resolve() == shape.SCHEMA_FILE.resolve()


def subschemas(schema: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if isinstance(schema, dict):
        found = [schema] if "type" in schema and not isinstance(schema["type"], dict) else []
        found += [inner for value in schema.values() for inner in subschemas(value)]
    return found


def test_every_key_is_described_and_every_mapping_closed() -> None:
    for schema in subschemas(shape.schema()):
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False
            for name, key in schema["properties"].items():
                assert len(key["description"]) > 20, name
                assert {"default", "examples", "properties", "enum", "items"} & set(key), name


def test_defaults_in_the_schema_are_those_of_the_policy() -> None:
    engine = shape.schema()["properties"]["engine"]["properties"]
    assert set(engine) == {field.name for field in fields(EnginePolicy)}
    defaults = {name: key["default"] for name, key in engine.items()}
    written = json.dumps({"version": 1, "engine": defaults})
    assert read(written).engine == EnginePolicy()
    processes = shape.schema()["properties"]["processes"]["properties"]
    selection = {name: key["default"] for name, key in processes.items()}
    assert read(json.dumps({"version": 1, "processes": selection})).processes == ProcessSelection()
    assert shape.schema()["properties"]["provision"]["items"]["properties"]["mode"]["default"] == "plan"
    priority = shape.schema()["properties"]["classes"]["items"]["properties"]["priority"]["default"]
    assert priority == ServiceClass("a").priority


PATTERNS = {s["x-kind"]: s["pattern"] for s in subschemas(shape.schema()) if "pattern" in s}

TEXTS = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[0-9]{1,8}(\.[0-9])? ?(B|KiB|MiB|KB|M|s|ms|min|h|%)(/s)?", fullmatch=True),
    st.from_regex(r"[a-z0-9._@*/-]{1,12}(\.service|\.slice)?", fullmatch=True),
    st.sampled_from(
        [
            "guaranteed",
            "gold",
            "30%",
            "qemu*",
            "all",
            "512MiB",
            "1MiB/s",
            "30s",
            "40%",
            "/a/*",
            "a.service",
            "pmem0",
        ]
    ),
)


@given(kind=st.sampled_from(sorted(PATTERNS)), text=TEXTS)
def test_editors_accept_whatever_the_loader_accepts(kind: str, text: str) -> None:
    try:
        kinds.read(kind, text)
    except ValueError as error:
        assert str(error).isprintable()
        return
    assert re.search(PATTERNS[kind], text)


@pytest.mark.parametrize("kind", ["size", "rate", "duration", "name"])
def test_editors_refuse_whatever_the_loader_refuses_by_form(kind: str) -> None:
    for text in ("", " ", "5", "1.5GiB", "1 GiB", "1gib", "1GiB ", "-1s", "1GB/s", "/", "all of it", "-a"):
        if re.search(PATTERNS[kind], text):
            kinds.read(kind, text)


UUID = "3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1"


def test_a_dimm_without_labels_is_named_by_its_serial_number() -> None:
    entry = '{name: bare, namespace: {dimm: "8680-0A-2117-5634ABCD"}, consent: destroy}'
    (request,) = read(f"version: 1\nprovision:\n  - {entry}\n").namespaces
    assert request == NamespaceRequest("bare", "", "", ProvisionMode.PLAN, "8680-0a-2117-5634abcd")
    assert request.identity == request.dimm


@pytest.mark.parametrize(
    ("written", "consent"),
    [
        ("", None),
        (", consent: destroy", ""),
        (", consent: {destroy: ext4}", "ext4"),
        (", consent: {destroy: unknown data}", "unknown data"),
        (", consent: {destroy: LVM2_member}", "LVM2_member"),
    ],
)
def test_a_namespace_that_exists_is_a_request_of_its_own(written: str, consent: str | None) -> None:
    entries = (
        f"- {{name: old, namespace: {{uuid: {UUID.upper()}}}{written}, mode: apply}}\n"
        '  - {name: new, region: {iset_id: "0x1"}, size: all}'
    )
    policy = read(f"version: 1\nprovision:\n  {entries}\n")
    assert policy.namespaces == (NamespaceRequest("old", UUID, consent, ProvisionMode.APPLY),)
    assert [request.name for request in policy.provision] == ["new"]
    assert [request.name for request in policy.requests] == ["new", "old"]
