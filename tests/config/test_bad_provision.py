"""Requests for memory that cannot be meant: the place and the words of the complaint."""

from __future__ import annotations

import pytest

from tests.config.wrong import REGION, Case, assert_told, provision

ISET = "provision[0].region.iset_id"
NAMESPACE = "provision[0].namespace.uuid"
CONSENT = "provision[0].consent"
HELD = "namespace: {uuid: 3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1}"
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
    "namespace-beside-region": (
        provision(f"name: a, {REGION}, size: all, namespace: namespace0.0"),
        [
            (3, 15, "provision[0].region", "cannot stand beside `namespace`"),
            (3, 44, "provision[0].size", "cannot stand beside `namespace`"),
            (3, 66, "provision[0].namespace", "write the UUID that `ndctl list -N` prints"),
        ],
    ),
    "namespace-dev": (
        provision("name: a, namespace: {dev: namespace0.0}"),
        [
            (3, 26, "provision[0].namespace", "the key `uuid` is missing; names"),
            (3, 27, "provision[0].namespace.dev", "renumber over reboots; write the uuid"),
        ],
    ),
    "namespace-name": (
        provision("name: a, namespace: {uuid: namespace0.0}"),
        [(3, 33, NAMESPACE, "is a name, and names renumber over reboots; write the UUID")],
    ),
    "namespace-device": (
        provision("name: a, namespace: {uuid: /dev/pmem0.1s}"),
        [(3, 33, NAMESPACE, "is a name, and names renumber")],
    ),
    "namespace-all": (
        provision("name: a, namespace: {uuid: all}"),
        [(3, 33, NAMESPACE, "is a name, and names renumber")],
    ),
    "namespace-glob": (
        provision('name: a, namespace: {uuid: "3f2a*"}'),
        [(3, 33, NAMESPACE, "is a glob; one namespace is meant")],
    ),
    "namespace-text": (
        provision("name: a, namespace: {uuid: my-database}"),
        [(3, 33, NAMESPACE, "`my-database` is not a UUID")],
    ),
    "namespace-nil": (
        provision("name: a, namespace: {uuid: 00000000-0000-0000-0000-000000000000}"),
        [(3, 33, NAMESPACE, "the namespace has none")],
    ),
    "namespace-twice": (
        provision(f"name: a, {HELD}", f"name: b, {HELD.upper().replace('NAMESPACE', 'namespace')}").replace(
            "UUID", "uuid"
        ),
        [(4, 33, "provision[1].namespace.uuid", "already asked for on line 3")],
    ),
    "namespace-both": (
        provision('name: a, namespace: {uuid: 3f2a6f1c-0b7d-4c1e-9a52-7d1f0c9be6a1, dimm: "8680-56341200"}'),
        [(3, 27, NAMESPACE, "cannot stand beside `dimm`")],
    ),
    "dimm-name": (
        provision("name: a, namespace: {dimm: nmem0}"),
        [(3, 33, "provision[0].namespace.dimm", "is not the serial number of a DIMM; write the id that")],
    ),
    "dimm-twice": (
        provision(
            *(
                f'name: {n}, namespace: {{dimm: "8680-{s}"}}'
                for n, s in (("a", "5634abcd"), ("b", "5634ABCD"))
            )
        ),
        [(4, 33, "provision[1].namespace.dimm", "already asked for on line 3")],
    ),
    "namespace-list": (
        provision("name: a, namespace: {uuid: [x]}"),
        [(3, 33, NAMESPACE, "a list cannot be here; write for example")],
    ),
    "uuid-outside": (
        provision(f"name: a, {REGION}, size: all, uuid: x"),
        [(3, 55, "provision[0].uuid", "write it below namespace")],
    ),
    "consent-of-a-region": (
        provision(f"name: a, {REGION}, size: all, consent: destroy"),
        [(3, 55, "provision[0].consent", "cannot stand beside `region` and `size`")],
    ),
    "consent-word": (
        provision(f"name: a, {HELD}, consent: yes-please"),
        [(3, 81, CONSENT, "`yes-please` is no consent; write destroy where it is empty")],
    ),
    "consent-yes": (
        provision(f"name: a, {HELD}, consent: yes"),
        [
            (
                3,
                81,
                CONSENT,
                "`yes` is a boolean in YAML 1.1, and no key takes one; write destroy where it is",
            )
        ],
    ),
    "consent-signature-no": (
        provision(f"name: a, {HELD}, consent: {{destroy: no}}"),
        [(3, 91, f"{CONSENT}.destroy", 'no key takes one; write "no" in quotes if the text is meant')],
    ),
    "consent-true": (
        provision(f"name: a, {HELD}, consent: true"),
        [(3, 81, CONSENT, "the boolean `true` is no consent")],
    ),
    "consent-empty": (
        provision(f"name: a, {HELD}, consent: {{}}"),
        [(3, 81, CONSENT, "the key `destroy` is missing")],
    ),
    "consent-signature": (
        provision(f"name: a, {HELD}, consent: {{destroy: '*'}}"),
        [(3, 91, f"{CONSENT}.destroy", "`*` is not a signature; write one such as ext4")],
    ),
    "consent-list": (
        provision(f"name: a, {HELD}, consent: {{destroy: [ext4, xfs]}}"),
        [(3, 91, f"{CONSENT}.destroy", "a list cannot be here")],
    ),
    "consent-other": (
        provision(f"name: a, {HELD}, consent: {{keep: ext4}}"),
        [
            (3, 81, CONSENT, "the key `destroy` is missing"),
            (3, 82, f"{CONSENT}.keep", "no such key here"),
        ],
    ),
    "size-small": (
        provision(f"name: a, {REGION}, size: 64MiB"),
        [(3, 50, "provision[0].size", "the minimum here, which is 128MiB")],
    ),
    "size-zero": (
        provision(f"name: a, {REGION}, size: 0%"),
        [(3, 50, "provision[0].size", "`0%` gives everything back; write none")],
    ),
    **{
        f"size-{zero}": (
            provision(f"name: a, {REGION}, size: {zero}"),
            [(3, 50, "provision[0].size", f"`{zero}` gives everything back; write none")],
        )
        for zero in ("0", "0B", "0GiB", "0.0")
    },
    "size-much": (
        provision(f"name: a, {REGION}, size: 101%"),
        [(3, 50, "provision[0].size", "more than 100%")],
    ),
    "size-all-but": (
        provision(f"name: a, {REGION}, size: all but"),
        [(3, 50, "provision[0].size", "`all but` leaves open what")],
    ),
    "size-all-but-share": (
        provision(f"name: a, {REGION}, size: all but 10%"),
        [(3, 50, "provision[0].size", "`10%` is not a size")],
    ),
    "size-some": (
        provision(f"name: a, {REGION}, size: some"),
        [(3, 50, "provision[0].size", "`some` is not a size")],
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
    "all-but-beside-share": (
        provision(f"name: a, {REGION}, size: 40%", f"name: b, {REGION}, size: all but 1GiB"),
        [(4, 50, "provision[1].size", "`all but 1GiB` of a region that is also asked for on line 3")],
    ),
}


@pytest.mark.parametrize("case", PROVISION.values(), ids=PROVISION.keys())
def test_every_problem_is_told_at_its_place(case: Case) -> None:
    assert_told(case)
