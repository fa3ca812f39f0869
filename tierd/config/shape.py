"""Checking a document against tierd.schema.json, in words that say what to write instead.

The schema is the one declaration of each key: description, default, bounds. `pattern` and `type` in it serve
editors; here `x-kind` says how a value is read (kinds.py), `x-minimum` and `x-maximum` bound it, `x-hint`
ends messages about the value, and `x-refused` explains keys that are left out on purpose. Imported while a
policy is loaded only, since jsonschema takes some 60 ms.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from operator import gt, lt
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, TypeChecker, ValidationError, validators

from tierd.config import kinds
from tierd.config.document import REFUSED, Document
from tierd.config.report import Location, Mark, Report
from tierd.core.text import clean

SCHEMA_FILE = Path(__file__).with_name("tierd.schema.json")

Schema = Mapping[str, Any]
Errors = Iterator[ValidationError]

_TYPE_NAMES = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "string": "a word",
    "integer": "a whole number",
}


def check(document: Document, report: Report) -> None:
    """Adds to `report` every way in which `document` departs from the schema. Raises nothing."""
    for error in _validator().iter_errors(document.data):
        if report.overflowing:
            return
        location: Location = tuple(error.absolute_path)
        if error.instance is REFUSED or (error.validator == "required" and not document.complete):
            continue
        marks = document.keys if error.validator == "additionalProperties" else document.values
        report.add(marks.get(location, Mark(1, 1)), location, error.message)


@cache
def schema() -> Schema:
    """The policy schema. Raises OSError when the installation is incomplete."""
    loaded: Schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return loaded


@cache
def _validator() -> Any:
    keywords: dict[str, Callable[..., Errors]] = {
        "type": _type,
        "enum": _enum,
        "pattern": _editors_only,
        "if": _editors_only,
        "minimum": _too_low,
        "maximum": _too_high,
        "required": _required,
        "oneOf": _one_of,
        "additionalProperties": _unknown_keys,
        "minProperties": _one_key,
        "maxProperties": _one_key,
        "minItems": _too_few,
        "maxItems": _too_many,
        "x-kind": _kind,
    }
    extend: Any = validators.extend
    cls = extend(Draft202012Validator, validators=keywords, type_checker=_strict_types())
    return cls(schema())


def _strict_types() -> TypeChecker:
    """JSON Schema takes 1.0 for an integer; a policy does not."""

    def is_integer(_checker: TypeChecker, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    strict: TypeChecker = Draft202012Validator.TYPE_CHECKER.redefine("integer", is_integer)
    return strict


def _editors_only(_validator: Any, _value: Any, _instance: Any, _schema: Schema) -> Errors:
    return iter(())


def _type(validator: Any, wanted: Any, instance: Any, schema: Schema) -> Errors:
    if "x-kind" in schema or validator.is_type(instance, wanted):
        return
    found = kinds.misplaced(instance)
    if "enum" in schema:
        yield ValidationError(f"{found}; {_choice(schema)}")
    elif instance is None:
        yield ValidationError(f"this key has no value; remove the line, or {_hint(schema, wanted)}")
    else:
        yield ValidationError(f"{found}; {_hint(schema, wanted)}")


def _hint(schema: Schema, wanted: Any) -> str:
    return str(schema.get("x-hint", f"write {_TYPE_NAMES[wanted]}"))


def _enum(validator: Any, values: list[object], instance: Any, schema: Schema) -> Errors:
    if not validator.is_type(instance, schema["type"]) or instance in values:
        return
    yield ValidationError(f"{kinds.described(instance)} is not known here; {_choice(schema)}")


def _choice(schema: Schema) -> str:
    return str(schema.get("x-hint") or "write " + " or ".join(map(str, schema["enum"])))


def _required(validator: Any, keys: list[str], instance: Any, schema: Schema) -> Errors:
    if validator.is_type(instance, "object"):
        for key in keys:
            if key not in instance:
                hint = schema["properties"][key].get("x-hint") or schema.get("x-hint", "add it")
                yield ValidationError(f"the key `{key}` is missing; {hint}")


def _one_of(validator: Any, ways: list[Schema], instance: Any, schema: Schema) -> Errors:
    """Each way requires keys and excludes (``KEY: false``) those of the others. The last one that was begun
    is meant, else the first."""
    if not validator.is_type(instance, "object"):
        return
    begun = (way for way in reversed(ways) if way["required"][0] in instance)
    meant = next(begun, ways[0])
    for error in _required(validator, meant["required"], instance, schema):
        error.validator = "required"
        yield error
    excluded = [key for key, allowed in meant["properties"].items() if allowed is False and key in instance]
    for key in excluded:
        kept = " and ".join(f"`{word}`" for word in meant["required"])
        message = f"this key cannot stand beside {kept}: a request is for one kind of memory"
        yield ValidationError(message, path=[key], validator="additionalProperties")


def _unknown_keys(validator: Any, _allowed: Any, instance: Any, schema: Schema) -> Errors:
    if not validator.is_type(instance, "object"):
        return
    known = schema["properties"]
    for key in instance:
        if key not in known:
            yield ValidationError(_unknown(key, schema), path=[key])


def _unknown(key: str, here: Schema) -> str:
    """Why `key` may not be `here`, and which was probably meant."""
    refused = here.get("x-refused", {}).get(key)
    if refused:
        return str(refused)
    folded = key[:60].lower().replace("-", "_")
    close = difflib.get_close_matches(folded, here["properties"], n=1, cutoff=0.7)
    if close:
        return f"there is no such key here; did you mean `{close[0]}`?"
    elsewhere = [parent for parent, keys in _keys_of_sections().items() if folded in keys]
    if elsewhere:
        return f"there is no such key here; did you mean `{elsewhere[0]}.{folded}`?"
    return f"there is no such key here; known are {', '.join(here['properties'])}"


@cache
def _keys_of_sections() -> dict[str, frozenset[str]]:
    sections = schema()["properties"]
    found = {name: frozenset(section.get("properties", ())) for name, section in sections.items()}
    for name in ("provision", "classes"):
        found[f"{name}[]"] = frozenset(sections[name]["items"]["properties"])
    return found


def _one_key(validator: Any, _count: int, instance: Any, schema: Schema) -> Errors:
    if not validator.is_type(instance, "object"):
        return
    known = [key for key in schema["properties"] if key in instance]
    if not instance:
        yield ValidationError(f"this rule is empty; {schema['x-hint']}")
    elif len(known) > 1:
        yield ValidationError(
            f"{' and '.join(known)} in one rule; {schema['x-hint']}, each in a rule of its own"
        )


def _too_few(validator: Any, least: int, instance: Any, schema: Schema) -> Errors:
    if validator.is_type(instance, "array") and len(instance) < least:
        yield ValidationError(f"this list is empty; {schema['x-hint']}")


def _too_many(validator: Any, most: int, instance: Any, _schema: Schema) -> Errors:
    if validator.is_type(instance, "array") and len(instance) > most:
        yield ValidationError(f"{len(instance)} entries; at most {most} are read")


def _too_low(validator: Any, bound: int, instance: Any, _schema: Schema) -> Errors:
    if validator.is_type(instance, "integer") and instance < bound:
        yield ValidationError(f"`{instance}` is less than the minimum here, which is {bound}")


def _too_high(validator: Any, bound: int, instance: Any, _schema: Schema) -> Errors:
    if validator.is_type(instance, "integer") and instance > bound:
        yield ValidationError(f"`{instance}` is more than the maximum here, which is {bound}")


def _kind(_validator: Any, kind: str, instance: Any, schema: Schema) -> Errors:
    try:
        value: Any = kinds.read(kind, instance)
    except ValueError as error:
        yield ValidationError(str(error))
        return
    shown = clean(str(instance), 60)
    for keyword, compare, words in (("x-minimum", lt, "less than"), ("x-maximum", gt, "more than")):
        # `all` reads as None and has no bounds.
        if keyword not in schema or value is None:
            continue
        bound: Any = kinds.read(kind, schema[keyword])
        if compare(value, bound):
            yield ValidationError(f"`{shown}` is {words} the {keyword[2:]} here, which is {schema[keyword]}")
