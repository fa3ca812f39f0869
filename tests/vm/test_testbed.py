"""The testbed itself: who trusts a guest trusts its exit codes, its hardware, and its end."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.vm import host, image, machine
from tests.vm.guest import Guest, GuestError


def test_runs_the_kernel_that_was_asked_for(guest: Guest, kernel: str) -> None:
    assert guest.output("uname -r") == image.image(image.having(image.RECIPE, kernel)).release(kernel)
    assert guest.output("uname -r").startswith(f"{kernel}.")


def test_exit_code_and_streams_come_apart(guest: Guest) -> None:
    done = guest.run("echo out; echo err >&2; exit 3", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert guest.run(["printf", "%s|", "two words", "$HOME", "'"]).stdout == "two words|$HOME|'|"
    assert guest.run("cat", input="typed\n").stdout == "typed\n"


def test_failure_says_what_failed(guest: Guest) -> None:
    with pytest.raises(GuestError, match="exit code 5: echo why >&2; exit 5\nwhy"):
        guest.run("echo why >&2; exit 5")
    # 255 is what ssh itself says when it fails: a command may say it too.
    assert guest.run("exit 255", check=False).returncode == 255


def test_timeout_ends_the_command_in_the_guest(guest: Guest) -> None:
    with pytest.raises(GuestError, match="not done after 2 s"):
        guest.run("exec -a slow-sleeper sleep 1000", timeout=2)
    assert guest.run("pgrep -f '^slow-sleeper'", check=False).returncode == 1


def test_lines_come_while_the_command_runs(guest: Guest) -> None:
    lines = guest.stream("echo one; sleep 3; echo two")
    assert next(lines) == "one"
    waited = time.monotonic()
    assert next(lines) == "two"
    assert time.monotonic() - waited > 1, "the first line was held back until the second"
    assert list(lines) == []
    with pytest.raises(GuestError, match="exit code 4"):
        list(guest.stream("exit 4"))


def test_stream_that_is_left_early_ends_its_command(guest: Guest) -> None:
    lines = guest.stream("exec -a endless-counter bash -c 'while echo tick; do sleep 0.2; done'")
    assert next(lines) == "tick"
    lines.close()  # type: ignore[attr-defined]
    guest.wait_for("! pgrep -f '^endless-counter'", timeout=20)


def test_files_go_in_and_out(guest: Guest, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "bytes").write_bytes(bytes(range(256)) * 1000)
    guest.put(tree, "/root/copy of it/here")
    guest.get("/root/copy of it/here/deep/bytes", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tree / "deep" / "bytes").read_bytes()
    guest.write("/root/secret", "text\n", mode=0o600)
    assert guest.output("stat -c '%a %s' /root/secret") == "600 5"
    guest.run("rm -r '/root/copy of it' /root/secret")


def test_region_is_ready_for_namespaces(guest: Guest) -> None:
    region = guest.region()
    assert region.iset_id != 0
    assert region.size == 4096 << 20
    assert region.size % (16 << 20) == 0
    facts = json.loads(guest.output("ndctl list -R -v"))[0]
    assert facts["target_node"] == 1
    assert guest.prepare_labels().iset_id == region.iset_id, "labels must not be written twice"


def test_firmware_tells_the_tiers_apart(guest: Guest) -> None:
    """HMAT reaches the kernel for DRAM's node; the slow node's follows when its memory is online."""
    access = "/sys/devices/system/node/node0/access1/initiators"
    assert guest.output(f"cat {access}/read_latency {access}/read_bandwidth") == "80\n102400"
    assert guest.output("cat /sys/devices/system/node/possible").startswith("0-1")


def test_boots_to_an_undisturbed_system(guest: Guest) -> None:
    assert guest.output("systemctl --failed --no-legend --plain") == ""
    assert "timer" not in guest.output(
        "systemctl list-timers --no-legend | grep -v systemd-tmpfiles-clean || true"
    )
    assert int(guest.output("grep -c ^processor /proc/cpuinfo")) == 2


def test_stop_leaves_nothing() -> None:
    with machine.boot(machine.Machine(kernel="6.12", dram=512, pmem=(18,))) as small:
        assert small.output("echo up") == "up"
        # Without, the emulated TLB hides accessed bits, and nothing ever looks cold or hot for what it is.
        assert "Kernel/User page tables isolation: enabled" in small.output("dmesg")
        pid, directory = small.pid, small.directory
        assert Path(f"/proc/{pid}/exe").resolve().name == "qemu-system-x86_64"
    assert not Path(f"/proc/{pid}").exists()
    assert not directory.exists()
    with pytest.raises(host.HostError, match="the guest is gone|ssh"):
        small.run("true", timeout=5)


def test_boot_that_fails_shows_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    broken = machine.Machine(
        kernel="7.3", dram=512, pmem=(18,), cmdline=("root=/dev/nowhere", "rootdelay=1")
    )
    before = _children()
    with pytest.raises(host.HostError, match="(?s)ended with exit code 0.*end of serial.log.*nowhere"):
        machine.start(broken)
    assert _children() == before


def test_unknown_kernel_is_named() -> None:
    with pytest.raises(host.HostError, match=r"no kernel 5\.0; it has 6\.1, 6\.12, 7\.3"):
        machine.start(machine.Machine(kernel="5.0"))


def test_unknown_guest_is_named() -> None:
    with pytest.raises(host.HostError, match="no guest named nobody-has-this-name"):
        machine.attach("nobody-has-this-name")


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
