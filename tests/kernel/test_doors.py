"""Opening the privileged files, on a tree of plain files."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierd.kernel import damon
from tierd.kernel import doors as doors_module
from tierd.kernel.doors import online_cpus, open_doors, open_monitors
from tierd.kernel.paths import Root
from tierd.kernel.perf_event import HardwareEvent
from tierd.kernel.scanning import SCAN_DOORS
from tierd.kernel.settings import Ledger


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path)
    paths = [root.generations, root.split_huge_pages, root.demotion_enabled]
    paths += [root.scan_settings / name for name in SCAN_DOORS]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0\n")
    cpus = root.sys / "devices/system/cpu/online"
    cpus.parent.mkdir(parents=True)
    cpus.write_text("0-1,3\n")
    return root


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, int]]:
    """Stands for perf_event_open: a pipe's end for each CPU."""
    events: dict[int, int] = {}
    yield events
    for descriptor in events.values():
        os.close(descriptor)


def event(events: dict[int, int], cpu: int) -> int:
    reading, writing = os.pipe()
    os.close(writing)
    events[cpu] = reading
    return reading


def close(doors: dict[str, int]) -> None:
    for name, descriptor in doors.items():
        if not name.startswith("perf."):
            os.close(descriptor)


def written_down(path: Path) -> bool:
    """Stands for a ledger that holds every setting."""
    return True


def test_every_door_by_name(root: Root, opened: dict[int, int]) -> None:
    doors, missing = open_doors(root, written_down=written_down, open_event=lambda cpu: event(opened, cpu))
    assert missing == ()
    assert set(doors) == {
        "lru_gen",
        "split_huge_pages",
        "demotion_enabled",
        *SCAN_DOORS,
        "perf.0",
        "perf.1",
        "perf.3",
    }
    os.pwrite(doors["scan_delay_ms"], b"10\n", 0)
    assert (root.scan_settings / "scan_delay_ms").read_text() == "10\n"
    assert not any(os.get_inheritable(d) for n, d in doors.items() if not n.startswith("perf."))
    close(doors)


def test_settings_that_cannot_be_put_back_are_not_handed_out(root: Root, opened: dict[int, int]) -> None:
    doors, missing = open_doors(root, open_event=lambda cpu: event(opened, cpu))
    assert missing == ()
    assert set(doors) == {"lru_gen", "split_huge_pages", "perf.0", "perf.1", "perf.3"}
    close(doors)


@pytest.mark.parametrize("lost", ["scan_size_mb", "demotion_enabled"])
def test_a_setting_whose_old_value_is_not_known_gets_no_door(
    root: Root, opened: dict[int, int], lost: str
) -> None:
    doors, missing = open_doors(
        root, written_down=lambda path: path.name != lost, open_event=lambda cpu: event(opened, cpu)
    )
    assert lost not in doors and len(missing) == 1
    assert f"{lost} is not written down" in missing[0].feature
    close(doors)


@pytest.mark.parametrize(
    ("gone", "feature", "doors_lost"),
    [
        ("sys/kernel/debug/lru_gen", "multi-generational LRU", {"lru_gen"}),
        ("sys/kernel/debug/split_huge_pages", "splitting of huge pages", {"split_huge_pages"}),
        (f"sys/kernel/debug/sched/numa_balancing/{SCAN_DOORS[0]}", "scan rate", set(SCAN_DOORS)),
        ("sys/kernel/mm/numa/demotion_enabled", "demotion by the kernel", {"demotion_enabled"}),
    ],
)
def test_a_missing_file_is_named_once_with_loss_and_remedy(
    root: Root, opened: dict[int, int], gone: str, feature: str, doors_lost: set[str]
) -> None:
    (root.path / gone).unlink()
    doors, missing = open_doors(root, written_down=written_down, open_event=lambda cpu: event(opened, cpu))
    assert len(missing) == 1
    assert missing[0].feature.startswith(feature) and "does not exist" in missing[0].feature
    assert missing[0].loss and missing[0].remedy.startswith("boot a kernel built with CONFIG_")
    assert not doors_lost & set(doors)
    close(doors)


def test_lockdown_is_said_instead_of_three_refusals(root: Root, opened: dict[int, int]) -> None:
    lockdown = root.sys / "kernel/security/lockdown"
    lockdown.parent.mkdir(parents=True)
    lockdown.write_text("none [integrity] confidentiality\n")
    doors, missing = open_doors(root, written_down=written_down, open_event=lambda cpu: event(opened, cpu))
    assert [m.feature for m in missing] == ["debugfs (closed by kernel lockdown, level integrity)"]
    assert set(doors) == {"demotion_enabled", "perf.0", "perf.1", "perf.3"}
    close(doors)
    lockdown.write_text("[none] integrity confidentiality\n")
    doors, missing = open_doors(root, written_down=written_down, open_event=lambda cpu: event(opened, cpu))
    assert missing == () and "lru_gen" in doors
    close(doors)


def test_debugfs_is_mounted_when_it_is_not(
    root: Root, opened: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    debugfs = root.sys / "kernel/debug"
    debugfs.rename(root.path / "aside")
    debugfs.mkdir()

    def mount(target: Path) -> None:
        assert target == debugfs
        for child in (root.path / "aside").iterdir():
            child.rename(target / child.name)

    monkeypatch.setattr(doors_module, "_mount_debugfs", mount)
    doors, missing = open_doors(root, written_down=written_down, open_event=lambda cpu: event(opened, cpu))
    assert missing == () and "lru_gen" in doors
    close(doors)


def test_a_debugfs_that_cannot_be_mounted_is_named_once(
    root: Root, opened: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    debugfs = root.sys / "kernel/debug"
    debugfs.rename(root.path / "aside")
    debugfs.mkdir()

    def mount(target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(doors_module, "_mount_debugfs", mount)
    doors, missing = open_doors(root, written_down=written_down, open_event=lambda cpu: event(opened, cpu))
    assert len(missing) == 1 and "cannot be mounted" in missing[0].feature
    close(doors)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EACCES, "let root open"), (errno.ENOSYS, "CONFIG_PERF_EVENTS"), (errno.EMFILE, "LimitNOFILE=")],
)
def test_refused_events_are_one_missing_feature(root: Root, number: int, remedy: str) -> None:
    def refuse(cpu: int) -> int:
        raise OSError(number, os.strerror(number))

    doors, missing = open_doors(root, written_down=written_down, open_event=refuse)
    assert len(missing) == 1
    assert missing[0].feature == f"page-fault events on every CPU ({os.strerror(number)})"
    assert remedy in missing[0].remedy
    close(doors)


def test_a_cpu_that_went_away_is_not_missing(root: Root, opened: dict[int, int]) -> None:
    def some(cpu: int) -> int:
        if cpu == 1:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return event(opened, cpu)

    doors, missing = open_doors(root, written_down=written_down, open_event=some)
    assert missing == () and "perf.1" not in doors and "perf.3" in doors
    close(doors)


def test_cpus_without_sysfs_are_those_of_the_process(tmp_path: Path) -> None:
    assert online_cpus(Root(tmp_path)) == tuple(sorted(os.sched_getaffinity(0)))


def hardware(root: Root) -> None:
    """A CPU with PEBS."""
    for name, text in {
        "type": "4",
        "events/mem-loads": "event=0xcd,umask=0x1,ldlat=3",
        "format/event": "config:0-7",
        "format/umask": "config:8-15",
        "format/ldlat": "config1:0-15",
    }.items():
        path = root.event_sources / "cpu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_sampling_of_the_cpu_has_doors_of_its_own(root: Root, opened: dict[int, int]) -> None:
    hardware(root)
    asked: list[tuple[str, int]] = []

    def open_hardware(found: HardwareEvent, cpu: int) -> int:
        asked.append((found.name, cpu))
        return event(opened, 100 + cpu)

    doors, missing = open_doors(
        root,
        written_down=written_down,
        open_event=lambda cpu: event(opened, cpu),
        open_hardware_event=open_hardware,
    )
    assert missing == () and asked == [("PEBS", 0), ("PEBS", 1), ("PEBS", 3)]
    assert list(doors)[-3:] == ["PEBS.0", "PEBS.1", "PEBS.3"], "last, for when descriptors are short"
    close({name: descriptor for name, descriptor in doors.items() if not name.startswith("PEBS")})


def test_sampling_that_is_refused_is_not_missed(root: Root, opened: dict[int, int]) -> None:
    hardware(root)

    def refuse(found: HardwareEvent, cpu: int) -> int:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    doors, missing = open_doors(
        root,
        written_down=written_down,
        open_event=lambda cpu: event(opened, cpu),
        open_hardware_event=refuse,
    )
    assert missing == () and not [name for name in doors if name.startswith("PEBS")]
    close(doors)


@pytest.mark.parametrize(
    ("number", "whole"), [(errno.EMFILE, False), (errno.ENOENT, False), (errno.ENODEV, True)]
)
def test_sampling_is_of_every_cpu_or_of_none(
    root: Root, opened: dict[int, int], number: int, whole: bool
) -> None:
    hardware(root)
    sampled: list[int] = []

    def some(found: HardwareEvent, cpu: int) -> int:
        if cpu == 1:
            raise OSError(number, os.strerror(number))
        sampled.append(os.open(os.devnull, os.O_RDONLY))
        return sampled[-1]

    doors, missing = open_doors(
        root,
        written_down=written_down,
        open_event=lambda cpu: event(opened, cpu),
        open_hardware_event=some,
    )
    names = [name for name in doors if name.startswith("PEBS")]
    if whole:
        assert missing == () and names == ["PEBS.0", "PEBS.3"]
    else:
        assert [m.feature for m in missing] == [f"PEBS on CPU 1 ({os.strerror(number)})"] and not names
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(sampled[0])
    close(doors)


def test_sampling_that_root_may_not_open_is_named(root: Root, opened: dict[int, int]) -> None:
    hardware(root)

    def refuse(found: HardwareEvent, cpu: int) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    doors, missing = open_doors(
        root,
        written_down=written_down,
        open_event=lambda cpu: event(opened, cpu),
        open_hardware_event=refuse,
    )
    assert len(missing) == 1 and "let root open" in missing[0].remedy
    close(doors)


@pytest.fixture
def with_damon(root: Root) -> Root:
    """DAMON that nobody uses, with the files of the monitors as they come to be."""
    files = {root.damon / "nr_kdamonds": "0", root.trace_events / "damon/damon_aggregated/id": "734"}
    for number in range(damon.MONITORS):
        files |= {root.damon / str(number) / path: "0" for path, _ in damon._settings()}
    files |= dict.fromkeys(damon.monitor_doors(root).values(), "off")
    for path, value in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "run/settings.json")


def no_event(number: int, cpu: int) -> int:
    raise AssertionError("opened for nothing")


HINT_FAULTS = {"perf.0": 10, "scan_size_mb": 11}


def test_monitors_where_the_kernel_has_no_numa_balancing(
    with_damon: Root, ledger: Ledger, opened: dict[int, int]
) -> None:
    doors = {"perf.0": 10}

    def open_event(number: int, cpu: int) -> int:
        assert number == 734
        return os.dup(event(opened, cpu))

    assert open_monitors(with_damon, doors, ledger, open_event=open_event) is None
    assert {f"DAMON.{cpu}" for cpu in (0, 1, 3)} <= doors.keys()
    assert len(doors) == 1 + 3 + 2 * damon.MONITORS
    assert ledger.holds(with_damon.damon / "nr_kdamonds")
    os.pwrite(doors["damon_target.2"], b"77\n", 0)
    assert (with_damon.damon / "2/contexts/0/targets/0/pid_target").read_text().startswith("77\n")
    del doors["perf.0"]
    close(doors)


@pytest.mark.parametrize("doors", [HINT_FAULTS, {"PEBS.0": 12}, {"IBS.0": 13, "perf.0": 10}])
def test_monitors_in_reserve_where_there_is_better(
    with_damon: Root, ledger: Ledger, opened: dict[int, int], doors: dict[str, int]
) -> None:
    with_damon.numa_balancing.parent.mkdir(parents=True)
    with_damon.numa_balancing.write_text("0\n")
    there = dict(doors)
    assert (
        open_monitors(with_damon, there, ledger, open_event=lambda number, cpu: os.dup(event(opened, cpu)))
        is None
    )
    assert there.keys() > doors.keys() and ledger.holds(with_damon.damon / "nr_kdamonds")
    close({name: descriptor for name, descriptor in there.items() if name not in doors})
    ledger.restore_all()
    stat = with_damon.modules / "damon_stat/parameters/enabled"
    stat.parent.mkdir(parents=True)
    stat.write_text("Y\n")
    there = dict(doors)
    assert open_monitors(with_damon, there, ledger, open_event=no_event) is None, "nothing is missed"
    assert there == doors and not ledger.records
    missing = open_monitors(with_damon, there, ledger, "DAMON", open_event=no_event)
    assert missing is not None and "in use by damon_stat" in missing.feature


def test_no_monitors_where_another_source_is_named(with_damon: Root, ledger: Ledger) -> None:
    assert open_monitors(with_damon, {}, ledger, "hint faults", open_event=no_event) is None
    assert (with_damon.damon / "nr_kdamonds").read_text() == "0\n" and not ledger.records


@pytest.mark.parametrize("doors", [{}, {"perf.0": 10}, {"scan_size_mb": 11}])
def test_damon_in_use_is_left_alone_and_named(
    with_damon: Root, ledger: Ledger, doors: dict[str, int]
) -> None:
    with_damon.numa_balancing.parent.mkdir(parents=True)
    with_damon.numa_balancing.write_text("0\n")
    stat = with_damon.modules / "damon_stat/parameters/enabled"
    stat.parent.mkdir(parents=True)
    stat.write_text("Y\n")
    missing = open_monitors(with_damon, dict(doors), ledger, open_event=no_event)
    assert missing is not None and "in use by damon_stat" in missing.feature
    assert missing.remedy == (
        "echo N > /sys/module/damon_stat/parameters/enabled, then systemctl restart tierd"
    )
    assert stat.read_text() == "Y\n" and not ledger.records
    stat.write_text("N\n")
    (with_damon.damon / "nr_kdamonds").write_text("2\n")
    missing = open_monitors(with_damon, dict(doors), ledger, open_event=no_event)
    assert missing is not None and "somebody's 2 kdamonds" in missing.feature
    assert (with_damon.damon / "nr_kdamonds").read_text() == "2\n" and not ledger.records


def test_monitors_without_their_tracepoint_are_taken_away_again(with_damon: Root, ledger: Ledger) -> None:
    def refuse(number: int, cpu: int) -> int:
        raise OSError(errno.EACCES, "refused")

    doors: dict[str, int] = {}
    before = len(os.listdir("/proc/self/fd"))
    missing = open_monitors(with_damon, doors, ledger, open_event=refuse)
    assert missing is not None and "refused" in missing.feature and not doors
    assert (with_damon.damon / "nr_kdamonds").read_text() == "0\n"
    assert len(os.listdir("/proc/self/fd")) == before
