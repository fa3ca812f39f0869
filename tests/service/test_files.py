"""The data files agree with the code: catalog, unit, bus policy, sysusers, tmpfiles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from gi.repository import Gio

from tests.service.conftest import ROOT, catalog
from tierd.cli.main import parser
from tierd.service import convert, drain, events, helper, hotplug, notify, protect, tier_objects
from tierd.service.events import Event
from tierd.service.interface import BUS_NAME, INTERFACE, Manager
from tierd.service.journal import entry
from tierd.service.shown import introspection_xml

UNIT = ROOT / "systemd/tierd.service"
PROGRAMS = (convert, drain, hotplug, protect, helper)
EVENT_TYPES = (*events.EVENT_TYPES, *(kind for program in PROGRAMS for kind in program.EVENT_TYPES))


def test_every_message_is_explained_and_nothing_else() -> None:
    assert set(catalog()) == {kind.message_id for kind in EVENT_TYPES}
    for headers, body in catalog().values():
        assert headers["Subject"] and headers["Defined-By"] == "tierd"
        assert len(body) > 20 and all(len(line) <= 120 for line in body.split("\n"))


def fields_in_source() -> set[str]:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tierd").rglob("*.py"))
    return set(re.findall(r'"(TIERD_[A-Z_0-9]+)"', source))


def test_the_catalog_names_only_fields_that_exist() -> None:
    used = {field for _, body in catalog().values() for field in re.findall(r"@([A-Z_0-9]+)@", body)}
    assert used and used <= fields_in_source()


@pytest.mark.skipif(shutil.which("journalctl") is None, reason="journalctl is not installed")
def test_journalctl_takes_the_catalog(tmp_path: Path) -> None:
    directory = tmp_path / "usr/lib/systemd/catalog"
    directory.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "systemd/tierd.catalog", directory)
    done = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--update-catalog"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    listed = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--list-catalog"], capture_output=True, text=True, check=True
    ).stdout
    for kind in EVENT_TYPES:
        assert kind.message_id in listed


def test_the_interface_is_well_formed_and_documented() -> None:
    interface = Gio.DBusNodeInfo.new_for_xml(introspection_xml(BUS_NAME)).lookup_interface(INTERFACE)
    methods = [method.name for method in interface.methods]
    assert methods == [
        *("GetPlan", "GetHistory", "Explain", "ListProcesses", "GetHeat", "Reload", "Pause", "Resume"),
    ]
    tier = Gio.DBusNodeInfo.new_for_xml(introspection_xml(tier_objects.INTERFACE)).interfaces[0]
    assert (tier.name, tier.methods) == (tier_objects.INTERFACE, [])
    for prop in (*interface.properties, *tier.properties):
        assert "(" not in prop.signature, f"{prop.name}: no tuples, a{{sv}} can grow"
    installed = (ROOT / "debian/tierd.install").read_text(encoding="utf-8")
    for name in (BUS_NAME, tier_objects.INTERFACE):
        assert "--" not in re.sub(r"<!--|-->", "", introspection_xml(name))
        assert f"conf/dbus/{name}.xml usr/share/dbus-1/interfaces\n" in installed


def test_the_bus_policy_opens_reading_and_what_polkit_guards() -> None:
    policies = {
        next(iter(policy.attrib.items())): [(rule.tag, dict(rule.attrib)) for rule in policy]
        for policy in ElementTree.parse(ROOT / "conf/dbus/org.tierd1.conf").getroot()
    }
    to = {"send_destination": BUS_NAME}
    properties = {**to, "send_interface": "org.freedesktop.DBus.Properties"}
    assert policies[("context", "default")] == [
        ("deny", to),
        ("allow", {**to, "send_interface": "org.freedesktop.DBus.Introspectable"}),
        ("allow", {**to, "send_interface": "org.freedesktop.DBus.Peer"}),
        ("allow", {**properties, "send_member": "Get"}),
        ("allow", {**properties, "send_member": "GetAll"}),
        ("allow", {**to, "send_interface": INTERFACE, "send_member": "GetPlan"}),
        ("allow", {**to, "send_interface": INTERFACE, "send_member": "GetHistory"}),
        (
            "allow",
            {**to, "send_interface": tier_objects.OBJECT_MANAGER, "send_member": "GetManagedObjects"},
        ),
        *(
            ("allow", {**to, "send_interface": INTERFACE, "send_member": method})
            for method in ("ListProcesses", "Explain", "GetHeat", "Reload", "Pause", "Resume")
        ),
    ]
    guarded = {name for name, member in vars(Manager).items() if hasattr(member, "action")}
    assert guarded == {"ListProcesses", "Explain", "GetHeat", "Reload", "Pause", "Resume"}
    actions = {vars(Manager)[name].action for name in guarded}
    policy = ElementTree.parse(ROOT / "conf/dbus/org.tierd1.policy").getroot()
    assert {action.attrib["id"] for action in policy.iter("action")} == actions
    (user,) = unit()["User"]
    for action in policy.iter("action"):  # polkit answers nobody else about other users
        owner = action.find("annotate[@key='org.freedesktop.policykit.owner']")
        assert owner is not None and owner.text == f"unix-user:{user}"
    for defaults in policy.iter("defaults"):
        assert all((kind.text or "").startswith("auth_admin") for kind in defaults), "nobody may unasked"
    assert policies[("user", "tierd")] == [("allow", {"own": BUS_NAME})]
    assert policies[("user", "root")] == [("allow", {"own": BUS_NAME}), ("allow", to)]
    assert len(policies) == 3


def test_the_manual_names_every_method_and_action() -> None:
    manual = (ROOT / "man/tierd.8").read_text(encoding="utf-8").replace("\\-", "-")
    section = manual.split(".SH D-BUS\n")[1].split(".SH ")[0]
    interface = Gio.DBusNodeInfo.new_for_xml(introspection_xml(BUS_NAME)).lookup_interface(INTERFACE)
    actions = {found.action for found in vars(Manager).values() if hasattr(found, "action")}
    for name in (*(method.name for method in interface.methods), *actions, tier_objects.INTERFACE):
        assert re.search(rf"\b{re.escape(name)}\b", section), name


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").split("\n"):
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_all_that_is_printed_has_the_identifier() -> None:
    services = list((ROOT / "systemd").glob("*.service"))
    assert len(services) >= 5
    for path in services:
        assert "SyslogIdentifier=tierd" in path.read_text().split("\n"), path.name


def test_where_systemd_knows_it_a_reload_is_waited_for() -> None:
    drop_in = (ROOT / "systemd/notify-reload.conf").read_text()
    settings = [line for line in drop_in.split("\n") if line and not line.startswith("#")]
    # ExecReload= sends the signal on every version; a second one would be a second reload
    assert settings == ["[Service]", "Type=notify-reload", "ReloadSignal=SIGCONT"]
    link = "/usr/lib/systemd/system/tierd.service.d/notify-reload.conf"
    assert "systemd/notify-reload.conf usr/share/tierd\n" in (ROOT / "debian/tierd.install").read_text()
    scripts = [(ROOT / f"debian/tierd.{name}").read_text() for name in ("postinst", "postrm")]
    assert f"ln -sf /usr/share/tierd/notify-reload.conf {link}" in scripts[0]
    assert f"rm -f {link}" in scripts[1]


def test_its_memory_is_kept_by_all_cgroups_above_it() -> None:
    settings = unit()
    (name,) = settings["Slice"]
    assert "-" not in name, "a slice within another, which keeps nothing"
    text = (ROOT / "systemd" / name).read_text()
    assert f"MemoryMin={settings['MemoryMin'][0]}\n" in text
    assert f"systemd/{name} usr/lib/systemd/system\n" in (ROOT / "debian/tierd.install").read_text()


def test_the_unit() -> None:
    settings = unit()
    assert settings["Type"] == ["notify"] and settings["NotifyAccess"] == ["exec"]
    assert (
        settings["User"] == ["tierd"]
        and settings["AmbientCapabilities"] == settings["CapabilityBoundingSet"]
    )
    assert settings["ExecStartPre"][0].startswith("+") and settings["ExecStopPost"][0].startswith("+")
    assert settings["ExecReload"] == [
        "/bin/kill -HUP $MAINPID",
        "/usr/bin/tierd --check-config",
        "+-/usr/bin/systemctl --no-block reload-or-restart tierd-convert@*.service",
    ]
    assert "78" in settings["RestartPreventExitStatus"][0].split()
    # A directory of the daemon's own there would let it choose what the root helper writes.
    assert "RuntimeDirectory" not in settings
    hiding = {"ProtectProc": "invisible", "ProcSubset": "pid", "PrivateUsers": "yes", "PrivatePIDs": "yes"}
    assert not [key for key, value in hiding.items() if value in settings.get(key, [])]


def test_what_udev_starts_is_installed() -> None:
    rules = (ROOT / "systemd/90-tierd.rules").read_text(encoding="utf-8")
    wanted = re.findall(r'ENV\{SYSTEMD_WANTS\}\+="([^"]+)"', rules)
    assert len(wanted) == len([line for line in rules.split("\n") if line.startswith("ACTION==")]) == 2
    installed = (ROOT / "debian/tierd.install").read_text(encoding="utf-8")
    for unit in wanted:
        assert f"systemd/{unit.replace('%k', '')} usr/lib/systemd/system\n" in installed


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_hardened() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:]
    exposure = re.search(r"exposure level for tierd.service: ([\d.]+)", done.stdout)
    assert exposure is not None and float(exposure[1]) <= 2.0


UNITS = sorted(
    path
    for path in (ROOT / "systemd").iterdir()
    if path.suffix in (".service", ".target", ".path", ".timer", ".slice", ".socket")
)


def verified(directory: Path, units: dict[str, str]) -> list[str]:
    """What systemd-analyze finds wrong with units, by name; programs of tierd are taken for installed."""
    for name, text in units.items():
        (directory / name).write_text(re.sub(r"/usr/bin/tier(d|ctl)\b", "/bin/true", text), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        cwd=directory,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:", "SYSTEMD_LOG_TARGET": "console"},
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout + done.stderr).splitlines() + [f"exit status {done.returncode}"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_every_unit(tmp_path: Path) -> None:
    units = {path.name: path.read_text(encoding="utf-8") for path in UNITS}
    assert len(units) >= 7 and verified(tmp_path, units) == ["exit status 0"]
    # and would not take one with a slip of the pen
    units["tierd.service"] += "[Service]\nWatchdogSecs=60\n"
    assert any("WatchdogSecs" in line for line in verified(tmp_path, units))


def test_root_owns_what_the_helper_trusts() -> None:
    lines = (ROOT / "systemd/tierd.tmpfiles").read_text(encoding="utf-8").split("\n")
    rules = {line.split()[1]: line.split() for line in lines if line and not line.startswith("#")}
    for directory in ("/run/tierd", "/var/lib/tierd"):
        assert rules[directory][:5] == ["d", directory, "0755", "root", "root"]
    assert rules["/run/tierd/daemon.lock"][2:5] == ["0640", "root", "tierd"]
    assert (ROOT / "systemd/tierd.sysusers").read_text(encoding="utf-8").startswith("u tierd ")


def test_the_timer_writes_where_the_manual_says() -> None:
    service = (ROOT / "systemd/tierd-metrics.service").read_text()
    (command,) = re.findall(r"^ExecStart=/usr/bin/(tierctl .+)$", service, re.MULTILINE)
    path = parser().parse_args(command.split()[1:]).output
    manual = (ROOT / "man/tierd.8").read_text().replace("\\-", "-")
    assert str(path) in manual and f"ReadWritePaths=-{Path(path).parent}\n" in service
    assert "systemctl enable --now tierd-metrics.timer" in manual
    installed = (ROOT / "debian/tierd.install").read_text()
    for name in ("tierd-metrics.service", "tierd-metrics.timer"):
        assert f"systemd/{name} usr/lib/systemd/system\n" in installed


def test_what_may_be_enabled_is_not_by_default() -> None:
    preset = (ROOT / "systemd/90-tierd.preset").read_text()
    for path in (ROOT / "systemd").iterdir():
        if path.is_file() and "\n[Install]\n" in path.read_text() and path.name != "tierd-protect.path":
            assert f"disable {path.name}\n" in preset, path.name


def test_nothing_is_enabled_by_a_preset() -> None:
    lines = (ROOT / "systemd/90-tierd.preset").read_text(encoding="utf-8").split("\n")
    assert {line.split()[0] for line in lines if line and not line.startswith("#")} == {"disable"}


def test_an_event_has_the_identifier_that_the_catalog_explains() -> None:
    fields = entry(Event(events.STOPPED, "tierd stopped"))
    assert catalog()[fields["MESSAGE_ID"]][0]["Subject"] == "tierd has stopped"


def test_watchdog_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for microseconds, pid, expected in [
        ("30000000", None, 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ]:
        for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        assert notify.watchdog_seconds() == expected, (microseconds, pid)


def test_descriptors_meant_for_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert notify.stored_descriptors() == {}
