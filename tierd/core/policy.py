"""What the operator asked for, as values. Built by config/ from YAML; read by everyone else."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from tierd.core.classes import DEFAULT_CLASS, ServiceClass
from tierd.core.text import plural

MIB = 1 << 20
GIB = 1 << 30


class EngineMode(StrEnum):
    """`place` moves pages; `observe` looks and plans, and moves nothing."""

    PLACE = "place"
    OBSERVE = "observe"


class ProvisionMode(StrEnum):
    """`apply` lets tierd-convert@ act; `plan` only shows what it would do."""

    APPLY = "apply"
    PLAN = "plan"


@dataclass(frozen=True, slots=True)
class ProcessMatch:
    """One rule for choosing processes. Exactly one of the two is set.

    unit: the name of a systemd unit (service, scope or slice), for example ``postgresql.service``.
    cgroup: a glob over the cgroup path below the cgroup root, for example ``/system.slice/*``; ``*`` crosses
        ``/``.
    """

    unit: str | None = None
    cgroup: str | None = None

    def matches(self, cgroup_path: str) -> bool:
        """Whether a process in `cgroup_path` (as in /proc/PID/cgroup, ``/a/b``) is meant."""
        if self.unit is not None:
            return self.unit in cgroup_path.split("/")
        return self.cgroup is not None and fnmatchcase(cgroup_path, self.cgroup)


@dataclass(frozen=True, slots=True)
class ProcessSelection:
    """Which processes are placed: those that match an `include` and no `exclude`."""

    include: tuple[ProcessMatch, ...] = (ProcessMatch(cgroup="*"),)
    exclude: tuple[ProcessMatch, ...] = ()

    def selects(self, cgroup_path: str) -> bool:
        """Whether processes in `cgroup_path` are placed."""
        return any(m.matches(cgroup_path) for m in self.include) and not any(
            m.matches(cgroup_path) for m in self.exclude
        )


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    """How pages are placed.

    bandwidth: bytes a second, promotion and demotion together.
    dram_floor: bytes of each DRAM node that tierd leaves free, beyond the floor the engine itself computes.
    minimum_process: bytes; processes with less resident memory are left alone.
    round: seconds between two plans.
    cooldown: seconds for which a page that came up, and went down again, does not come up once more.
    heat_half_life: seconds after which a page not seen since counts for less; half after twice as long.
    huge_pages: whether huge pages of a contended cgroup may be split to be placed, and made again after.
    pressure_limit: share of time (0..100, PSI memory `some avg10`) above which moving stops.
    """

    mode: EngineMode = EngineMode.OBSERVE
    bandwidth: int = 512 * MIB
    dram_floor: int = 0
    minimum_process: int = 64 * MIB
    round: float = 1.0
    cooldown: float = 30.0
    heat_half_life: float = 20.0
    huge_pages: bool = True
    pressure_limit: float = 40.0


@dataclass(frozen=True, slots=True)
class ProvisionRequest:
    """A share of a region that is to be memory. The rest stays persistent.

    name: the instance of tierd-convert@NAME.service; ``[A-Za-z0-9][A-Za-z0-9_.-]{0,55}``, so that
        ``tierd:NAME`` fits the label of a namespace.
    iset_id: the region's interleave set, an unsigned 64-bit integer. Names renumber; this does not.
    size: bytes of memory wanted, before alignment; 0 gives everything back. None when one of the two below
        is set, else all that is free when the request is first carried out.
    per_cent: share of the region (0..100) that is to be memory, in whole memory blocks.
    all_but: bytes of the region that tierd's namespaces leave to others.
    force_ratio: whether there may be more slow memory behind DRAM than is reasonable.
    """

    name: str
    iset_id: int
    size: int | None
    mode: ProvisionMode = ProvisionMode.PLAN
    per_cent: float | None = None
    all_but: int | None = None
    force_ratio: bool = False


@dataclass(frozen=True, slots=True)
class NamespaceRequest:
    """A namespace that exists and is to be memory, all of it. What it holds is destroyed.

    name: as that of a ProvisionRequest; all kinds share the names. uuid: in lower case, as ndctl shows it.
    dimm: in its place, the serial number of the DIMM whose only namespace has no label.
    consent: what may be destroyed: a signature as blkid names it, or ``unknown data``; empty when consent is
        to a namespace that holds nothing; None when there is none, and nothing is.
    force_ratio: as that of a ProvisionRequest.
    """

    name: str
    uuid: str
    consent: str | None = None
    mode: ProvisionMode = ProvisionMode.PLAN
    dimm: str = ""
    force_ratio: bool = False

    @property
    def identity(self) -> str:
        """What names the namespace, in the record and beside the policy."""
        return self.dimm or self.uuid


@dataclass(frozen=True, slots=True)
class CxlRequest:
    """Volatile memory on CXL that is to be memory of the kernel.

    name: as that of a ProvisionRequest; all kinds share the names.
    serials: of the devices, in the order in which the region interleaves them; unsigned 64-bit integers.
    size: bytes, rounded up to 256 MiB for each device; None for all that is free, 0 gives everything back.
    force_ratio: as that of a ProvisionRequest.
    """

    name: str
    serials: tuple[int, ...]
    size: int | None
    mode: ProvisionMode = ProvisionMode.PLAN
    force_ratio: bool = False


AnyRequest = ProvisionRequest | NamespaceRequest | CxlRequest


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy. provision: the requests for free capacity; namespaces: those for ones that exist; cxl:
    those for volatile memory on CXL.

    classes: in the order of the policy, the class `default` last wherever it stands there, and always.
    warnings: what is odd about the policy and no error, ``FILE:LINE:COLUMN: PATH: warning: message`` each;
    two policies that ask for the same are equal, whatever there is to say about them.
    origin: the main file. drop_ins: those merged over it, in that order. digest: SHA-256 of the file, or of
    what sha256sum(1) prints of all of them, in hexadecimal.
    """

    processes: ProcessSelection = field(default_factory=ProcessSelection)
    engine: EnginePolicy = field(default_factory=EnginePolicy)
    provision: tuple[ProvisionRequest, ...] = ()
    namespaces: tuple[NamespaceRequest, ...] = ()
    cxl: tuple[CxlRequest, ...] = ()
    classes: tuple[ServiceClass, ...] = (DEFAULT_CLASS,)
    origin: str = "built-in defaults"
    drop_ins: tuple[str, ...] = ()
    digest: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def source(self) -> str:
        """Where it comes from, in words: ``/etc/tierd/tierd.yaml and 2 drop-ins``."""
        count = plural(len(self.drop_ins), "drop-in")
        return f"{self.origin} and {count}" if self.drop_ins else self.origin

    @property
    def requests(self) -> tuple[AnyRequest, ...]:
        """Every request for memory."""
        return (*self.provision, *self.namespaces, *self.cxl)
