"""The files of a policy: which are read, in what order, and what is wrong with any of them."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.config.drop_ins import Tree
from tierd.config import files, load, load_chosen, load_in_force
from tierd.config.check import check
from tierd.core.policy import EngineMode
from tierd.errors import ConfigError

HEAD = "version: 1\n"
REQUEST = '  - {{name: {name}, region: {{iset_id: "{iset}"}}, size: 1GiB}}\n'
A, B = REQUEST.format(name="a", iset="0x1"), REQUEST.format(name="b", iset="0x2")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path)
    tree.use(monkeypatch)
    tree.write("etc/tierd.yaml", HEAD + "engine: {mode: place, round: 2s}\n")
    return tree


def engine(**values: str) -> str:
    return HEAD + "engine: {" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}\n"


def roles(tree: Tree) -> list[tuple[str, str]]:
    return [(str(f.path.relative_to(tree.root)), f.role.value) for f in load_in_force().found]


def test_the_directories() -> None:
    assert [str(path) for path in files.DIRECTORIES] == ["/etc/tierd", "/run/tierd", "/usr/lib/tierd"]


def test_one_file_is_the_policy_that_it_was(tree: Tree) -> None:
    path = tree.root / "etc/tierd.yaml"
    assert load(None) == load(path)
    assert load(None).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_first_main_file_is_the_one(tree: Tree) -> None:
    tree.write("lib/tierd.yaml", engine(round="7s"))
    tree.write("run/tierd.yaml", engine(round="5s"))
    assert load(None).engine.round == 2
    assert roles(tree) == [
        ("etc/tierd.yaml", "main"),
        ("run/tierd.yaml", "masked"),
        ("lib/tierd.yaml", "masked"),
    ]
    (tree.root / "etc/tierd.yaml").unlink()
    assert load(None).engine.round == 5 and load(None).engine.mode is EngineMode.OBSERVE
    (tree.root / "run/tierd.yaml").unlink()
    assert load(None).engine.round == 7


def test_without_a_main_file_the_first_place_is_named(tree: Tree) -> None:
    (tree.root / "etc/tierd.yaml").unlink()
    tree.write("etc/conf.d/10-a.yaml", engine(round="5s"))
    (problem,) = tree.problems()
    assert problem.startswith("etc/tierd.yaml: does not exist; the least policy")


def test_a_main_file_that_cannot_be_obeyed_is_not_passed_over(tree: Tree) -> None:
    tree.write("lib/tierd.yaml", engine(round="7s"))
    (tree.root / "etc/tierd.yaml").unlink()
    (tree.root / "etc/tierd.yaml").symlink_to(tree.root / "nowhere")
    assert tree.problems() == ["etc/tierd.yaml: is a symbolic link; name the file it points to"]
    (tree.root / "etc").rename(tree.root / "gone")
    (tree.root / "etc").symlink_to("etc")  # whether there is a file cannot be known
    assert tree.problems()[0].startswith("etc/tierd.yaml: etc is a symbolic link")


def test_drop_ins_are_merged_in_the_order_of_their_names(tree: Tree) -> None:
    tree.write("etc/conf.d/20-b.yaml", engine(round="3s"))
    tree.write("lib/conf.d/30-c.yaml", engine(round="4s"))
    tree.write("run/conf.d/10-a.yaml", engine(round="5s", cooldown="9s"))
    policy = load(None)
    assert (policy.engine.mode, policy.engine.round, policy.engine.cooldown) == (EngineMode.PLACE, 4, 9)
    names = ["run/conf.d/10-a.yaml", "etc/conf.d/20-b.yaml", "lib/conf.d/30-c.yaml"]
    assert [os.path.relpath(path, tree.root) for path in policy.drop_ins] == names
    assert policy.source == f"{tree.root}/etc/tierd.yaml and 3 drop-ins"


def test_other_names_are_not_read(tree: Tree) -> None:
    for name in (".10-a.yaml", "10-a.yaml~", "10-a.yml", "README", "10-a.yaml.dpkg-new"):
        tree.write(f"etc/conf.d/{name}", "nonsense: [")
    (tree.root / "etc/conf.d/.#10-a.yaml").symlink_to("someone@somewhere")
    assert load(None).drop_ins == ()


@pytest.mark.parametrize("empty", ["", "\n \n", "# not here\n  # nor there", None])
def test_a_name_masks_itself_in_directories_further_down(tree: Tree, empty: str | None) -> None:
    tree.write("lib/conf.d/10-a.yaml", "nonsense: [")
    tree.write("run/conf.d/10-a.yaml", engine(round="5s"))
    assert load(None).engine.round == 5
    tree.null("etc/conf.d/10-a.yaml") if empty is None else tree.write("etc/conf.d/10-a.yaml", empty)
    assert load(None).engine.round == 2
    assert roles(tree)[1:] == [
        ("etc/conf.d/10-a.yaml", "empty"),
        ("run/conf.d/10-a.yaml", "masked"),
        ("lib/conf.d/10-a.yaml", "masked"),
    ]


def test_lists_replace_lists(tree: Tree) -> None:
    tree.write(
        "lib/conf.d/10-a.yaml",
        HEAD + "processes: {include: [{unit: a.service}], exclude: [{unit: b.service}]}\n",
    )
    tree.write("lib/conf.d/20-b.yaml", HEAD + "processes: {include: [{unit: c.service}]}\n")
    processes = load(None).processes
    assert [match.unit for match in processes.include] == ["c.service"]
    assert [match.unit for match in processes.exclude] == ["b.service"]


def test_every_error_of_every_file_is_told_with_its_own_place(tree: Tree) -> None:
    tree.write("etc/tierd.yaml", HEAD + "engine: {mode: fast}\nclases: []\n")
    tree.write("lib/conf.d/10-a.yaml", "engine: {round: 5}\n")
    tree.write("run/conf.d/20-b.yaml", HEAD + "\tengine:\n")
    tree.write(
        "etc/conf.d/30-c.yaml", HEAD + "classes: [{name: x, match: [{unit: a.service}]}, {name: x}]\n"
    ).chmod(0o666)
    os.mkfifo(tree.root / "etc/conf.d/40-d.yaml")
    tree.write("etc/conf.d/50-e.yaml", HEAD + "#" * (256 * 1024))
    (tree.root / "etc/conf.d/60-f.yaml").symlink_to(tree.root / "etc/tierd.yaml")
    (tree.root / "etc/conf.d/70-g.yaml").symlink_to("null")
    tree.write(
        "etc/conf.d/80-h.yaml", HEAD + "classes: [{name: x, match: [{unit: a.service}]}, {name: x}]\n"
    )
    signal.alarm(20)  # a pipe must not be waited for
    assert [": ".join(problem.split(": ")[:2]) for problem in tree.problems()] == [
        "etc/tierd.yaml:2:16: engine.mode",
        "etc/tierd.yaml:3:1: clases",
        "lib/conf.d/10-a.yaml:1:1: top level",
        "lib/conf.d/10-a.yaml:1:17: engine.round",
        "run/conf.d/20-b.yaml:2:1: top level",
        "etc/conf.d/30-c.yaml: can be written by everyone; run",
        "etc/conf.d/40-d.yaml: is a named pipe; the policy must be a regular file",
        "etc/conf.d/50-e.yaml: is larger than 256 KiB; a policy is a few lines of YAML",
        "etc/conf.d/60-f.yaml: is a symbolic link; name the file it points to",
        "etc/conf.d/70-g.yaml: is a symbolic link; name the file it points to",
        "etc/conf.d/80-h.yaml:2:50: classes[1]",
        "etc/conf.d/80-h.yaml:2:57: classes[1].name",
    ]
    signal.alarm(0)


def test_a_directory_of_drop_ins_must_be_in_safe_hands(tree: Tree) -> None:
    tree.write("lib/conf.d/10-a.yaml", engine(round="5s"))
    (tree.root / "lib/conf.d").chmod(0o777)
    (tree.root / "etc/conf.d").symlink_to(tree.root / "lib/conf.d")
    tree.write("run/conf.d", "")
    assert tree.problems() == [
        f"etc/conf.d: {tree.root}/etc/conf.d is a symbolic link; name the directory it points to".replace(
            f"{tree.root}/", ""
        ),
        "run/conf.d: cannot be opened: Not a directory",
        "lib/conf.d: can be written by everyone; run: chmod go-w lib/conf.d",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_a_mask_of_another_user_is_refused(tree: Tree) -> None:
    tree.write("lib/conf.d/10-a.yaml", engine(round="5s"))
    os.lchown(tree.null("etc/conf.d/10-a.yaml"), 65534, 0)
    assert tree.problems() == [
        "etc/conf.d/10-a.yaml: belongs to user 65534; run: chown -h root etc/conf.d/10-a.yaml"
    ]


def test_too_many_drop_ins_are_refused(tree: Tree) -> None:
    for number in range(files.MOST_DROP_INS):
        tree.write(f"lib/conf.d/{number:03}.yaml", HEAD)
    assert len(load(None).drop_ins) == files.MOST_DROP_INS
    tree.write("etc/conf.d/x.yaml", HEAD)
    assert tree.problems() == ["etc/conf.d: more than 100 drop-ins, with those of the other directories"]


def test_no_descriptor_is_left_open(tree: Tree) -> None:
    tree.write("etc/conf.d/10-a.yaml", engine(round="5s"))
    before = os.listdir("/dev/fd")
    load(None)
    (tree.root / "etc/conf.d").chmod(0o777)
    tree.problems()
    assert os.listdir("/dev/fd") == before


def test_the_digest_is_that_of_all_files_and_can_be_computed_by_hand(tree: Tree) -> None:
    digests = {load(None).digest}
    path = tree.write("lib/conf.d/10-a.yaml", engine(round="5s"))
    digests.add(load(None).digest)
    policy = load(None)
    told = subprocess.run(
        ["sha256sum", policy.origin, *policy.drop_ins], capture_output=True, check=True
    ).stdout
    assert policy.digest == hashlib.sha256(told).hexdigest()
    path.write_text(engine(round="6s"))
    digests.add(load(None).digest)
    path.rename(path.with_name("20-a.yaml"))
    digests.add(load(None).digest)
    assert len(digests) == 4


@pytest.mark.parametrize("where", ["run", "lib"])
@pytest.mark.parametrize("name", ["tierd.yaml", "conf.d/10-a.yaml"])
@pytest.mark.parametrize("requests", ["provision: []\n", "provision:\n" + A])
def test_only_the_administrator_asks_for_memory(tree: Tree, where: str, name: str, requests: str) -> None:
    tree.write("etc/tierd.yaml", HEAD + "provision:\n" + A)
    if name == "tierd.yaml":
        (tree.root / "etc/tierd.yaml").unlink()
    path = tree.write(f"{where}/{name}", HEAD + requests)
    (problem,) = tree.problems()
    assert problem.startswith(
        f"{where}/{name}:2:1: provision: which memory is made is this machine's own affair"
    )
    # the same of the file alone; a draft elsewhere may become a file of the administrator
    with pytest.raises(ConfigError, match="own affair"):
        load_chosen(path)
    assert load_chosen(tree.write("draft.yaml", HEAD + requests))


def test_a_list_of_requests_leaves_none_out(tree: Tree) -> None:
    tree.write("etc/tierd.yaml", HEAD + "provision:\n" + A + B)
    path = tree.write("etc/conf.d/10-a.yaml", HEAD + "\nprovision:\n" + B)
    (problem,) = tree.problems()
    assert problem.startswith(
        "etc/conf.d/10-a.yaml:3:1: provision: this list replaces the one in etc/tierd.yaml, line 2, and"
        " leaves out a;"
    )
    path.write_text(HEAD + "provision: []\n")
    assert "leaves out a, b;" in tree.problems()[0]
    more = REQUEST.format(name="c", iset="0x3")
    path.write_text(HEAD + "provision:\n" + B.replace("1GiB", "none") + A + more)
    assert [(r.name, r.size) for r in load(None).provision] == [("b", 0), ("a", 1 << 30), ("c", 1 << 30)]
    tree.write("etc/conf.d/20-b.yaml", HEAD + "provision:\n" + A + B)
    assert "etc/conf.d/10-a.yaml, line 2, and leaves out c;" in tree.problems()[0]


def test_an_empty_list_of_requests_may_be_replaced(tree: Tree) -> None:
    tree.write("etc/tierd.yaml", HEAD + "provision: []\n")
    tree.write("etc/conf.d/10-a.yaml", HEAD + "provision:\n" + A)
    assert [request.name for request in load(None).provision] == ["a"]


def test_classes_and_their_warnings_name_the_file_in_which_they_stand(tree: Tree) -> None:
    odd = "classes: [{name: x, match: [{user: no-such-user-here}]}]\n"
    tree.write("lib/conf.d/10-a.yaml", HEAD + odd)
    path = tree.write("lib/conf.d/20-b.yaml", HEAD + "\n" + odd)
    policy = load(None)
    assert [warning.split(": ")[0] for warning in policy.warnings] == [f"{path}:3:36"]
    assert policy.classes[0].place.told("main.yaml", "no") == f"{path}:3:11: classes[0]: no"


def test_a_named_file_is_that_file_alone(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    main = tree.root / "etc/tierd.yaml"
    drop_in = tree.write("etc/conf.d/10-a.yaml", engine(round="5"))
    draft = tree.write("draft/tierd.yaml", HEAD)
    tree.write("draft/conf.d/10-a.yaml", "nonsense: [")
    assert load(main).engine.round == 2 and load(draft).drop_ins == ()
    assert [check(path) for path in (main, draft, drop_in, None)] == [0, 0, 78, 78]
    said = capsys.readouterr()
    assert said.out == f"{main}: OK, by itself\n{draft}: OK\n"
    assert said.err.count(f"{drop_in}:2:17: engine.round: ") == 2
    drop_in.write_text(engine(round="5s"))
    assert check(None) == 0
    assert capsys.readouterr().out == f"{main} and 1 drop-in: OK\n"
    drop_in.chmod(0o666)
    assert check(drop_in) == 78, "it is obeyed where it lies"
