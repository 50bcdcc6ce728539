"""The list of ways to break the code fits the code, and the runner tells a test that catches one from a test that does not.

That each is caught takes minutes: `make mutate`.
"""

import re
from pathlib import Path

import mutate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
MUTATIONS = mutate.read(ROOT)
each = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)


def test_there_are_many_and_each_has_a_name_and_a_reason_of_its_own():
    assert len(MUTATIONS) >= 30
    for what in ("name", "what"):
        assert len({getattr(m, what) for m in MUTATIONS}) == len(MUTATIONS)
    assert {m.file for m in MUTATIONS} >= {f"sddlib/{name}.py" for name in ("backbone", "bank", "losses", "evaluate", "crops")}


@each
def test_the_old_text_occurs_once_and_the_new_file_is_python(mutation):
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, f"{mutation.file} has changed; mend {mutate.LIST}"
    assert mutation.broken(text) != text
    compile(mutation.broken(text), mutation.file, "exec")


@each
def test_the_named_tests_exist(mutation):
    assert mutation.tests
    for node in mutation.tests:
        file, _, test = node.partition("::")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", text, re.M), node


def test_the_table_is_of_this_list_and_nothing_in_it_survived():
    lines = (ROOT / mutate.TABLE).read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|", 2)] for line in lines if line.startswith("|")][2:]
    assert [(name, what) for name, what, _ in cells] == [(m.name, m.what) for m in MUTATIONS]
    for (name, _, caught), m in zip(cells, MUTATIONS, strict=True):
        assert any(caught.strip("`").startswith(test) for test in m.tests), name


# --- the runner, on a tree of two files

CODE = "def smaller(a, b):\n    return a if a < b else b\n\n\ndef sign(a):\n    return -1 if a < 0 else 1\n"
TESTS = "from sddlib.x import smaller\n\n\ndef test_smaller():\n    assert smaller(1, 2) == smaller(2, 1) == 1\n"
WAYS = {
    "larger": {"what": "the larger", "old": "a < b", "new": "a > b", "tests": ["test_x.py"]},
    "sign": {"what": "no sign", "old": "return -1", "new": "return 1", "tests": ["test_x.py::test_smaller"]},
}


@pytest.fixture
def tree(tmp_path) -> Path:
    for name, text in (("sddlib/x.py", CODE), ("sddlib/__init__.py", ""), ("tests/test_x.py", TESTS), ("data/a", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    ways = {name: {"file": "sddlib/x.py", **way} for name, way in WAYS.items()}
    (tmp_path / mutate.LIST).write_text(yaml.safe_dump(ways, sort_keys=False))
    return tmp_path


def test_runner_tells_caught_from_survived_and_leaves_the_tree_alone(tree, capsys):
    before = {p: p.read_bytes() for p in tree.rglob("*") if p.is_file()}
    assert mutate.main(["--list"], tree) == 0 and len(capsys.readouterr().out.splitlines()) == 2
    assert mutate.main(["--write"], tree) == 1
    said, table = capsys.readouterr().out, (tree / mutate.TABLE).read_text()
    assert re.search(r"^larger +caught by test_x.py::test_smaller, ", said, re.M) and "1 of 2 caught" in said
    assert re.search(r"^sign +NOT CAUGHT, ", said, re.M)
    assert "| larger | the larger | `test_x.py::test_smaller` |" in table and "| sign | no sign | **nothing** |" in table
    with pytest.raises(SystemExit):  # what survived has no row that could be kept
        mutate.main(["--write", "larger"], tree)
    kept = table.replace("**nothing**", "`test_x.py`")
    (tree / mutate.TABLE).write_text(kept)
    assert mutate.main(["--write", "larger"], tree) == 0 and (tree / mutate.TABLE).read_text() == kept
    (tree / mutate.TABLE).unlink()
    assert {p: p.read_bytes() for p in tree.rglob("*") if p.is_file()} == before


def test_tests_that_fail_unbroken_prove_nothing_and_are_refused(tree):
    (tree / "tests" / "test_x.py").write_text(TESTS + "\n\ndef test_wrong():\n    assert smaller(1, 2) == 2\n")
    with pytest.raises(SystemExit, match="test_x.py::test_wrong fails before anything is broken"):
        mutate.main(["larger"], tree)


@pytest.mark.parametrize("wrong", [["no_such"], ["--write", "larger"]])  # the other way has no row yet
def test_wrong_usage_is_refused_before_anything_runs(wrong, tree, capsys):
    with pytest.raises(SystemExit):
        mutate.main(wrong, tree)
    assert capsys.readouterr().err


def test_a_text_that_no_longer_occurs_is_said_with_the_list_to_mend(tree):
    (tree / "sddlib" / "x.py").write_text(CODE.replace("return -1", "return -2"))
    with pytest.raises(SystemExit, match="sign: its old text occurs 0 times in sddlib/x.py; mend tests/mutations.yaml"):
        mutate.main(["sign"], tree)


def test_make_mutate_runs_it():
    assert "\nmutate: env\n\t$(PY) tests/mutate.py\n" in (ROOT / "Makefile").read_text()
