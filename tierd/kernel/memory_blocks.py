"""Memory blocks and the policy that says what becomes of new ones."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from tierd.core.capacity import round_down, round_up
from tierd.core.inventory import MemoryBlock, Span
from tierd.errors import DeniedError, GoneError, MalformedError, TierdError
from tierd.kernel.files import read_int, read_text
from tierd.kernel.paths import Root

OFFLINE_ATTEMPTS = 3
OFFLINE_PAUSE = 1.0
"""Times that taking a block offline is tried, and seconds in between."""


def read_block_size(root: Root) -> int:
    """Bytes of one memory block. Raises GoneError when the kernel has no memory hotplug, MalformedError."""
    size = read_int(root.memory_blocks / "block_size_bytes", base=16)
    if size <= 0 or size & (size - 1):
        raise MalformedError(f"{root.memory_blocks / 'block_size_bytes'}: {size} is not a power of two")
    return size


def read_online_policy(root: Root) -> str:
    """The content of auto_online_blocks. Raises GoneError, DeniedError."""
    return read_text(root.memory_blocks / "auto_online_blocks").strip()


def write_setting(root: Root, path: str, value: str) -> None:
    """Write `value` to the file at `path` below the sysfs root. Raises GoneError, DeniedError,
    TierdError."""
    target = root.sys / path
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            raise GoneError(f"{target}: does not exist") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DeniedError(f"{target}: {error.strerror}") from error
        raise TierdError(f"{target}: cannot write {value}: {error.strerror}") from error


def read_blocks(root: Root, span: Span, block_size: int) -> tuple[MemoryBlock, ...]:
    """The memory blocks that exist wholly within `span`, by number. Raises MalformedError."""
    first = round_up(span.start, block_size) // block_size
    last = round_down(span.end, block_size) // block_size
    blocks = []
    for number in range(first, last):
        with contextlib.suppress(GoneError):  # not there, or removed between two reads
            blocks.append(_read_block(root, number))
    return tuple(blocks)


def read_all_blocks(root: Root) -> tuple[MemoryBlock, ...]:
    """Every memory block, by number. Everybody may read them. Raises MalformedError."""
    numbers = (path.name.removeprefix("memory") for path in root.memory_blocks.glob("memory[0-9]*"))
    blocks = []
    for number in sorted(int(number) for number in numbers if number.isdecimal()):
        with contextlib.suppress(GoneError):
            blocks.append(_read_block(root, number))
    return tuple(blocks)


def _read_block(root: Root, number: int) -> MemoryBlock:
    directory = root.memory_blocks / f"memory{number}"
    # `going-offline` is still online memory
    online = read_text(directory / "state").strip() != "offline"
    # an online block names the one zone that it is in, an offline one those that it could go to
    zones = read_text(directory / "valid_zones").split() if online else []
    nodes = [entry.name for entry in directory.glob("node[0-9]*")]
    return MemoryBlock(
        number=number,
        online=online,
        zone=zones[0] if len(zones) == 1 and zones[0] != "none" else None,
        node=int(nodes[0].removeprefix("node")) if len(nodes) == 1 else None,
    )


def take_offline(
    root: Root,
    blocks: tuple[MemoryBlock, ...],
    deadline: float,
    taken: Callable[[int], None] = lambda _: None,
) -> tuple[int, ...]:
    """Take online blocks offline, last first, within `deadline` seconds; those that stayed online.

    Each is tried several times: what is busy may be so for a moment. The kernel tries for ever to empty a
    block; a signal ends that, so this is for the main thread only. taken: told each number that is offline.
    """
    stayed = sorted((block.number for block in blocks if block.online), reverse=True)
    with contextlib.suppress(_DeadlineError), _alarm(deadline):
        for attempt in range(OFFLINE_ATTEMPTS):
            if attempt and stayed:
                time.sleep(OFFLINE_PAUSE)
            for number in tuple(stayed):
                with contextlib.suppress(TierdError):
                    write_setting(root, block_state(number), "offline")
                    stayed.remove(number)
                    taken(number)
    return tuple(stayed)


def block_state(number: int) -> str:
    """The path of a memory block's state, below the sysfs root."""
    return f"devices/system/memory/memory{number}/state"


def missing_threads(root: Root, node: int) -> tuple[str, ...]:
    """Which of the kernel's threads for reclaim and compaction a node lacks, while other nodes have theirs.

    The kernel starts them when memory of the node comes online, and cannot when the task that does it has
    been killed: "Failed to start kswapd on node 1, ret=-EINTR" (seen on 7.3). The next block that comes
    online starts them.
    """
    found = set()
    for path in root.proc.glob("[0-9]*/comm"):
        with contextlib.suppress(TierdError):
            name = read_text(path).strip()
            if name.startswith(("kswapd", "kcompactd")):
                found.add(name)
    kinds = {name.rstrip("0123456789") for name in found}
    return tuple(sorted(f"{kind}{node}" for kind in kinds if f"{kind}{node}" not in found))


class _DeadlineError(BaseException):
    """The time is over. No OSError, as TimeoutError is: what handles a failed write must not take it for
    one and go on with the next block, which nothing would end."""


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise _DeadlineError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
