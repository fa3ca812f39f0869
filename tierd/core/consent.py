"""A namespace that exists becomes memory: what must be known of it, and every reason why it does not.

Its data is destroyed, so nothing is assumed. The owner names it by UUID, or by its DIMM, repeats what it
holds, and puts a file beside the policy; two witnesses who do not know of each other must say the same;
nobody may use it. Any doubt is a refusal, and all of them are told at once.

The way to memory is the one of free capacity (core/provision.py): the namespace is given up, and one of
tierd's own is made of what it leaves. Pure. kernel/evidence.py fills Evidence, twice: for the plan, and
again when the step is about to be run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierd.core import provision, refusals
from tierd.core.evidence import Content, Evidence, Target, find_target, finding, regions_of_dimm, taken_of
from tierd.core.foresight import without
from tierd.core.inventory import Inventory, Namespace, Region, Taken
from tierd.core.policy import NamespaceRequest, ProvisionRequest
from tierd.core.provision import Action, Command, Numbers, ProvisionPlan, Step, Verdict, memory_of
from tierd.core.refusals import LABEL_PREFIX, Refusal
from tierd.core.units import format_size

EDGE = 8 << 20
"""Bytes at either end of the data that are looked at and kept. Every signature that libblkid knows lies
there, also the second header of LUKS2, which may begin at 4 MiB (cryptsetup, LUKS2 on-disk format, 2.1)."""

ROOM = 2 * EDGE + (4 << 20)
"""Bytes that must be free where head and tail are kept."""

KEPT_DAYS = 30
"""Days for which they are; systemd/tierd.tmpfiles says so too, and does it."""

CONVERTIBLE = frozenset({"raw", "fsdax", "devdax"})
"""Modes in which head and tail of the data can be read. A sector (btt) namespace has its blocks shuffled."""


@dataclass(frozen=True, slots=True)
class NamespacePlan:
    """What to do about one request for a namespace. Has the attributes of a SharePlan that both kinds share.

    found: what the namespace holds, as Evidence told; None when that is not known, or it is given up.
    """

    request: NamespaceRequest
    part: ProvisionPlan
    evidence: Evidence | None = None
    found: str | None = None

    @property
    def verdict(self) -> Verdict:
        return self.part.verdict

    @property
    def region(self) -> str | None:
        return self.part.region

    @property
    def target_node(self) -> int | None:
        return self.part.target_node

    @property
    def numbers(self) -> Numbers | None:
        return self.part.numbers

    @property
    def parts(self) -> tuple[ProvisionPlan, ...]:
        return (self.part,)

    @property
    def kept(self) -> tuple[ProvisionPlan, ...]:
        """The part, when the namespace is tierd's own already."""
        return () if self.found is not None or self.evidence is not None else self.parts

    @property
    def next(self) -> ProvisionPlan | None:
        """The part whose first step is to be taken now."""
        return self.part if self.verdict is Verdict.READY else None

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.part.steps if self.verdict is Verdict.READY else ()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        return self.part.refusals

    @property
    def notes(self) -> tuple[str, ...]:
        return self.part.notes


def plan_namespace(
    inventory: Inventory, request: NamespaceRequest, evidence: Evidence | None
) -> NamespacePlan:
    """What is to be done about `request`, or every reason why nothing is. Raises nothing.

    evidence: of the namespace that find_target names; None when it names none.
    """
    target = find_target(inventory, request)
    if target is None:
        return NamespacePlan(request, _plan_absent(inventory, request))
    assert evidence is not None
    region, namespace = target.region, target.namespace
    found = finding(evidence, target.taken)
    refused = [*of_state(request, namespace), *of_evidence(request, target, evidence)]
    label = LABEL_PREFIX + request.name
    labelled = [n.name for r in inventory.regions for n in r.namespaces if n.label == label]
    if labelled and labelled != [namespace.name]:
        words = f"{', '.join(labelled)} is labelled {label} already: give this request a name of its own"
        refused.append(Refusal("label-in-use", words))
    if region.iset_id is None and region.labelled:
        words = f"{region.name} has no iset_id: nothing would name the memory again after a reboot"
        refused.append(Refusal("no-iset-id", words))
    memory = memory_of(namespace, inventory.block_size)
    if not memory.size:
        size = format_size(inventory.block_size)
        refused.append(Refusal("too-small", f"{namespace.name} holds no whole memory block of {size}"))
    after, freed = without(inventory, region, namespace)
    if request.dimm:
        # what is free without labels, the kernel does not count
        whole = 0 if region.span is None else region.span.size
        freed = replace(freed, labelled=True, available=whole)
    asked, force = memory.size or None, request.force_ratio
    inner = ProvisionRequest(request.name, region.iset_id or 0, asked, request.mode, force_ratio=force)
    made = provision.plan_new(after, inner, freed)
    refused += [r for r in made.refusals if memory.size or r.kind != "capacity"]
    part = replace(
        made,
        verdict=Verdict.REFUSED if refused else Verdict.READY,
        namespace=namespace,
        steps=(_give_up(region, namespace, found), *made.steps),
        refusals=tuple(dict.fromkeys(refused)),
    )
    return NamespacePlan(request, part, evidence, found)


def _plan_absent(inventory: Inventory, request: NamespaceRequest) -> ProvisionPlan:
    """Nothing is what the request names: tierd has made memory of it, or it is not there."""
    taken = taken_of(inventory, request)
    every = [n for region in inventory.regions for n in region.namespaces]
    if taken is not None and request.dimm:
        # without labels its region had no iset_id yet
        there = [r.iset_id for r in inventory.regions if r.serials == (request.dimm,) and r.iset_id]
        taken = replace(taken, iset_id=there[0]) if there else None
    if taken is not None:
        force = request.force_ratio
        inner = ProvisionRequest(request.name, taken.iset_id, taken.memory, request.mode, force_ratio=force)
        made = [uuid for name, uuid in inventory.made if name == request.name]
        if made and all(n.label != LABEL_PREFIX + request.name for n in every) and _seen(inventory, taken):
            words = (
                f"tierd made {made[0]} of {request.identity}, and that is gone; take the request out of the"
            )
            refusal = Refusal("namespace-gone", f"{words} policy, or ask for free capacity")
            return ProvisionPlan(inner, Verdict.REFUSED, refusals=(refusal,))
        return provision.plan(inventory, inner)
    same = [n.name for n in every if n.uuid is not None and n.uuid.lower() == request.uuid]
    if request.dimm:
        refusal = _absent_on_dimm(inventory, request.dimm)
    elif same:
        refusal = Refusal("ambiguous-uuid", f"{', '.join(same)} all have UUID {request.uuid}")
    else:
        known = ", ".join(f"{n.uuid} ({n.name})" for n in every if n.uuid) or "none"
        words = f"no namespace has UUID {request.uuid}; there is {known}"
        before = [t.request for t in inventory.taken if t.uuid == request.uuid]
        if before:
            words += f"; tierd gave it up for the request {before[-1]}, whose name must stay"
        refusal = Refusal("namespace-not-found", words)
    inner = ProvisionRequest(request.name, 0, None, request.mode)
    return ProvisionPlan(inner, Verdict.REFUSED, refusals=(refusal,))


def _absent_on_dimm(inventory: Inventory, serial: str) -> Refusal:
    """Why the DIMM has no namespace that its serial number alone could name."""
    found = regions_of_dimm(inventory, serial)
    if not found:
        known = ", ".join(sorted({s for region in inventory.regions for s in region.serials if s})) or "none"
        return Refusal("dimm-not-found", f"no region has a DIMM {serial}; there is {known}")
    names = ", ".join(region.name for region in found)
    if len(found) > 1:
        words = (
            f"{serial} is part of {names}, and is to be part of one region alone: labels would take what"
            " lies in each of them; have the firmware make one region of it, once nothing in them is wanted"
        )
    elif found[0].serials != (serial,):
        words = (
            f"{serial} is not alone in {names}: what lies on several DIMMs is not taken by the serial of one"
        )
    elif found[0].labelled:
        words = f"{serial} has labels: ask for free capacity of {names}, or for a namespace by its UUID"
    else:
        words = (
            f"nothing is seen on {names}, the region of {serial}; `ndctl enable-region {names}` enables it"
        )
    return Refusal("dimm", words)


def _seen(inventory: Inventory, taken: Taken) -> bool:
    """Whether the region is there: while it is not, nothing is known to be gone."""
    return any(region.iset_id == taken.iset_id and region.enabled for region in inventory.regions)


def _give_up(region: Region, namespace: Namespace, found: str | None) -> Step:
    size = 0 if namespace.span is None else namespace.span.size
    holds = held_words(found)
    known = namespace.uuid or " ".join(region.serials)
    how = "give it up"
    acts: tuple[Command, ...] = (
        Command(("ndctl", "destroy-namespace", "-r", region.name, "-f", namespace.name)),
    )
    if not region.labelled:
        # never forced: a DIMM that has labels after all keeps them
        how = f"give {' '.join(region.dimms)} labels, which takes it away"
        acts = (
            Command(("ndctl", "disable-region", region.name)),
            *(Command(("ndctl", "init-labels", dimm)) for dimm in region.dimms),
            Command(("ndctl", "enable-region", region.name)),
        )
    return Step(
        Action.TAKE_NAMESPACE,
        acts,
        f"keep the first and the last {format_size(EDGE)} of {namespace.name}, {known}, for"
        f" {KEPT_DAYS} days, and {how}",
        f"nothing of the {format_size(size)} of {namespace.name} can be had back, which holds {holds}, but"
        " what is kept of it",
    )


def held_words(found: str | None) -> str:
    """What a namespace holds, in words."""
    return {None: "nobody knows what", "": "nothing but zeros at both ends"}.get(found, found or "")


def of_state(request: NamespaceRequest, namespace: Namespace) -> list[Refusal]:
    """What of the namespace itself forbids it."""
    name, found = namespace.name, refusals.of_claim(namespace)
    if namespace.mode == "sector":
        words = f"{name} is in sector mode, behind a btt, which is for file systems that rely on it"
        found.append(Refusal("sector", f"{words}: it is never converted"))
    elif namespace.mode not in CONVERTIBLE:
        words = f"{name} is in mode {namespace.mode}; raw, fsdax and devdax are converted"
        found.append(Refusal("mode", words))
    if not namespace.enabled:
        words = f"{name} is disabled, and what it holds cannot be seen; `ndctl enable-namespace {name}`"
        found.append(Refusal("disabled", f"{words} enables it"))
    own = namespace.label.removeprefix(LABEL_PREFIX)
    if namespace.label.startswith(LABEL_PREFIX) and own.partition("+")[0] != request.name:
        found.append(Refusal("ours", f"{name} is labelled {namespace.label}: tierd made it for {own}"))
    dax = namespace.dax
    if dax is not None and (dax.system_ram or dax.blocks):
        words = f"{name} is memory already, as {dax.name}; somebody else made it so"
        found.append(Refusal("system-ram", f"{words}: `daxctl reconfigure-device -m devdax -f {dax.name}`"))
    return found


_REMEDIES = {
    "mounted": "unmount it",
    "swap": "swapoff it",
    "holder": "take it out of the volume",
    "open": "end it, or have it close the device",
    "mapped": "end it, or have it unmap the device",
    "named": "take that out of there",
}

_USED = {"named": "meant to be mounted, or to be swap"}


def of_evidence(request: NamespaceRequest, target: Target, evidence: Evidence) -> list[Refusal]:
    """What of the evidence forbids it."""
    name, found = target.namespace.name, finding(evidence, target.taken)
    same = target.taken is not None and evidence.as_kept is True
    refused = [
        Refusal(
            use.kind,
            f"{name} is {_USED.get(use.kind, 'in use')}: {use.words};"
            f" {_REMEDIES.get(use.kind, 'stop that')} first",
        )
        for use in evidence.uses
    ]
    if evidence.blind:
        refused.append(Refusal("use-unknown", f"who uses {name} cannot be told: {evidence.blind}"))
    if evidence.read_only:
        refused.append(Refusal("read-only", f"{evidence.device} of {name} is read-only"))
    if evidence.info_block and not same:
        raw = target.namespace.mode == "raw"
        why = "it was forced into raw mode" if raw else "another namespace was copied into it"
        words = f"{name} begins with the header of a {evidence.info_block} namespace: {why}"
        refused.append(Refusal("info-block", f"{words}, and its data is not what is seen"))
    uuid = target.namespace.uuid
    other = not request.dimm and (uuid is None or uuid.lower() != request.uuid)
    if target.taken is not None and not same and other:
        # what the witnesses see of it is not where its data was
        words = f"a run was stopped while it gave {name} up, and what is there now is not what it kept then"
        refused.append(
            Refusal("changed", f"{words}; look at it, and `ndctl destroy-namespace -f {name}` if it may go")
        )
    elif not same:
        refused += _of_witnesses(name, evidence)
    refused += _of_consent(request, name, found)
    if evidence.allowed:
        refused.append(Refusal("allow-file", evidence.allowed))
    if evidence.room is None or evidence.room < ROOM:
        there = (
            "how much cannot be told" if evidence.room is None else f"{format_size(evidence.room)} are free"
        )
        words = (
            f"no room to keep head and tail of {name}: {format_size(ROOM)} are needed below /var/lib/tierd"
        )
        refused.append(Refusal("no-room", f"{words}, {there}"))
    return refused


def _of_witnesses(name: str, evidence: Evidence) -> list[Refusal]:
    refused = [
        Refusal("witness", f"{w.name} cannot tell what {name} holds: {w.trouble}")
        for w in evidence.witnesses
        if w.trouble
    ]
    said = [w for w in evidence.witnesses if not w.trouble]
    if len({w.found for w in said}) > 1:
        words = ", ".join(f"{w.name} finds {w.words}" for w in said)
        refused.append(Refusal("witnesses-differ", f"of {name} {words}: they must find the same"))
    if evidence.content is Content.UNREADABLE:
        refused.append(Refusal("unreadable", f"{name} cannot be read: {evidence.content_words}"))
    return refused


def _of_consent(request: NamespaceRequest, name: str, found: str | None) -> list[Refusal]:
    if request.consent is None:
        words = f"there is no consent to destroy what {name} holds, which is {held_words(found)}"
        if found is None:
            return [Refusal("no-consent", words)]
        return [Refusal("no-consent", f"{words}; `consent: {consent_text(found)}` is consent")]
    if found is None or found == request.consent:
        return []  # what is not known is refused as such
    words = f"{name} holds {held_words(found)}, and the consent is to {held_words(request.consent)}"
    return [Refusal("consent", f"{words}; `consent: {consent_text(found)}` would be to what is there")]


def consent_text(consent: str | None) -> str:
    """The consent as it is written in a policy."""
    if consent is None:
        return "none"
    return f"{{destroy: {consent}}}" if consent else "destroy"
