"""What is known of a namespace that exists and is to become memory: which one is meant, what it holds, who
says so. Pure; filled by kernel/evidence.py, judged by core/consent.py."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tierd.core.inventory import Inventory, Namespace, Region, Taken, Use
from tierd.core.policy import AnyRequest, CxlRequest, NamespaceRequest

UNKNOWN_DATA = "unknown data"
"""The name of what is not zeros and has no signature: plain dm-crypt, the raw files of a database, or
rubbish. Nothing can tell which, so it takes a consent of its own. Without one the owner would have to write
zeros by hand, which nobody checks."""


class Content(Enum):
    """What head and tail of the data are."""

    ZEROS = "zeros"
    DATA = "data"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Witness:
    """One who was asked what a device holds, and the answer.

    found: the signature, several joined by ``+``; empty when it finds none.
    trouble: why its word counts for nothing: it is silent, late, of two minds; then `found` means nothing.
    """

    name: str
    found: str = ""
    trouble: str = ""

    @property
    def words(self) -> str:
        return self.trouble or self.found or "nothing"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a namespace at one moment.

    uses: who uses it; blind: why that cannot be told, else empty. content_words: why it is unreadable.
    info_block: a header of the kernel's (``btt``, ``pfn``, ``dax``) where its data begins, else empty.
    allowed: what is wrong with the file beside the policy, `allow_file`; empty when nothing is.
    room: bytes free where head and tail are kept, or None when that cannot be told.
    as_kept: where a run was stopped while it gave the namespace up: whether it is what was kept then. None
        where there was no such run.
    """

    device: str
    witnesses: tuple[Witness, ...]
    content: Content
    allow_file: str
    allowed: str
    room: int | None
    content_words: str = ""
    uses: tuple[Use, ...] = ()
    blind: str = ""
    info_block: str = ""
    read_only: bool = False
    as_kept: bool | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """The namespace that a request means. taken: what an earlier run noted of it that was to give it up."""

    region: Region
    namespace: Namespace
    taken: Taken | None = None


def taken_of(inventory: Inventory, request: NamespaceRequest) -> Taken | None:
    """What the record says of the request's namespace; None when it was never begun to be given up."""
    found = [t for t in inventory.taken if (t.request, t.uuid) == (request.name, request.identity)]
    return found[-1] if found else None


def regions_asked(inventory: Inventory, request: AnyRequest) -> frozenset[int]:
    """The interleave sets that a request is about, as far as they can be known; none for CXL memory."""
    if isinstance(request, CxlRequest):
        return frozenset()
    if not isinstance(request, NamespaceRequest):
        return frozenset({request.iset_id})
    taken = taken_of(inventory, request)
    found = {
        region.iset_id
        for region in inventory.regions
        if request.identity in (*region.serials, *(n.uuid for n in region.namespaces))
    }
    # zero: a DIMM that had no labels when it was taken
    return frozenset(iset for iset in (*found, taken.iset_id if taken else None) if iset)


def regions_of_dimm(inventory: Inventory, serial: str) -> tuple[Region, ...]:
    """The regions that the DIMM is part of, alone or interleaved, disabled ones too."""
    return tuple(region for region in inventory.regions if serial in region.serials)


def find_target(inventory: Inventory, request: NamespaceRequest) -> Target | None:
    """The namespace that is to be given up, of which evidence is to be had; None for none or several."""
    taken = taken_of(inventory, request)
    every = [(region, n) for region in inventory.regions for n in region.namespaces]
    if request.dimm:
        if len(regions_of_dimm(inventory, request.dimm)) > 1:
            return None  # labels are the whole DIMM's: they take what lies in each of its regions
        found = [(r, n) for r, n in every if r.serials == (request.dimm,) and not r.labelled]
    else:
        found = [(r, n) for r, n in every if n.uuid is not None and n.uuid.lower() == request.uuid]
    if not found and taken is not None and not taken.done and taken.label_uuid:
        # without its info block it shows the UUID of its label
        found = [(region, n) for region, n in every if n.label_uuid == taken.label_uuid]
    if len(found) != 1:
        return None
    same = taken is not None and (found[0][1].label_uuid or "") == taken.label_uuid
    resumed = same and taken is not None and not taken.done
    return Target(*found[0], taken if resumed else None)


def given_up(inventory: Inventory, target: Target) -> bool:
    """Whether the namespace is gone: its label, or all that was on a DIMM without labels."""
    if target.region.labelled:
        every = (n for region in inventory.regions for n in region.namespaces)
        return all(n.label_uuid != target.namespace.label_uuid for n in every)
    same = [region for region in inventory.regions if region.serials == target.region.serials]
    return len(same) == 1 and same[0].labelled and same[0].enabled


def finding(evidence: Evidence, taken: Taken | None = None) -> str | None:
    """What the namespace holds: a signature, UNKNOWN_DATA, or nothing (the empty text).

    None when that is not known: a witness has trouble, they differ, or it cannot be read.
    """
    if taken is not None and evidence.as_kept:
        return taken.found
    said = {witness.found for witness in evidence.witnesses}
    if any(witness.trouble for witness in evidence.witnesses) or len(said) != 1:
        return None
    if evidence.content is Content.UNREADABLE:
        return None
    return said.pop() or ("" if evidence.content is Content.ZEROS else UNKNOWN_DATA)
