"""Provisioning against real devices: what is predicted comes, nothing else changes, kills are got over."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from tests.vm.guest import Guest, Region
from tierd.service.convert import DONE, REFUSED

MIB = 1 << 20
RECORD = "/var/lib/tierd/conversions.jsonl"
POLICY_FILE = "/etc/tierd/tierd.yaml"
ONLINE = "/sys/devices/system/memory/auto_online_blocks"
DROP_IN = "/run/systemd/system/tierd-convert@.service.d"
RUN = "/usr/bin/python3 -I -m tierd.service.convert"

# Everything back to free capacity, tools as they are installed, no record: a machine that tierd never saw.
CLEAN = f"""
exec >/dev/null 2>&1
for name in test look settings; do
  systemctl stop tierd-convert@$name; systemctl reset-failed tierd-convert@$name
done
for tool in ndctl daxctl; do [ ! -e /usr/bin/$tool.real ] || mv /usr/bin/$tool.real /usr/bin/$tool; done
for device in $(ls /sys/bus/dax/devices); do daxctl reconfigure-device -m devdax -f $device; done
for name in $(ndctl list -Ni | grep -o 'namespace[0-9.]*'); do ndctl destroy-namespace -f $name; done
rm -f {RECORD}; echo online > {ONLINE}; udevadm settle
"""

FREE_DRAM = r"""
sync; echo 3 > /proc/sys/vm/drop_caches; sleep 2
awk '/MemFree|FilePages/ {sum += $4} END {print sum * 1024}' /sys/devices/system/node/node0/meminfo
awk '/^Node/ {mine = $2 == "0,"} mine && /^ +count:/ {sum += $2} END {print sum * 4096}' /proc/zoneinfo
"""

BLOCKS = """
for block in /sys/devices/system/node/node1/memory[0-9]*; do
  [ ! -e "$block" ] || echo "$(cat $block/state) $(cat $block/valid_zones)"
done
"""


class Server:
    """The guest with its region free, and what a test asks of it."""

    def __init__(self, guest: Guest, region: Region) -> None:
        self.guest = guest
        self.region = region

    def ask(self, request: str, iset_id: int | None = None) -> None:
        """Write a policy with one request, ``NAME SIZE MODE``."""
        iset = self.region.iset_id if iset_id is None else iset_id
        name, size, mode = request.split()
        self.guest.write(
            POLICY_FILE,
            f"version: 1\nprovision:\n  - name: {name}\n    region: {{iset_id: '{iset:#x}'}}\n"
            f"    size: {size}\n    mode: {mode}\n",
        )

    def convert(self, name: str = "test") -> int:
        """Run the unit to its end; its exit status."""
        self.guest.run(f"systemctl restart tierd-convert@{name}", timeout=400, check=False)
        return int(self.guest.output(f"systemctl show -P ExecMainStatus tierd-convert@{name}"))

    def records(self) -> list[dict[str, Any]]:
        text = self.guest.output(f"cat {RECORD} 2>/dev/null || true")
        return [json.loads(line) for line in text.splitlines()]

    def plan(self) -> dict[str, Any]:
        done = self.guest.run("tierctl provision plan --json", check=False)
        requests = json.loads(done.stdout)["requests"]
        (found,) = requests if len(requests) == 1 else [r for r in requests if r["name"] == "test"]
        return dict(found)

    def devices(self, prefix: str = "") -> dict[str, Any]:
        """The picture of `tierctl list devices`, behind `prefix`."""
        return dict(json.loads(self.guest.output(f"{prefix} tierctl list devices --json")))

    def policy(self) -> str:
        return self.guest.output(f"cat {ONLINE}")

    def blocks(self) -> list[str]:
        """State and zone of every memory block of node 1."""
        return self.guest.output(BLOCKS).splitlines()

    def free_dram(self) -> int:
        """Bytes of DRAM that are free, or hold files, or wait in the CPUs' lists."""
        return sum(int(float(line)) for line in self.guest.output(FREE_DRAM).split())

    def shape(self) -> str:
        """Everything that a conversion could change."""
        return self.guest.output(
            f"ndctl list -RNDvi; daxctl list; cat {ONLINE}; ls {ONLINE.rpartition('/')[0]}"
        )

    def replace_tool(self, tool: str, script: str) -> None:
        """Put a shell script in the place of a tool, which is then /usr/bin/TOOL.real."""
        self.guest.run(
            f"mv /usr/bin/{tool} /usr/bin/{tool}.real; printf %s {shlex.quote('#!/bin/sh' + script)}"
            f" > /usr/bin/{tool}; chmod 755 /usr/bin/{tool}"
        )

    def restore_tool(self, tool: str) -> None:
        self.guest.run(f"mv /usr/bin/{tool}.real /usr/bin/{tool}")

    def said(self, name: str = "test", *matches: str) -> str:
        return self.guest.output(["journalctl", "-o", "cat", "-u", f"tierd-convert@{name}", *matches])

    def is_memory(self, blocks: int = 8) -> None:
        assert self.blocks() == ["online Movable"] * blocks
        assert self.policy() == "online"
        assert self.plan()["verdict"] == "done"
        self.guest.run("pgrep -x kswapd1 && pgrep -x kcompactd1")


@pytest.fixture(scope="module")
def region(changing_guest: Guest) -> Region:
    return changing_guest.region()


@pytest.fixture
def server(changing_guest: Guest, region: Region) -> Server:
    changing_guest.run(CLEAN, timeout=180, check=False)
    return Server(changing_guest, region)


def test_free_capacity_becomes_memory_as_predicted_and_then_nothing_is_run(server: Server) -> None:
    server.ask("test 1GiB apply")
    predicted = server.plan()
    assert predicted["verdict"] == "ready"
    before = server.free_dram()
    assert server.convert() == 0
    server.is_memory()
    total = server.guest.output("awk '/MemTotal/ {print $4}' /sys/devices/system/node/node1/meminfo")
    assert int(total) << 10 == predicted["numbers"]["memory"] == 1 << 30
    assert predicted["numbers"]["blocks"] == 8
    spent = before - server.free_dram()
    print(f"DRAM: {spent / MIB:.1f} MiB, predicted {predicted['numbers']['page_structures'] / MIB:.1f} MiB")

    records = server.records()
    runs = [act for r in records if r["record"] == "intent" for act in r["acts"]]
    assert [act.split()[0].rpartition("/")[2] for act in runs] == ["ndctl", "echo", "daxctl", "echo"]
    assert [r["outcome"] for r in records if r["record"] == "result"] == ["done", "done"]
    assert server.guest.output(f"stat -c '%a %U' {RECORD}") == "600 root"
    assert server.convert() == 0
    assert server.records() == records
    entry = json.loads(
        server.guest.output(
            f"journalctl -o json -u tierd-convert@test MESSAGE_ID={DONE.message_id} | tail -1"
        )
    )
    assert (
        entry["TIERD_REQUEST"] == "test" and entry["TIERD_UUID"] == server.plan()["slices"][0]["namespace"]
    )

    picture = server.devices()
    assert picture["faults"] == picture["unseen"] == []
    (dimm,) = picture["dimms"]
    assert dimm["regions"] == [server.region.name] and dimm["size"] == server.region.size
    (namespace,) = picture["namespaces"]
    assert namespace["users"] == ["the kernel, as memory of node 1"]
    could = namespace["could"]
    assert (could["verdict"], could["request"], could["reasons"]) == ("done", "test", [])
    for number in ("memory", "blocks", "lost", "page_structures"):
        assert could[number] == predicted["numbers"][number]
    (run,) = [run for run in picture["memory_blocks"]["runs"] if run["node"] == 1]
    assert (run["count"], run["zone"], run["device"]) == (8, "Movable", namespace["device"])
    assert [(node["number"], node["kind"]) for node in picture["nodes"]] == [(0, "dram"), (1, "slow")]
    nobody = server.devices("setpriv --reuid nobody --regid nogroup --clear-groups")
    assert nobody["faults"] == [] and len(nobody["unseen"]) == 1
    assert "can be read by root only" in nobody["unseen"][0]
    (seen,) = nobody["namespaces"]
    assert (seen["size"], seen["uuid"], seen["mode"]) == (
        namespace["size"],
        namespace["uuid"],
        namespace["mode"],
    )
    assert (seen["could"]["verdict"], nobody["regions"][0]["could"]["verdict"]) == ("unknown", "unknown")
    assert sum(r["count"] for r in nobody["memory_blocks"]["runs"] if r["node"] == 1) == 8


@pytest.mark.slow
@pytest.mark.one_kernel
def test_all_that_is_free_and_what_it_costs(server: Server) -> None:
    server.ask("test all apply")
    predicted = server.plan()["numbers"]
    before = server.free_dram()
    assert server.convert() == 0
    server.is_memory(31)
    spent = before - server.free_dram()
    print(f"DRAM: {spent / MIB:.1f} MiB, predicted {predicted['page_structures'] / MIB:.1f} MiB")
    assert 0.9 < spent / predicted["page_structures"] < 1.1


@pytest.mark.slow
@pytest.mark.one_kernel
def test_a_share_beside_a_namespace_of_others(server: Server) -> None:
    server.guest.run(
        f"ndctl create-namespace -r {server.region.name} -m fsdax -s 528M -n data && cd /tmp &&"
        " head -c 1M /dev/urandom > data && device=$(ndctl list -N | grep -o 'pmem[0-9.]*') &&"
        " dd if=data of=/dev/$device bs=1M seek=16 oflag=direct conv=notrunc && echo $device > device"
    )
    server.ask("test 512MiB apply")
    predicted = server.plan()["numbers"]
    assert server.convert() == 0
    server.is_memory(4)
    assert predicted["memory"] == 512 * MIB
    theirs, ours = sorted(server.devices("exec 9</dev/$(cat /tmp/device);")["namespaces"], key=_verdict)[
        ::-1
    ]
    assert _verdict(ours) == "done" and _verdict(theirs) == "refused"
    assert [reason["kind"] for reason in theirs["could"]["reasons"]] == ["not-ours"]
    assert any(user.startswith("open by ") for user in theirs["users"])
    server.guest.run(
        "cd /tmp; dd if=/dev/$(cat device) bs=1M skip=16 count=1 iflag=direct status=none | cmp - data"
    )


@pytest.mark.slow
@pytest.mark.one_kernel
def test_a_wrong_iset_id_is_refused_and_nothing_is_changed(server: Server) -> None:
    server.ask("test 1GiB apply", iset_id=server.region.iset_id ^ 1)
    # One that waits for a device waits its whole time: not here.
    server.guest.write(f"{DROP_IN}/wait.conf", f"[Service]\nExecStart=\nExecStart={RUN} --wait 1 %i\n")
    server.guest.run("systemctl daemon-reload")
    before = server.shape()
    try:
        assert server.convert() == 69
    finally:
        server.guest.run(f"rm -r {DROP_IN}; systemctl daemon-reload")
    assert server.shape() == before
    assert server.records() == []
    said = server.said("test", f"MESSAGE_ID={REFUSED.message_id}")
    assert f"there is {server.region.iset_id:#x} ({server.region.name})" in said


@pytest.mark.slow
@pytest.mark.one_kernel
def test_mode_plan_says_what_it_would_do_and_does_nothing(server: Server) -> None:
    server.ask("look 1GiB plan")
    before = server.shape()
    assert server.convert("look") == 0
    assert server.shape() == before
    assert server.records() == []
    said = server.said("look")
    assert "ndctl create-namespace -r" in said and "becomes 1GiB in 8 blocks" in said


# ndctl makes a namespace with ten writes to sysfs (UUID, label, size, mode ...), daxctl converts with three.
# Each leaves another state behind: a namespace with a UUID alone, with its size, with its device; at last a
# device without a driver. `./dev verify provisioning` has all of them on every kernel.
TOOL_DEATHS = [("ndctl", "create-namespace", 3), ("daxctl", "reconfigure-device", 3)]
MORE_TOOL_DEATHS = [("ndctl", "create-namespace", n) for n in (1, 2, 4, 5, 6, 7, 8, 9, 10)]
MORE_TOOL_DEATHS += [("daxctl", "reconfigure-device", n) for n in (1, 2)]
DEATHS = [(1, 0.3)]
MORE_DEATHS = [(3, 0.0), (0, 0.5), (1, 0.0), (2, 0.2), (3, 0.4), (3, 0.8)]


def also_slow(often: list[tuple[Any, ...]], seldom: list[tuple[Any, ...]]) -> list[Any]:
    return [*often, *(pytest.param(*values, marks=pytest.mark.slow) for values in seldom)]


@pytest.mark.one_kernel
@pytest.mark.parametrize(("tool", "command", "write"), also_slow(TOOL_DEATHS, MORE_TOOL_DEATHS))
def test_a_tool_that_is_killed_at_any_write(server: Server, tool: str, command: str, write: int) -> None:
    server.ask("test 1GiB apply")
    server.replace_tool(
        tool,
        f'\n[ "$1" != {command} ] || exec strace -f -o /dev/null -e trace=write'
        f' -e inject=write:signal=SIGKILL:when={write} /usr/bin/{tool}.real "$@"\n'
        f'exec /usr/bin/{tool}.real "$@"\n',
    )
    first = server.guest.run(f"{RUN} test", check=False, timeout=300)
    assert first.returncode == 1, first.stderr
    assert "Traceback" not in first.stderr
    assert server.policy() == "online"
    server.restore_tool(tool)
    second = server.guest.run(f"{RUN} test", check=False, timeout=300)
    assert second.returncode == 0, second.stderr
    server.is_memory()


@pytest.mark.one_kernel
def test_a_daxctl_killed_while_blocks_come_online(server: Server) -> None:
    """The kernel goes on, and cannot start the node's threads for a task that is being killed."""
    server.ask("test 1GiB apply")
    server.replace_tool(
        "daxctl",
        '\n[ "$3" = system-ram ] || exec /usr/bin/daxctl.real "$@"\n/usr/bin/daxctl.real "$@" &\n'
        "while [ ! -e /sys/bus/dax/drivers/kmem/dax0.0 ]; do :; done; kill -9 $!; wait $!\n",
    )
    assert server.convert() == 0
    server.restore_tool("daxctl")
    server.is_memory()


@pytest.mark.one_kernel
@pytest.mark.parametrize(("lines", "delay"), also_slow(DEATHS, MORE_DEATHS))
def test_all_of_it_killed_at_once(server: Server, lines: int, delay: float) -> None:
    """SIGKILL to the converter and its tools, `delay` seconds after the record has `lines` lines."""
    server.ask("test 1GiB apply")
    unit = "tierd-convert@test"
    server.guest.run(
        f"systemctl start --no-block {unit}; for i in $(seq 3000); do"
        f' [ "$(cat {RECORD} 2>/dev/null | wc -l)" -ge {lines} ] && break; sleep 0.01; done;'
        f" sleep {delay}; systemctl kill --kill-whom=all -s KILL {unit}; for i in $(seq 300); do"
        f" [ $(systemctl show -P ActiveState {unit}) = activating ] || break; sleep 0.1; done",
        timeout=300,
        check=False,
    )
    print([f"{r['record']} {r['action']}" for r in server.records()], server.policy())
    assert server.convert() == 0
    server.is_memory()


@pytest.mark.one_kernel
def test_after_a_reboot_the_memory_is_back_by_itself(server: Server) -> None:
    server.ask("test 1GiB apply")
    assert server.convert() == 0
    uuid = server.plan()["slices"][0]["namespace"]
    server.guest.run("systemctl enable tierd-convert@test")
    lines = len(server.records())
    server.guest.reboot()
    server.guest.wait_for("systemctl is-active tierd-convert@test", timeout=240)
    server.is_memory()
    assert server.plan()["slices"][0]["namespace"] == uuid
    again = [r["action"] for r in server.records()[lines:] if r["record"] == "intent"]
    assert again == ["system-ram"]
    # nobody waits for it but tierd
    waits = server.guest.output("systemctl show -P After multi-user.target sysinit.target basic.target")
    assert "tierd-convert" not in waits
    server.guest.run("systemctl disable tierd-convert@test")


def _verdict(part: dict[str, Any]) -> str:
    return str(part["could"]["verdict"])


# The last one: memory in the wrong zone may stay there until a reboot.
def test_blocks_that_come_into_the_wrong_zone_are_rolled_back(server: Server) -> None:
    """A daxctl under which the kernel's policy is not what it was made to be."""
    server.ask("test 1GiB apply")
    server.replace_tool(
        "daxctl",
        f'\n[ "$3" != system-ram ] || echo online_kernel > {ONLINE}\n/usr/bin/daxctl.real "$@"; code=$?\n'
        f'[ "$3" != system-ram ] || echo online_movable > {ONLINE}\nexit $code\n',
    )
    assert server.convert() == 1
    server.restore_tool("daxctl")
    assert server.policy() == "online"
    said = server.said()
    assert "8 of 8 blocks came online outside ZONE_MOVABLE" in said
    stuck = [block for block in server.blocks() if block.startswith("online")]
    if stuck:
        # The kernel had put something of its own there before: nobody can move that, and it is said.
        assert f"{len(stuck)} blocks of dax0.0 are in use and stay online until a reboot" in said
        assert server.convert() == 69
    else:
        assert "was rolled back" in said
        assert server.convert() == 0
        server.is_memory()
