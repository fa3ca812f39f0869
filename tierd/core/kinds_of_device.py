"""Which kinds of device memory is made of, told by what the kernel says of them. Pure.

Called for the picture of all devices and for the words of refusals.
"""

from __future__ import annotations

from enum import StrEnum

from tierd.core.inventory import Region


class RegionKind(StrEnum):
    """What a region of the nd bus consists of, as people call it."""

    NVDIMM = "NVDIMM"
    VIRTIO = "virtio-pmem"
    MEMMAP = "memmap="
    CXL = "CXL persistent memory"
    UNKNOWN = "unknown"


class DaxKind(StrEnum):
    """What a dax device is made of."""

    PERSISTENT = "persistent memory"
    CXL = "CXL memory"
    SOFT_RESERVED = "soft-reserved memory"
    UNKNOWN = "unknown"


# The provider of a region's bus: drivers/acpi/nfit/core.c, drivers/nvdimm/virtio_pmem.c and e820.c,
# drivers/cxl/core/pmem.c. Seen on 7.3; of CXL, the bus alone and no region.
_PROVIDERS = {
    "ACPI.NFIT": RegionKind.NVDIMM,
    "virtio-pmem": RegionKind.VIRTIO,
    "e820": RegionKind.MEMMAP,
    "CXL": RegionKind.CXL,
}


def kind_of_region(region: Region) -> RegionKind:
    """What a region consists of."""
    return _PROVIDERS.get(region.provider, RegionKind.UNKNOWN)


def label_less_words(region: Region) -> str:
    """Why a region without labels is refused: what it is, what that means, and what can be done."""
    kind = kind_of_region(region)
    if kind is RegionKind.VIRTIO:
        return (
            f"{region.name} is virtio-pmem, which has no labels and no serial number: nothing would tell it"
            " from another one after a reboot; give the guest an NVDIMM with labels, or ordinary memory"
        )
    if kind is RegionKind.MEMMAP:
        return (
            f"{region.name} is DRAM that memmap= on the kernel's command line shows as persistent memory:"
            " it has no labels and is as fast as the rest; without memmap= it is ordinary memory"
        )
    if kind is RegionKind.NVDIMM:
        return (
            f"{region.name} has no labels: nothing tells its namespaces apart after a reboot; if nothing on"
            f" it is needed, `ndctl disable-region {region.name}` and `ndctl init-labels` for its modules"
            " give it some, and so does a request with consent for the serial number of its one module"
            " (`namespace: {dimm: ID}`, tierd.yaml(5))"
        )
    return f"{region.name} has no labels: nothing tells its namespaces apart after a reboot"
