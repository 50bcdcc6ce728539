"""Break the code on purpose, one way at a time, and see that a test fails.

    python tests/mutate.py [NAME ...] [--list] [--write]

The ways are in mutations.yaml: name, what it breaks, file, the exact old text, the new one, the tests that should catch it.
Everything happens in a copy of the tree. Exit code 1: a mutant survives, or the tests fail before anything is broken.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LIST, TABLE = "tests/mutations.yaml", "tests/mutations.md"
COPIED = ("sddlib", "tests", "notebooks", "conftest.py", "pyproject.toml")  # what is broken or run; the rest is linked
# Without the plugins that nothing here needs and that take seconds to load; conftest.py needs xdist.
OPTIONS = ("-x", "-q", "-o", "addopts=", "-p", "xdist.plugin", "-p", "no:cacheprovider", "--tb=no", "-rfE")
LIMIT = 240  # seconds for the tests of one mutant, and for a hundred of the whole tree's


@dataclass(frozen=True)
class Mutation:
    """One way to break the code. old: occurs once in the file; tests: files or node ids below tests/."""

    name: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def broken(self, text: str) -> str:
        """The file's text with the mutation in it."""
        if text.count(self.old) != 1:
            raise SystemExit(f"{self.name}: its old text occurs {text.count(self.old)} times in {self.file}; mend {LIST}")
        return text.replace(self.old, self.new)


def read(root: Path = ROOT) -> list[Mutation]:
    """The list of a tree, in order."""
    entries = yaml.safe_load((root / LIST).read_text(encoding="utf-8"))
    return [Mutation(name, **{**entry, "tests": tuple(entry["tests"])}) for name, entry in entries.items()]


def copy_tree(root: Path, target: Path) -> None:
    """What tests need of a tree: COPIED as copies, everything else, the data for one, as links."""
    for path in root.iterdir():
        if path.name in COPIED and path.is_dir():
            shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.name in COPIED:
            shutil.copy2(path, target / path.name)
        elif path.name not in ("runs", ".git"):
            (target / path.name).symlink_to(path)


def run_tests(tree: Path, tests: list[str], limit: float) -> str:
    """The first test that fails, "" if none does, "timeout"; the copy's own sddlib is what is imported."""
    mine = {"PYTHONPATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    mine["PYTHONDONTWRITEBYTECODE"] = "1"  # that of a file which is changed twice in a second would stay
    command = [sys.executable, "-m", "pytest", *OPTIONS, *(f"tests/{t}" for t in tests)]
    try:
        done = subprocess.run(command, cwd=tree, env=os.environ | mine, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return "timeout"
    failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - .*)?$", done.stdout, re.M)
    if done.returncode not in (0, 1, 2) or (done.returncode and not failed):
        raise SystemExit(f"pytest could not run {' '.join(tests)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[1] if failed else ""


def survey(root: Path, mutations: list[Mutation], say=print) -> dict[str, str]:
    """Name -> the test that caught it, "" where none did. The tests must pass before anything is broken."""
    caught = {}
    for m in mutations:
        m.broken((root / m.file).read_text(encoding="utf-8"))  # what does not fit any more is said before anything runs
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        tree.mkdir()
        copy_tree(root, tree)
        begin, every = time.perf_counter(), list(dict.fromkeys(t for m in mutations for t in m.tests))
        if failed := run_tests(tree, every, LIMIT * (1 + len(every) / 100)):
            raise SystemExit(f"{failed} fails before anything is broken; mend that first")
        say(f"{len(every)} tests or files of {len(mutations)} mutants pass unbroken, {time.perf_counter() - begin:.0f} s")
        for m in mutations:
            begin, file = time.perf_counter(), tree / m.file
            whole = file.read_text(encoding="utf-8")
            file.write_text(m.broken(whole), encoding="utf-8")
            caught[m.name] = run_tests(tree, list(m.tests), LIMIT)
            file.write_text(whole, encoding="utf-8")
            said = f"caught by {caught[m.name]}" if caught[m.name] else "NOT CAUGHT"
            say(f"{m.name:<32} {said}, {time.perf_counter() - begin:.1f} s")
    return caught


def table(mutations: list[Mutation], caught: dict[str, str]) -> str:
    """The result as Markdown."""
    cells = [(m.name, m.what, f"`{caught[m.name]}`" if caught[m.name] else "**nothing**") for m in mutations]
    body = "\n".join(f"| {' | '.join(line)} |" for line in cells)
    return f"Made by `python tests/mutate.py --write`.\n\n| mutation | breaks | caught by |\n|---|---|---|\n{body}\n"


def earlier(root: Path) -> dict[str, str]:
    """Name -> the test that caught it, of the table that is there."""
    path = root / TABLE
    lines = re.findall(r"^\| (\w+) \| .* \| `(.+)` \|$", path.read_text(encoding="utf-8"), re.M) if path.is_file() else []
    return dict(lines)


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations (default: all)")
    parser.add_argument("--list", action="store_true", help="print what there is and run nothing")
    parser.add_argument(
        "--write", action="store_true", help=f"write {TABLE}; of other mutations than those named it keeps the rows"
    )
    args, known = parser.parse_args(argv), read(root)
    if unknown := set(args.names) - {m.name for m in known}:
        parser.error(f"there is no mutation {min(unknown)!r}; --list shows them")
    if args.write and args.names and (absent := [m.name for m in known if m.name not in {*earlier(root), *args.names}]):
        parser.error(f"{TABLE} has no row of {absent[0]!r}; name it too, or none")
    chosen = [m for m in known if not args.names or m.name in args.names]
    if args.list:
        print("\n".join(f"{m.name:<32} {m.what} ({m.file})" for m in chosen))
        return 0
    begin, caught = time.perf_counter(), survey(root, chosen, lambda text: print(text, flush=True))
    if args.write:
        (root / TABLE).write_text(table(known, earlier(root) | caught), encoding="utf-8")
    survivors = [name for name, test in caught.items() if not test]
    print(f"{len(caught) - len(survivors)} of {len(caught)} caught, {time.perf_counter() - begin:.0f} s")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
