"""All that must be known of a namespace before it is given up, gathered at one moment. For root."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from tierd.core.consent import EDGE, NamespacePlan, plan_namespace
from tierd.core.evidence import Content, Evidence, Target, Witness, find_target
from tierd.core.inventory import Inventory, Span
from tierd.core.policy import NamespaceRequest
from tierd.errors import GoneError, TierdError
from tierd.kernel.edges import KEPT, Edges, read_edges, read_kept, room_in, unchanged
from tierd.kernel.files import read_int, read_text, write_all
from tierd.kernel.in_use import block_devices, devices_of, users_of
from tierd.kernel.mount_tables import named_in_tables
from tierd.kernel.paths import Root
from tierd.kernel.tools import Tools
from tierd.kernel.witnesses import ask_blkid, ask_udev


@dataclass(frozen=True, slots=True)
class Data:
    """Where the data of a namespace is to be had. device: its name; directory: its own in sysfs. span: where
    it lies, from the namespace's own start on. align: of a dax device, None for a block device."""

    device: str
    path: Path
    directory: Path
    span: Span
    align: int | None


def find_data(root: Root, target: Target) -> Data:
    """Raises GoneError when there is no device that shows it, and what the readers raise."""
    namespace = target.namespace
    start = namespace.span.start if namespace.span is not None else 0
    if namespace.dax is not None:
        name = namespace.dax.name
        directory = root.dax_devices / name
        span = Span(namespace.dax.span.start - start, namespace.dax.span.size)
        return Data(name, root.dev / name, directory, span, read_int(directory / "align"))
    devices = block_devices(root, namespace.name)
    if not devices or namespace.span is None:
        raise GoneError(f"{namespace.name} has no device that shows what it holds")
    directory = root.block_devices / devices[0]
    size = read_int(directory / "size") * 512  # sectors, whatever the device's own are
    offset = 0
    for entry in sorted(root.nd_devices.glob("pfn[0-9]*")):
        with contextlib.suppress(GoneError):
            if read_text(entry / "namespace").strip() == namespace.name:
                offset = read_int(entry / "resource", 16) - start
    return Data(devices[0], root.dev / devices[0], directory, Span(offset, size), None)


def examine(
    root: Root,
    tools: Tools,
    inventory: Inventory,
    request: NamespaceRequest,
    allow: tuple[Path, str],
    directory: Path = KEPT,
) -> NamespacePlan:
    """The plan for `request` by what is there now. Raises nothing of TierdError."""
    target = find_target(inventory, request)
    evidence = None if target is None else gather(root, tools, target, allow, directory)
    return plan_namespace(inventory, request, evidence)


def gather(
    root: Root, tools: Tools, target: Target, allow: tuple[Path, str], directory: Path = KEPT
) -> Evidence:
    """Everything about the target. Raises nothing of TierdError: what cannot be told is in the evidence.

    allow: the file beside the policy and what is wrong with it. directory: where head and tail are kept.

    Who uses it is asked last, when the witnesses have had their time.
    """
    evidence = Evidence(
        device=target.namespace.name,
        witnesses=(),
        content=Content.UNREADABLE,
        allow_file=str(allow[0]),
        allowed=allow[1],
        room=room_in(directory),
    )
    try:
        data = find_data(root, target)
        evidence = _of_data(root, tools, target, data, directory, evidence)
    except TierdError as error:
        evidence = replace(evidence, content=Content.UNREADABLE, content_words=str(error))
    return _with_uses(root, target, evidence)


def _of_data(
    root: Root, tools: Tools, target: Target, data: Data, directory: Path, evidence: Evidence
) -> Evidence:
    if target.region.bad_blocks:
        # a dax device with media errors kills who reads them
        words = "its region has media errors"
        return replace(evidence, device=data.device, content_words=words)
    edges = read_edges(data.path, 0, data.span.size, EDGE, data.align)
    udev = ask_udev(tools, data.directory)
    blkid = ask_blkid(tools, data.path) if data.align is None else _ask_about(tools, edges)
    as_kept = None
    if target.taken is not None:
        as_kept = _as_kept(target, data, directory)
    return replace(
        evidence,
        device=data.device,
        witnesses=(blkid, udev),
        content=Content.ZEROS if edges.zeros else Content.DATA,
        info_block=edges.info_block,
        read_only=data.align is None and read_int(data.directory / "ro") != 0,
        as_kept=as_kept,
    )


def _as_kept(target: Target, data: Data, directory: Path) -> bool:
    """Whether the data that an earlier run began to give up is still what it kept of it."""
    assert target.taken is not None
    then = target.taken.data
    kept = read_kept(directory, target.taken.kept)
    if kept is None or then.start < data.span.start or then.end > data.span.end:
        return False
    now = read_edges(data.path, then.start - data.span.start, then.size, EDGE, data.align)
    return unchanged(kept, now, then.start)


def _ask_about(tools: Tools, edges: Edges) -> Witness:
    """blkid cannot read a dax device, so it is shown a file of that size with the same head and tail."""
    descriptor = os.memfd_create("tierd-witness", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, edges.size)
        for start, content in ((edges.size - len(edges.tail), edges.tail), (0, edges.head)):
            os.lseek(descriptor, start, os.SEEK_SET)
            write_all(descriptor, content)
        asked = replace(tools, inherit=(*tools.inherit, descriptor))
        return ask_blkid(asked, f"/dev/fd/{descriptor}")
    except OSError as error:
        return Witness("blkid", trouble=f"it could not be shown head and tail: {error.strerror}")
    finally:
        os.close(descriptor)


def _with_uses(root: Root, target: Target, evidence: Evidence) -> Evidence:
    namespace = target.namespace
    users = users_of(root, (namespace,))[namespace.name]
    if users.blind:
        return replace(evidence, blind=users.blind)
    try:
        named = named_in_tables(root, devices_of(root, namespace), (namespace.uuid, namespace.label_uuid))
    except TierdError as error:
        return replace(evidence, blind=str(error))
    return replace(evidence, uses=tuple(dict.fromkeys((*users.uses, *named))))
