"""What `./dev` reads of the machine that it runs on, without touching it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.dev import __main__ as dev
from tests.dev import package, test
from tests.vm import host, image
from tests.vm.machine import Machine

MIRROR = "http://mirror.example/debian"


def test_sources_in_deb822_form() -> None:
    text = f"""\
# a comment
Types: deb deb-src
URIs: {MIRROR}
# another
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://sources.example
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example
Suites: bookworm
Components: main
"""
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert host.parse_sources(text) == [
        host.Source(MIRROR, "bookworm", ("main", "contrib"), keyring),
        host.Source(MIRROR, "bookworm-updates", ("main", "contrib"), keyring),
    ]


def test_sources_in_one_line_form() -> None:
    text = f"""\
# deb http://commented.example bookworm main
deb {MIRROR} bookworm main non-free-firmware # trailing
deb [arch=amd64 signed-by=/etc/apt/keyrings/x.gpg] https://other.example/debian trixie main
deb-src {MIRROR} bookworm main
"""
    assert host.parse_list(text) == [
        host.Source(MIRROR, "bookworm", ("main", "non-free-firmware"), None),
        host.Source("https://other.example/debian", "trixie", ("main",), "/etc/apt/keyrings/x.gpg"),
    ]


def test_machine_sources_reads_both_forms_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(f"deb {MIRROR} bookworm main\n")
    (tmp_path / "sources.list.d" / "b.sources").write_text(
        f"Types: deb\nURIs: {MIRROR}\nSuites: trixie\nComponents: main\n"
    )
    (tmp_path / "sources.list.d" / "c.list.disabled").write_text(f"deb {MIRROR} sid main\n")
    assert [source.suite for source in host.machine_sources(tmp_path)] == ["bookworm", "trixie"]


def test_archive_writes_suites_of_another_release() -> None:
    main = host.Source(MIRROR, "bookworm", ("main",), "/key.gpg")
    text = host.Archive(main, None).stanzas("trixie", backports=True)
    assert [source.suite for source in host.parse_sources(text)] == ["trixie", "trixie-backports"]
    assert {source.uri for source in host.parse_sources(text)} == {MIRROR}
    security = host.Source("http://security.example", "bookworm-security", ("main",), None)
    suites = [source.suite for source in host.parse_sources(host.Archive(main, security).stanzas("trixie"))]
    assert suites == ["trixie", "trixie-security"]


def test_missing_and_too_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        host, "installed_versions", lambda _: {"gcc": "4:12", "qemu-system-x86": "1:7.2+dfsg"}
    )
    assert host.missing_packages(("gcc", "qemu-system-x86", "mmdebstrap")) == [
        "qemu-system-x86",
        "mmdebstrap",
    ]
    monkeypatch.setattr(
        host, "installed_versions", lambda _: {"qemu-system-x86": "1:10.0.2+ds-2+deb13u1~bpo12+1"}
    )
    assert host.missing_packages(("qemu-system-x86",)) == []


def test_no_archive_address_in_the_tree() -> None:
    """The archive is the machine's own: its name is nowhere in the project."""
    own = {source.uri.split("/")[2] for source in host.machine_sources() if "//" in source.uri}
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=host.ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    files = [host.ROOT / name for name in listed.split("\0") if name]
    texts = {path: path.read_bytes() for path in files if path.is_file()}
    assert len(texts) > 20
    assert [(path, name) for path, text in texts.items() for name in own if name.encode() in text] == []


def test_image_name_follows_the_recipe() -> None:
    first = image.recipe_hash()
    assert first == image.recipe_hash(image.Recipe())
    assert first != image.recipe_hash(image.Recipe(size=4096))
    assert len(first) == 12


def test_machine_isolates_page_tables_unless_told_that_no_memory_is_placed() -> None:
    assert "pti=on" in Machine(cmdline=("quiet",)).kernel_command_line().split()
    assert "pti=off" in Machine(accessed_bits=False).kernel_command_line().split()


def test_machine_has_a_slow_node_without_processors() -> None:
    arguments = Machine(pmem=(4098, 1026)).qemu_arguments()
    assert "node,nodeid=1,initiator=0" in arguments
    assert "nvdimm,id=nvdimm1,memdev=pmem1,label-size=2M,node=1" in arguments
    lb = [word for word in arguments if "access-latency" in word]
    assert [word.rpartition("=")[2] for word in lb] == ["80", "300"]


def test_each_socket_of_a_machine_has_pmem_that_is_nearer_than_that_of_the_other() -> None:
    arguments = Machine(sockets=2, cpus=4, dram=768, pmem=(1026, 1026)).qemu_arguments()
    assert "1536M,slots=4,maxmem=16G" in arguments
    assert [word for word in arguments if word.startswith("node,")] == [
        "node,nodeid=0,memdev=dram0,cpus=0-1",
        "node,nodeid=1,memdev=dram1,cpus=2-3",
        "node,nodeid=2,initiator=0",
        "node,nodeid=3,initiator=1",
    ]
    assert [word[-6:] for word in arguments if word.startswith("nvdimm,id")] == ["node=2", "node=3"]
    latencies = [word.rpartition("=")[2] for word in arguments if "access-latency" in word]
    assert latencies == ["80", "140", "300", "360", "140", "80", "360", "300"]
    distances = {word for word in arguments if word.startswith("dist,")}
    assert {"dist,src=0,dst=2,val=17", "dist,src=0,dst=3,val=28", "dist,src=1,dst=3,val=17"} < distances


def test_machine_without_firmware_tables() -> None:
    assert not any("hmat" in word for word in Machine(hmat=False).qemu_arguments())


def test_package_sources_leave_tests_and_ignored_files_out() -> None:
    files = package.source_files()
    assert Path("pyproject.toml") in files
    assert not [file for file in files if file.parts[0] in ("tests", ".venv") or file.suffix == ".pyc"]


def test_the_package_is_built_with_what_building_takes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(host, "install_packages", lambda packages=host.PACKAGES: asked.append(packages))
    monkeypatch.setenv("TIERD_CACHE", str(tmp_path))
    kept = tmp_path / "packages" / package.sources_hash(package.source_files()) / "tierd_0_all.deb"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert package.main([]) == 0 and package.main(["--output", str(tmp_path)]) == 0
    assert set(asked) == {host.PACKAGE_PACKAGES} and (tmp_path / kept.name).is_file()


def test_ring_that_runs_nothing_is_not_a_success(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "test_empty.py"
    empty.write_text("")
    counts, code = test._run(test.Ring("empty", (str(empty),), 60, "nothing"), [])
    assert (counts, code) == (test.Counts(), 5)


def test_ring_counts_what_pytest_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    some = tmp_path / "test_some.py"
    some.write_text(
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert False\n"
        "def test_c(): pytest.skip('no')\n"
        "@pytest.fixture\n"
        "def broken(): raise OSError\n"
        "def test_d(broken): pass\n"
    )
    counts, code = test._run(test.Ring("some", (str(some),), 60, "four"), [])
    assert (counts, code) == (test.Counts(passed=1, failed=2, skipped=1), 1)


def test_ring_says_how_long_it_took_the_last_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIERD_CACHE", str(tmp_path / "cache"))
    some = tmp_path / "test_some.py"
    some.write_text("def test_a(): pass\ndef test_b(): pass\n")
    ring = test.Ring("some", (str(some),), 60, "two")
    monkeypatch.setattr(test, "RINGS", (ring,))
    test._run(ring, ["-k", "a"])
    test._run(ring, [])
    assert "(ended as hung after 60 s)" in capfd.readouterr().out.split("ring some: two ")[2], (
        "a part tells little"
    )
    test._run(ring, [])
    assert " s the last time, ended as hung after 60 s)" in capfd.readouterr().out
    (tmp_path / "cache/ring-seconds.json").write_text("[]")
    assert test._seconds() == {}


def test_dev_names_the_commands_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert dev.main(["--help"]) == 0
    offered = set(re.findall(r"^  (\w+) ", capsys.readouterr().out, re.MULTILINE))
    modules = {path.stem for path in Path(dev.__file__).parent.glob("*.py")}
    assert offered == {name for name in dev.COMMANDS if name in modules} and "test" in offered
    assert dev.main(["nonsense"]) == 2
    assert "there is no command nonsense" in capsys.readouterr().err


def test_hung_ring_is_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hung = tmp_path / "test_hung.py"
    hung.write_text("import time\ndef test_a(): time.sleep(600)\n")
    _, code = test._run(test.Ring("hung", (str(hung),), 4, "sleeps"), [])
    assert code != 0
    assert "ring hung is not done after 4 s: ended" in capfd.readouterr().out
