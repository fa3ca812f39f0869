"""The regions of persistent memory as everybody may see them: no ndctl, no root, a few small files."""

from __future__ import annotations

import contextlib

from tierd.core.notices import SeenRegion
from tierd.core.text import in_order
from tierd.errors import GoneError, MalformedError
from tierd.kernel.files import read_int
from tierd.kernel.inventory import LABELLED
from tierd.kernel.paths import Root


def read_regions(root: Root) -> tuple[SeenRegion, ...]:
    """All of them, by name. One that is in the middle of a change is left out.

    Waits as long as the kernel does for a device that is being probed, so not for a thread that must not
    wait. Raises DeniedError.
    """
    found = []
    names = (path.name for path in root.nd_devices.glob("region[0-9]*"))
    for name in sorted(names, key=in_order):
        directory = root.nd_devices / name
        with contextlib.suppress(GoneError, MalformedError):
            size = read_int(directory / "size")
            iset_id = None
            with contextlib.suppress(GoneError, MalformedError):
                # without labels the kernel makes up another one (drivers/nvdimm/region_devs.c)
                if read_int(directory / "nstype") == LABELLED:
                    iset_id = read_int(directory / "set_cookie", 16) or None
            available = read_int(directory / "available_size")
            found.append(SeenRegion(name, iset_id, size, available))
    return tuple(found)
