"""Memory that comes online: in which zone, and what it costs in DRAM."""

from __future__ import annotations

from tests.verify.provisioning_rows.server import Witnessed, ready
from tests.verify.table import Figure, Row, Stage
from tests.vm.test_provision import MIB, ONLINE

POLICIES = ("offline", "online", "online_movable", "online_kernel")
BLOCKS = 4
COST_WITHIN = 0.1

LYING_DAXCTL = (
    f'\n[ "$3" != system-ram ] || echo online_kernel > {ONLINE}\n/usr/bin/daxctl.real "$@"; code=$?\n'
    f'[ "$3" != system-ram ] || echo online_movable > {ONLINE}\nexit $code\n'
)
"""A daxctl under which the kernel's policy is not what it was made to be."""

_MEMMAP = (
    'awk \'/^Node/ {mine = $2 == "0,"} mine && $1 == "nr_memmap" {s += $2} END {print s + 0}\' '
    "/proc/zoneinfo; awk '/^nr_memmap_pages/ {print $2}' /proc/vmstat"
)


def _size(blocks: int) -> str:
    return f"{blocks * 128}MiB"


def zones(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        server = ready(stage, kernel)
        faults: list[str] = []
        online = 0
        for policy in POLICIES:
            server.guest.run(f"echo {policy} > {ONLINE}")
            code = server.converted(_size(BLOCKS))
            state = server.state()
            online += state.blocks.count("online Movable")
            faults += [f"{policy}: {words}" for words in state.faults(BLOCKS, policy)]
            faults += [f"{policy}: exit status {code}"] if code else []
            code = server.converted("none")
            faults += [f"{policy}, given back: {words}" for words in server.state().faults(0, policy)]
            faults += [f"{policy}, given back: exit status {code}"] if code else []
        rolled = _rolled_back(server, faults)
        text = (
            f"{online} of {BLOCKS * len(POLICIES)} blocks came online in ZONE_MOVABLE, {rolled} rolled back"
        )
        if faults:
            text += ": " + "; ".join(faults)
        holds = not faults and online == BLOCKS * len(POLICIES) and rolled == BLOCKS
        stage.close()  # what the kernel put outside ZONE_MOVABLE may have stayed
        return Figure(holds, text, {"kernel": kernel, "faults": faults})

    return Row(
        f"zones-{kernel}",
        f"memory blocks for auto_online_blocks in {{{', '.join(POLICIES)}}}, and where the kernel's policy"
        f" is not what it was made to be, Linux {kernel}",
        "every block Movable or rolled back, the policy as before",
        measure,
    )


def _rolled_back(server: Witnessed, faults: list[str]) -> int:
    """Blocks that came outside ZONE_MOVABLE and were offline again, or said to be stuck, afterwards."""
    server.guest.run(f"echo online > {ONLINE}")
    server.replace_tool("daxctl", LYING_DAXCTL)
    server.want(_size(BLOCKS))
    said = server.guest.run("/usr/bin/python3 -I -m tierd.service.convert test", check=False, timeout=300)
    server.restore_tool("daxctl")
    if said.returncode != 1 or f"{BLOCKS} of {BLOCKS} blocks came online outside" not in said.stderr:
        faults.append(f"the wrong zone: exit status {said.returncode}: {said.stderr[-300:]}")
        return 0
    stuck = [block for block in server.blocks() if block.startswith("online")]
    # what the kernel itself put there before nobody can move; then it is said, block by block
    if stuck and f"{len(stuck)} blocks of dax0.0 are in use and stay online" not in said.stderr:
        faults.append(f"{len(stuck)} blocks stay in the wrong zone, and nothing is said")
        return 0
    faults += [
        f"the wrong zone: {words}" for words in server.state().faults(len(stuck)) if "policy" in words
    ]
    return BLOCKS


def cost(kernel: str) -> Row:
    def measure(stage: Stage) -> Figure:
        server = ready(stage, kernel)
        server.want("all")
        predicted = int(server.plan()["numbers"]["page_structures"])
        counted, before = server.guest.output(_MEMMAP).split(), server.free_dram()
        code = server.converted("all")
        spent = before - server.free_dram()
        blocks = server.blocks().count("online Movable")
        counted_after = server.guest.output(_MEMMAP).split()
        maps = [(int(b) - int(a)) << 12 for a, b in zip(counted, counted_after, strict=True)]
        server.converted("none")
        returned = server.free_dram() - before + spent
        share = spent / predicted - 1 if predicted else float("inf")
        text = (
            f"{blocks} blocks in all: {predicted / MIB:.1f} MiB predicted, {spent / MIB:.1f} MiB of DRAM"
            f" gone ({share:+.1%}), {returned / MIB:.1f} MiB came back when it was given back"
        )
        values = {
            "kernel": kernel,
            "predicted": predicted,
            "spent": spent,
            "returned": returned,
            "memmap_counters": maps,
        }
        return Figure(code == 0 and blocks > 20 and abs(share) <= COST_WITHIN, text, values)

    return Row(
        f"cost-{kernel}",
        "DRAM that page structures take, as `tierctl provision plan` predicts it, against what is free of"
        f" the DRAM node before and after (files and the CPUs' lists counted as free), Linux {kernel}",
        f"within {COST_WITHIN:.0%}",
        measure,
    )
