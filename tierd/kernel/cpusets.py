"""On which nodes the processes of a cgroup may have memory (cpuset of the unified hierarchy)."""

from __future__ import annotations

from tierd.errors import GoneError, TierdError
from tierd.kernel.files import parse_list, read_text
from tierd.kernel.paths import Root

Nodes = frozenset[int] | None


def read_allowed_nodes(root: Root, cgroup: str, known: dict[str, Nodes] | None = None) -> Nodes:
    """The nodes of `cgroup` (``/a/b``): what its own cpuset says, or that of the nearest cgroup above it
    where the controller is on. None when none says anything; no node when what it says cannot be read.

    known: answers by cgroup, for many questions at about the same time; they are added to it.
    """
    known = {} if known is None else known
    asked = []
    # a list and no recursion: a user may nest cgroups deeper than Python's stack
    while cgroup not in known:
        asked.append(cgroup)
        try:
            text = read_text(root.cgroup / cgroup.strip("/") / "cpuset.mems.effective")
            known[cgroup] = frozenset(parse_list(text))
        except GoneError:
            if cgroup in ("", "/"):
                known[cgroup] = None
            else:
                cgroup = cgroup.rpartition("/")[0]
        except (TierdError, ValueError):
            known[cgroup] = frozenset()
    found = known[cgroup]
    known.update(dict.fromkeys(asked, found))
    return found
