"""A virtual server with every kind of memory device that QEMU has, in one boot."""

from __future__ import annotations

from tests.vm.machine import Machine

CXL_SERIALS = (0xC0FFEE01, 0xC0FFEE02)
SOFT_RESERVED_NODE, NVDIMM_NODE, CXL_NODE = 1, 2, 3
"""As the kernel numbers them: those that the firmware lists as memory first, and CXL's window last."""

_NVDIMM, _SOFT = 1, 2
"""The same nodes as QEMU numbers them."""

_DRAM, _SOFT_RESERVED = 2304, 512
"""MiB. Together 2816, from where on QEMU puts what is above 2048 behind 4 GiB, so that all of the
soft-reserved memory is in one piece there (hw/i386/pc_q35.c)."""
_SOFT_RESERVED_START = 4096 + _DRAM - 2048


def every_kind(kernel: str) -> Machine:
    """Two NVDIMMs with labels and one without, virtio-pmem, memmap=, soft-reserved memory, two CXL devices
    of volatile memory below one host bridge, and a cache of 1 GiB before the memory of node 0.

    Without the hypervisor flag: with it, the kernel refuses CXL (`Failed to synchronize CPU cache state`).
    """
    qemu = ["-m", f"{_DRAM + _SOFT_RESERVED}M"]
    qemu += ["-object", f"memory-backend-ram,id=soft,size={_SOFT_RESERVED}M"]
    qemu += ["-numa", f"node,nodeid={_SOFT},memdev=soft,initiator=0"]
    speed = f"hmat-lb,initiator=0,target={_SOFT},hierarchy=memory"
    qemu += ["-numa", f"{speed},data-type=access-latency,latency=250"]
    qemu += ["-numa", f"{speed},data-type=access-bandwidth,bandwidth=40G"]
    cache = "hmat-cache,node-id=0,size=1G,level=1,associativity=direct,policy=write-back,line=64"
    qemu += ["-numa", cache]
    qemu += ["-object", "memory-backend-ram,id=bare,size=512M"]
    qemu += ["-device", f"nvdimm,id=bare0,memdev=bare,node={_NVDIMM}"]
    qemu += ["-object", "memory-backend-ram,id=virtual,size=512M"]
    qemu += ["-device", "virtio-pmem-pci,memdev=virtual,id=virtual0,bus=pcie.0"]
    qemu += ["-M", "cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G"]
    qemu += ["-device", "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1"]
    for number, serial in enumerate(CXL_SERIALS):
        qemu += ["-device", f"cxl-rp,port={number},bus=cxl.1,id=port{number},chassis=0,slot={number + 2}"]
        qemu += ["-object", f"memory-backend-ram,id=expander{number},size=512M"]
        expander = f"cxl-type3,bus=port{number},volatile-memdev=expander{number},id=type3-{number}"
        qemu += ["-device", f"{expander},sn={serial:#x}"]
    return Machine(
        kernel=kernel,
        dram=_DRAM,
        pmem=(514, 514),
        cpu="max,-hypervisor",
        accessed_bits=False,
        # 0xefffffff is the type of soft-reserved memory (arch/x86/include/asm/e820/types.h)
        cmdline=(
            "memmap=256M!768M",
            f"memmap={_SOFT_RESERVED}M%{_SOFT_RESERVED_START}M-1+0xefffffff",
        ),
        qemu=tuple(qemu),
    )
