"""What a step that failed, and a run that was stopped, leave behind is put right; what others did is not."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.fixtures.region import BLOCK, ISET
from tests.provisioning.test_conversion import CREATE, REQUEST
from tests.provisioning.test_conversion import Bench as Recorded
from tests.provisioning.test_shares import Bench, ask
from tierd.core.drain import plan_drain
from tierd.core.provision import Verdict
from tierd.core.shares import plan_share
from tierd.errors import TierdError
from tierd.kernel import tools
from tierd.kernel.drained import forget_drained, mark_drained
from tierd.kernel.intents import Intents
from tierd.kernel.paths import Root
from tierd.service import conversion, drain, one_shot
from tierd.service.conversion import ConversionError


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "machine")


def failing(number: int) -> Callable[[Root, str, str], None]:
    """write_setting, of a kernel that does not bring one block online."""
    write = conversion.write_setting

    def written(root: Root, path: str, value: str) -> None:
        if f"memory{number}/" in path and value == "online_movable":
            raise TierdError(f"{path}: cannot write {value}: Cannot allocate memory")
        write(root, path, value)

    return written


def test_what_somebody_took_offline_is_left_so(bench: Bench) -> None:
    assert bench.run(8) is Verdict.DONE
    taken = bench.machine.online()[3]
    bench.machine.write(f"sys/devices/system/memory/memory{taken}/state", "offline")
    before = bench.machine.acts()
    assert bench.run(8) is Verdict.DONE
    assert taken not in bench.machine.online() and bench.machine.acts() == before
    (note,) = plan_share(bench.converter.look(), ask(8)).parts[0].notes
    assert "1 block of dax0.0 taken offline by somebody else" in note


def test_a_block_that_does_not_come_online_costs_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is online is in use."""
    bench.run(8)
    online = bench.machine.online()
    for number in (online[3], online[5]):
        bench.machine.write(f"sys/devices/system/memory/memory{number}/state", "offline")
    bench.machine.draw_nodes()
    # as an earlier boot's: tierd has not seen all of it online yet
    text = bench.record.read_text()
    boot = Intents(bench.record, bench.machine.root).boot
    bench.record.write_text(text.replace(boot, "another"))
    monkeypatch.setattr(conversion, "write_setting", failing(online[3]))
    with pytest.raises(ConversionError, match="only 7 of 8 blocks are online.*Cannot allocate memory"):
        bench.run(8)
    assert bench.machine.online() == [number for number in online if number != online[3]]
    assert bench.machine.acts()[-1] == "system-ram dax0.0"


def test_what_is_drained_does_not_become_tierds_own(bench: Bench) -> None:
    """Somebody made the namespace anew, with the same name."""
    bench.run(4)
    entries = bench.machine.load()
    entries[0]["uuid"] = "dddddddd-0000-4000-8000-000000000000"
    bench.machine.save(entries)
    bench.machine.draw()
    made = Intents(bench.record, bench.machine.root).made()
    assert plan_share(bench.converter.look(), ask(0)).verdict is Verdict.REFUSED
    state = bench.record.parent
    mark_drained(state, frozenset({ISET}), None)
    (mark,) = drain.read_drained(state)
    drain.empty(bench.converter, mark)
    assert bench.machine.online() == []
    forget_drained(state, frozenset({ISET}))
    assert Intents(bench.record, bench.machine.root).made() == made
    for blocks in (0, 4):
        assert plan_share(bench.converter.look(), ask(blocks)).verdict is Verdict.REFUSED


def test_a_device_that_is_another_namespaces_by_now_is_left_alone(bench: Bench) -> None:
    bench.run(4)
    facts = {"device": "dax0.0", "label_uuid": bench.converter.look().regions[0].namespaces[0].label_uuid}
    bench.converter.intents.begin("pmem0", "system-ram", ("x",), facts, {})
    bench.machine.save([])
    bench.machine.draw()
    bench.machine.create(5 * BLOCK, "others")
    entries = bench.machine.load()
    entries[0]["driver"] = "kmem"
    bench.machine.save(entries)
    bench.machine.draw()
    online, acts = bench.machine.online(), bench.machine.acts()
    for number in online:
        bench.machine.write(f"sys/devices/system/memory/memory{number}/valid_zones", "Normal\n")
    bench.converter.recover()
    assert online and bench.machine.online() == online and bench.machine.acts() == acts
    assert "dax0.0 is not of the same namespace any more" in bench.reports[-1][1]
    assert bench.converter.intents.open_intents() == ()


KERNEL = """#!/bin/sh
PATH=/usr/bin:/bin
cd {blocks}
for n in 33 34 35 36 37 38 39 40; do
  mkdir -p memory$n/node1; echo online > memory$n/state
  case $(cat auto_online_blocks) in online_movable) zone=Movable;; *) zone=Normal;; esac
  echo $zone > memory$n/valid_zones
  sleep 0.2
done
"""
"""What no signal ends: the kernel adds one block after the other, as the policy says at that moment."""


def test_the_policy_stays_while_the_kernel_still_adds_blocks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = bench.machine
    monkeypatch.setattr(tools, "_GRACE", 0.2)
    kernel = machine.bin / "kernel"
    kernel.write_text(KERNEL.format(blocks=machine.root.memory_blocks))
    kernel.chmod(0o755)
    daxctl = machine.bin / "daxctl"
    works = daxctl.read_text()
    # it cannot be killed, as one that waits in the kernel
    daxctl.write_text(f"#!/bin/sh\n{kernel} </dev/null >/dev/null 2>&1 &\nexec /bin/sleep 5\n")
    monkeypatch.setattr(os, "killpg", lambda *_: None)

    running = threading.Event()

    def stop() -> None:
        while not (machine.root.memory_blocks / "memory34").exists():
            time.sleep(0.02)
        if running.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    converter = bench.converter
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(ConversionError, match="daxctl hangs in the kernel"), one_shot.stoppable():
        running.set()
        try:
            converter.run(ask(8))
        finally:
            running.clear()
    assert machine.policy() == "online_movable"
    (intent,) = converter.intents.open_intents()
    assert intent.action == "system-ram"
    last = machine.root.memory_blocks / "memory40/valid_zones"
    while not (last.exists() and last.read_text()):
        time.sleep(0.05)
    zones = {(machine.root.memory_blocks / f"memory{n}/valid_zones").read_text() for n in range(33, 41)}
    assert zones == {"Movable\n"}
    daxctl.write_text(works)
    bench.converter.recover()
    assert machine.policy() == "online"
    assert converter.intents.open_intents() == ()


def test_a_half_made_namespace_that_somebody_has_opened_is_left_alone(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    machine = recorded.machine
    raw = '[ "$1" = list ] && exec cat ../ndctl.json\n[ "$2" = -r ] && { "$SWITCH" raw; kill -9 $$; }\n'
    machine.stub("ndctl", raw + 'exec "$SWITCH" devdax')
    with pytest.raises(ConversionError, match="raw"):
        recorded.converter.run(REQUEST)
    machine.write("sys/bus/nd/devices/namespace0.0/block/pmem0/x", "")
    machine.write("sys/class/block/pmem0/dev", "1:3\n")
    machine.write("dev/pmem0", "")
    for name in ("comm", "maps", "mountinfo"):
        machine.write(f"proc/4242/{name}", "postgres\n" if name == "comm" else "")
    for name, target in (("fd/7", "/dev/null"), ("ns/mnt", "mnt:[1]")):
        link = machine.root.proc / "4242" / name
        link.parent.mkdir()
        link.symlink_to(target)
    with pytest.raises(ConversionError, match="namespace0.0 is in use, and left alone: .*postgres"):
        recorded.converter.run(REQUEST)
    assert machine.acts() == [CREATE]


def test_one_that_cannot_be_opened_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(tmp_path)
    machine = recorded.machine
    machine.stub("ndctl", '[ "$1" = list ] && exec cat ../ndctl.json\n"$SWITCH" raw; kill -9 $$')
    with pytest.raises(ConversionError):
        recorded.converter.run(REQUEST)
    (machine.root.nd_devices / "namespace0.0/block/pmem0").mkdir(parents=True)
    machine.root.dev.mkdir(exist_ok=True)
    (machine.root.dev / "pmem0").symlink_to("pmem0")
    with pytest.raises(ConversionError, match="who uses namespace0.0 cannot be told: .*pmem0"):
        recorded.converter.run(REQUEST)
    assert machine.acts() == [CREATE]


def test_the_record_tells_what_was_whole_in_this_boot(bench: Bench) -> None:
    bench.run(4)
    intents = bench.converter.intents
    ((_, uuid),) = intents.made()
    assert intents.whole() == {uuid}
    plan = plan_drain(bench.converter.look(), bench.converter.look().regions[0])
    bench.converter.intents.begin("pmem0", plan.parts[0].steps[0].action.value, (), {"uuid": uuid}, {})
    assert bench.converter.intents.whole() == frozenset()
    bench.record.write_text(
        "\n".join(
            json.dumps({**json.loads(line), "boot": "another"})
            for line in bench.record.read_text().splitlines()[:-1]
        )
        + "\n"
    )
    assert bench.converter.intents.whole() == frozenset()
