"""A region whose share is changed as the kernel and its tools would change it."""

from __future__ import annotations

from dataclasses import replace

from tests.core.machines import BLOCK, DRAM, GIB, ISET, MACHINE, MIB
from tests.core.test_capacity import first_fit
from tierd.core.foresight import with_made, without
from tierd.core.inventory import DaxDevice, Inventory, MemoryBlock, MemoryNode, Namespace, Span
from tierd.core.policy import ProvisionMode, ProvisionRequest
from tierd.core.provision import Action, Command, Setting, Step, memory_of
from tierd.core.share_plan import SharePlan
from tierd.core.shares import plan_share

LARGE = replace(MACHINE, nodes=(replace(DRAM, total=16 * GIB, available=15 * GIB),))


def ask(size: int | None = None, **more: object) -> ProvisionRequest:
    return ProvisionRequest("pmem0", ISET, size, ProvisionMode.APPLY, **more)  # type: ignore[arg-type]


class Kernel:
    """What ndctl, daxctl and the kernel do, in the plainest terms, to one region."""

    def __init__(self, machine: Inventory = LARGE) -> None:
        self.machine = machine
        self.made = 0
        self.steps: list[Step] = []

    def run(self, request: ProvisionRequest, most: int = 200) -> SharePlan:
        """Plan and take one step, until there is none to take. As tierd-convert does it."""
        for _ in range(most):
            found = plan_share(self.machine, request)
            if found.next is None:
                return found
            self.take(found.next.request.name, found.next.steps[0])
        raise AssertionError(f"not done after {most} steps")

    def take(self, name: str, step: Step) -> None:
        self.steps.append(step)
        region = self.machine.regions[0]
        command = next((act for act in step.acts if isinstance(act, Command)), None)
        if step.action is Action.CREATE_NAMESPACE:
            assert command is not None
            self.create(name, int(command.argv[5]), command.argv[command.argv.index("-n") + 1])
            return
        if step.action is Action.DESTROY_NAMESPACE:
            assert command is not None
            gone = next(n for n in region.namespaces if n.name == command.argv[-1])
            assert gone.label.startswith("tierd:") and gone.dax is not None and not gone.dax.blocks
            self.machine, _ = without(self.machine, region, gone)
            return
        if step.action is Action.OFFLINE_BLOCKS:
            numbers = {
                int(a.path.split("memory")[-1].split("/")[0]) for a in step.acts if isinstance(a, Setting)
            }
            self.change(lambda b: replace(b, online=b.online and b.number not in numbers))
            return
        if step.action is Action.ONLINE_BLOCKS:
            self.change(lambda b: replace(b, online=True))
            return
        assert command is not None
        device = command.argv[-1]
        driver = "kmem" if step.action is Action.SYSTEM_RAM else "device_dax"
        for namespace in region.namespaces:
            if namespace.dax is not None and device in (namespace.dax.name, "daxX.Y"):
                self.bind(namespace, driver)

    def create(self, name: str, size: int, label: str) -> None:
        region = self.machine.regions[0]
        start = first_fit(region, size)
        assert start is not None and size % region.align == 0
        number, uuid = self.made, f"{self.made:08x}-0000-4000-8000-000000000000"
        self.made += 1
        dax = DaxDevice(f"dax0.{number}", Span(start + 2 * MIB, size - 2 * MIB), "device_dax", 1)
        made = Namespace(f"namespace0.{number}", uuid, label, "devdax", True, Span(start, size), dax)
        self.machine, _ = with_made(self.machine, region, made, 0)
        kept = {pair for pair in self.machine.made if pair[0] != name}
        self.machine = replace(self.machine, made=frozenset({*kept, (name, uuid)}))

    def bind(self, namespace: Namespace, driver: str) -> None:
        assert namespace.dax is not None
        before = namespace.dax
        assert not any(block.online for block in before.blocks), "unbound while online"
        memory = memory_of(namespace, BLOCK)
        numbers = range(memory.start // BLOCK, memory.end // BLOCK) if driver == "kmem" else range(0)
        blocks = tuple(MemoryBlock(n, True, "Movable", 1) for n in numbers)
        self.put(namespace, replace(before, driver=driver, blocks=blocks))

    def change(self, how: object) -> None:
        assert callable(how)
        for namespace in self.machine.regions[0].namespaces:
            if namespace.dax is not None:
                blocks = tuple(how(block) for block in namespace.dax.blocks)
                self.put(namespace, replace(namespace.dax, blocks=blocks))

    def put(self, namespace: Namespace, dax: DaxDevice) -> None:
        region = self.machine.regions[0]
        after = tuple(replace(n, dax=dax) if n is namespace else n for n in region.namespaces)
        region = replace(region, namespaces=after)
        online = sum(b.online for n in after if n.dax is not None for b in n.dax.blocks) * BLOCK
        slow = (MemoryNode(1, online, online, False, False, None),) if online else ()
        self.machine = replace(self.machine, regions=(region,), nodes=(self.machine.nodes[0], *slow))

    def memory(self) -> int:
        """Bytes online."""
        found = [n.dax.blocks for n in self.machine.regions[0].namespaces if n.dax is not None]
        return sum(block.online for blocks in found for block in blocks) * BLOCK

    def held(self) -> int:
        return sum(n.span.size for n in self.machine.regions[0].namespaces if n.span is not None)
