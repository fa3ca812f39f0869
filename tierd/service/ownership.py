"""The last look before a namespace becomes memory or is given back, and before a region of CXL memory goes:
it is the one that was planned for, and nobody uses it.

`ndctl destroy-namespace -f` asks nobody, and `daxctl reconfigure-device` neither: they end processes that
map the device, and take what is not mounted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tierd.core.cxl_machine import CxlRegion
from tierd.core.inventory import Namespace, Use
from tierd.errors import GoneError, TierdError
from tierd.kernel.files import read_text
from tierd.kernel.in_use import users_of, uses_of
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
    users = users_of(root, (namespace,))[namespace.name]
    if users.blind:
        raise InUseError(f"who uses {namespace.name} cannot be told: {users.blind}; it is left alone")
    _require_none(namespace.name, users.uses)


def require_unused(root: Root, what: str, devices: Iterable[str]) -> None:
    """Raises InUseError, which names `what`, and what the readers raise, when somebody uses one of
    `devices`."""
    _require_none(what, [use for uses in uses_of(root, devices).values() for use in uses])


def _require_none(what: str, uses: Sequence[Use]) -> None:
    if uses:
        raise InUseError(f"{what} is in use, and left alone: {'; '.join(use.words for use in uses[:5])}")


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
