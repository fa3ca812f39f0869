"""What there is to provision: regions, namespaces, dax devices, memory blocks and nodes, as values.

Filled by kernel/inventory.py, read by core/provision.py. Sizes and physical addresses are in bytes
throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM_RAM_DRIVER = "kmem"
"""The driver of a dax device that is in system-ram mode; in devdax mode it is ``device_dax``."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of physical addresses: `start` is its first byte, `size` its length."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte behind the span."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Use:
    """Somebody uses a device. kind: ``mounted``, ``swap``, ``holder``, ``open`` or ``mapped``; ``named``
    when a table of mounts only says that it is to be."""

    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Users:
    """Who uses a namespace, by whatever device. blind: why that cannot be told, empty when it can."""

    uses: tuple[Use, ...] = ()
    blind: str = ""


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """A memory block, ``memoryN`` in sysfs.

    zone: ``Movable``, ``Normal`` ... when online; None when offline or unknown. node: None when it is not
    known.
    """

    number: int
    online: bool
    zone: str | None
    node: int | None

    @property
    def movable(self) -> bool:
        """Whether the block is online and can leave again."""
        return self.online and self.zone == "Movable"


@dataclass(frozen=True, slots=True)
class DaxDevice:
    """A character dax device such as ``dax0.0``.

    span: the physical addresses of its data. driver: ``device_dax``, ``kmem``, or empty when none is bound.
    target_node: the node that the memory would join, None when the firmware names none.
    blocks: the memory blocks that exist within the span; empty in devdax mode.
    """

    name: str
    span: Span
    driver: str
    target_node: int | None
    blocks: tuple[MemoryBlock, ...] = ()

    @property
    def system_ram(self) -> bool:
        """Whether the device is in system-ram mode, with or without blocks online."""
        return self.driver == SYSTEM_RAM_DRIVER


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace of a region.

    name: ``namespace0.1``; changes from boot to boot, never an identity. label: the name written in its
    label.
    uuid: changes at every reconfiguration; label_uuid: the one in the label itself, which stays as long as
    the namespace does. claimed: where daxctl is told to reconfigure it at boot; empty when it is not.
    mode: as ndctl prints it (``devdax``, ``fsdax``, ``sector``, ``raw`` ...).
    span: None when the kernel does not say where it lies. dax: its device when the mode is devdax and it is
    there.
    """

    name: str
    uuid: str | None
    label: str
    mode: str
    enabled: bool
    span: Span | None
    dax: DaxDevice | None = None
    label_uuid: str | None = None
    claimed: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    """A region of persistent memory: one DIMM, or an interleave set of several.

    iset_id: the interleave set, unsigned; None for a region without labels, which nothing identifies for
    good.
    span: None when the kernel does not say where it lies. align: bytes, what namespaces start and end at.
    available: bytes that no namespace holds, by the kernel's count.
    half_made: names of namespaces that have a UUID and no size yet: ndctl is making them, or was killed over
    it.
    bad_blocks: ranges of 512-byte sectors with media errors. locked: names of its DIMMs that are
    security-locked.
    provider: of its bus, as the kernel names it (``ACPI.NFIT``, ``virtio-pmem``, ``e820``); empty when
    unknown.
    dimms: the names of those that it interleaves, and serials what names each for good (``8680-56341200``);
    empty for one whose serial number is not known. modules: what ndctl lists of them, with their flags.
    """

    name: str
    iset_id: int | None
    span: Span | None
    align: int
    available: int
    labelled: bool
    enabled: bool
    read_only: bool
    bad_blocks: int
    locked: tuple[str, ...]
    target_node: int | None
    namespaces: tuple[Namespace, ...] = ()
    half_made: tuple[str, ...] = ()
    provider: str = ""
    dimms: tuple[str, ...] = ()
    serials: tuple[str, ...] = ()
    modules: tuple[Dimm, ...] = ()


@dataclass(frozen=True, slots=True)
class Dimm:
    """A module of persistent memory, ``nmem0``.

    serial: what names it for good (``8680-56341200``). size: bytes of it that regions map, None when none
    does.
    security: as ndctl says it (``disabled``, ``unlocked``, ``locked`` ...), None when it has no such thing.
    flags: what its firmware complains of, in words (``failed flush``). health: ``ok``, ``non-critical``,
    ``critical``, ``fatal``; None when it does not tell. regions: names of those that it is part of.
    """

    name: str
    serial: str | None
    size: int | None
    security: str | None
    flags: tuple[str, ...]
    health: str | None
    regions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryNode:
    """A node that is online.

    total, available: bytes; available is what could be had without swapping (free, and half the file cache).
    kernel_memory: whether it has memory outside ZONE_MOVABLE. tier: as ``memory_tier4``, None when in none.
    slow: whether that tier is behind those that have CPUs.
    """

    number: int
    total: int
    available: int
    has_cpus: bool
    kernel_memory: bool
    tier: str | None
    slow: bool = False

    @property
    def dram(self) -> bool:
        """Whether the kernel lives here: then it is no place for memory that shall be able to leave.

        Slow memory that others brought online outside ZONE_MOVABLE makes no DRAM of its node."""
        return self.has_cpus or (self.kernel_memory and not self.slow)


@dataclass(frozen=True, slots=True)
class Taken:
    """A namespace that exists and that tierd began to give up, with consent, for `request`; from its record.

    uuid, label_uuid: what it had; without a label, the serial number of its DIMM, and nothing.
    size, memory: bytes of the namespace, and of the memory it was to become.
    found: what it held, as core/consent.py names it. data: where its data began, bytes behind its own start,
    and how long it was. kept: what head and tail are kept as. done: whether it is known to be gone.
    """

    request: str
    uuid: str
    label_uuid: str
    iset_id: int
    size: int
    memory: int
    found: str
    data: Span
    kept: str
    done: bool


@dataclass(frozen=True, slots=True)
class Inventory:
    """The machine as provisioning sees it.

    block_size: bytes of one memory block. online_policy: the content of ``auto_online_blocks``.
    unfinished: requests whose namespace tierd began to make and never saw done, each with the size that the
    namespace was to have, from tierd's own write-ahead record.
    made: requests with the UUID of the namespace that tierd made for them, from the same record.
    condemned: requests with the label UUID of the namespace that tierd began to give back and never saw
    gone.
    taken: namespaces that tierd began to give up with their owners' consent, oldest first.
    drained: the interleave sets of regions that an operator has drained.
    whole: the UUIDs of namespaces, and the identities of CXL regions, all of which tierd has seen online in
    this boot.
    """

    regions: tuple[Region, ...]
    nodes: tuple[MemoryNode, ...]
    block_size: int
    online_policy: str
    unfinished: frozenset[tuple[str, int]] = frozenset()
    made: frozenset[tuple[str, str]] = frozenset()
    condemned: frozenset[tuple[str, str]] = frozenset()
    taken: tuple[Taken, ...] = ()
    drained: frozenset[int] = frozenset()
    whole: frozenset[str] = frozenset()
