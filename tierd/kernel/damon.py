"""DAMON as it stands on this machine: whether the kernel has it, and who uses it.

There is one DAMON for all: its modules and its sysfs tree exclude each other, and a second writer of the
tree destroys the first one's work. Whoever uses it is named and left alone.
"""

from __future__ import annotations

from tierd.errors import GoneError, TierdError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root

MODULES = ("damon_stat", "damon_reclaim", "damon_lru_sort")
"""Start contexts that exclude others (damon_start, mm/damon/core.c). 7.2 and later have the first one on."""


def damon_trouble(root: Root) -> str:
    """Why DAMON cannot be used here, in words; empty when nobody uses it. Reads only. Called by the daemon,
    whose CAP_DAC_READ_SEARCH reads what belongs to root."""
    try:
        tree = read_text(root.damon / "nr_kdamonds").strip()
    except GoneError:
        return "this kernel has no DAMON"
    except TierdError as error:
        return str(error)
    users = [module for module in MODULES if _enabled(root, module)]
    if tree != "0":  # tierd sets up none
        users.append(f"somebody's {tree} kdamonds" if tree != "1" else "somebody's kdamond")
    return f"in use by {' and '.join(users)}" if users else ""


def _enabled(root: Root, module: str) -> bool:
    try:
        return read_text(root.modules / module / "parameters/enabled").strip() in ("Y", "y", "1")
    except TierdError:
        return False
