"""Heat that survives a restart: systemd keeps it between two runs, in its descriptor store.

It lies there from the clean end of one run to the start of the next, and at no other time: what a run has
taken is out of the store before that run looks at anything, so that a crash leaves nothing that is out of
date. `systemctl stop` empties the store, `systemctl restart` does not.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, MutableMapping
from typing import Final

from tierd.core.access import Heat
from tierd.core.heat_blob import Origin, pack, unpack
from tierd.core.text import plural
from tierd.errors import MalformedError, TierdError, in_words
from tierd.kernel.files import read_text
from tierd.kernel.memory_file import read_memory_file, write_memory_file
from tierd.kernel.own_cost import read_own_room
from tierd.kernel.paths import Root
from tierd.service.descriptor_store import store_descriptors
from tierd.service.placed import PlacedProcesses

log = logging.getLogger(__name__)

STORED_AS: Final = "heat"
"""Its name in the store, beside the helper's doors."""
LARGEST: Final = 64 << 20
"""Bytes that are kept at most. A million pages take 22 MB, and some more when they lie far apart."""


class Keeper:
    """What the run before has left, until the engine takes it over, and what this one leaves. Belongs to the
    engine's thread, but for `keep`."""

    def __init__(
        self,
        root: Root,
        blob: bytes = b"",
        refused: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """refused: why there is no blob although something was left, in words. To be made before the source
        of accesses starts, for what that sees is later than what is taken over."""
        self._root = root
        self._clock = clock
        self._blob = blob
        self._refused = refused
        self._begun = clock()
        self._left: tuple[Heat, str, PlacedProcesses] | None = None

    def restore(self, heat: Heat, source: str, placed: PlacedProcesses) -> None:
        """Have `heat`, which knows nothing yet, know what was left, as far as it is of processes that are
        placed now, and say so in the journal. Does nothing the second time. Raises nothing."""
        blob, refused = self._blob, self._refused
        self._blob, self._refused = b"", ""
        if blob and not refused:
            try:
                log.info(self._take_over(blob, heat, source, placed))
            except (TierdError, OSError, ValueError) as error:
                refused = in_words(error)
        if refused:
            log.info(f"the heat that the run before has left is not taken over: {refused}")

    def _take_over(self, blob: bytes, heat: Heat, source: str, placed: PlacedProcesses) -> str:
        left = unpack(blob, self._origin(heat, source), heat.dump(), self._begun)
        slot_of = {view.id: placed.slot_of(view.id) for view in placed.views}
        passage = left.passage(slot_of, self._begun, heat.evidence["half-life"])
        if not len(passage.before):
            raise MalformedError("none of its processes is placed now")
        pages = heat.restore(left.arrays, passage)
        processes = plural(len(passage.before), "process")
        return (
            f"heat of {plural(pages, 'page')} in {processes}, {self._begun - left.when:.0f} seconds old, "
            "is taken over from the run before"
        )

    def hand_over(self, heat: Heat, source: str, placed: PlacedProcesses) -> None:
        """What this run knows at its end. To be called last."""
        self._left = heat, source, placed

    def keep(self) -> str:
        """Have systemd keep what was handed over. Called by the daemon when the engine's thread has ended
        well. Returns why it is not kept, in words, empty when it is or there is nothing. Raises nothing."""
        if self._left is None or "NOTIFY_SOCKET" not in os.environ:
            return ""
        heat, source, placed = self._left
        try:
            dumped = heat.dump()
            if not any(len(array) for name, array in dumped.items() if name.endswith(".keys")):
                return ""
            processes = {placed.slot_of(view.id): view.id for view in placed.views}
            pieces = pack(self._origin(heat, source), self._clock(), processes, dumped)
            self._check_size(sum(piece.nbytes for piece in pieces))
            descriptor = write_memory_file("tierd-heat", pieces)
            try:
                if not store_descriptors({STORED_AS: descriptor}):
                    return "systemd does not answer"
            finally:
                os.close(descriptor)
        except (TierdError, OSError, MemoryError) as error:
            return in_words(error) or "there is no memory left"
        return ""

    def _check_size(self, size: int) -> None:
        if size > LARGEST:
            raise MalformedError(f"it takes {size >> 20} MiB, and {LARGEST >> 20} MiB is the most")
        room = read_own_room(self._root)
        if room is not None and size > room:
            raise MalformedError(
                f"it takes {size >> 20} MiB, and tierd.service may have {room >> 20} MiB more"
            )

    def _origin(self, heat: Heat, source: str) -> Origin:
        return Origin(read_text(self._root.boot_id).strip(), source, heat.evidence)


def take_left(
    root: Root, stored: MutableMapping[str, int], clock: Callable[[], float] = time.monotonic
) -> Keeper:
    """What the run before has left: taken from among the descriptors that systemd handed over, and out of
    its store. Called at start. Raises nothing."""
    descriptor = stored.pop(STORED_AS, None)
    if descriptor is None:
        return Keeper(root, clock=clock)
    blob, refused = b"", ""
    try:
        blob = read_memory_file(descriptor, LARGEST)
        store_descriptors({}, [STORED_AS])
    except (TierdError, OSError) as error:
        refused = in_words(error)
    finally:
        os.close(descriptor)
    return Keeper(root, blob, refused, clock=clock)
