"""The last look before a namespace becomes memory or is given back, and before a region of CXL memory goes:
it is the one that was planned for, and nobody uses it.

`ndctl destroy-namespace -f` asks nobody, and `daxctl reconfigure-device` neither: they end processes that
map the device, and take what is not mounted.
"""

from __future__ import annotations

from collections.abc import Iterable

from tierd.core.cxl_machine import CxlRegion
from tierd.core.inventory import Namespace
from tierd.errors import GoneError, TierdError
from tierd.kernel.files import read_text
from tierd.kernel.in_use import block_devices, uses_of
from tierd.kernel.paths import Root


class InUseError(TierdError):
    """It is another one than was planned for, or somebody uses it, or may. Nothing was done."""


def require_ours(root: Root, namespace: Namespace) -> None:
    """Raises InUseError, and what the readers raise, unless `namespace` may go at once."""
    directory = root.nd_devices / namespace.name
    uuid, label = (read_text(directory / name).strip() for name in ("uuid", "alt_name"))
    if uuid != namespace.label_uuid or label != namespace.label:
        raise InUseError(
            f"{namespace.name} is {uuid}, labelled {label}, and not {namespace.label_uuid}, labelled"
            f" {namespace.label}: names have changed meanwhile"
        )
    devices = block_devices(root, namespace.name)
    if namespace.dax is not None:
        devices = (namespace.dax.name, *devices)
    require_unused(root, namespace.name, devices)


def require_unused(root: Root, what: str, devices: Iterable[str]) -> None:
    """Raises InUseError, which names `what`, and what the readers raise, when somebody uses one of
    `devices`."""
    found = [use.words for uses in uses_of(root, devices).values() for use in uses]
    if found:
        raise InUseError(f"{what} is in use, and left alone: {'; '.join(found[:5])}")


def require_region_unused(root: Root, region: CxlRegion) -> None:
    """Raises InUseError, and what the readers raise, unless nobody uses a dax device of the region."""
    for device in region.devices:
        path = root.dax_devices / device / "dev"
        try:
            read_text(path)  # without its number, who has it open cannot be told
        except GoneError as error:
            raise InUseError(
                f"who uses {device} of {region.name} cannot be told: {error}; it is left alone"
            ) from error
    require_unused(root, region.name, region.devices)
