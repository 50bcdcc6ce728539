"""Is all in place? Versions, device, memory, disk, weights, data, kernels, widgets: [ok], [warn] or [fail] and a cure for each.

Whatever is missing or broken is a line of the answer, so nothing heavy is imported before the check that is about it.
"""

import csv
import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from .machine import ROOT, Finding, device, disk, memory, one_line

INSTALL = 'python -m pip install -e ".[notebooks,test]"'
NEEDED = ("", "notebooks")  # extras without which notebooks do not run; "" is what sddlib itself asks for


def versions() -> Iterator[Finding]:
    """Python and every package against the bounds that the installed sddlib declares, extra by extra."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    bounds, python = SpecifierSet(metadata.metadata("sddlib")["Requires-Python"]), "{}.{}.{}".format(*sys.version_info)
    good = bounds.contains(python)
    yield Finding("ok" if good else "fail", f"Python {python} ({bounds})", "" if good else f"make env PYTHON=a Python {bounds}")
    groups, wanted = Counter(), [Requirement(line) for line in metadata.requires("sddlib") or ()]
    for extra in ("", *metadata.metadata("sddlib").get_all("Provides-Extra", [])):
        mine = [r for r in wanted if (r.marker is None) == (not extra) and (not extra or r.marker.evaluate({"extra": extra}))]
        for r in mine:
            try:
                found = metadata.version(r.name)
            except metadata.PackageNotFoundError:
                found = ""
            if found and r.specifier.contains(found, prereleases=True):
                groups[extra] += 1
                continue
            why = f"is {found}, outside {r.specifier}" if found else "is not installed"
            level = "fail" if extra in NEEDED else "warn"
            cure = INSTALL if extra in (*NEEDED, "test") else f'python -m pip install -e ".[{extra}]"'
            yield Finding(level, f"package {r.name} {why}" + (f" (extra {extra})" if extra else ""), cure)
    if unknown := declared(ROOT / "pyproject.toml") - {key(r) for r in wanted}:
        what = f"pyproject.toml asks for {', '.join(sorted(unknown))}, of which this installation does not know"
        yield Finding("warn", what, INSTALL)
    inside = ", ".join(f"{n} {f'of extra {extra}' if extra else 'of sddlib'}" for extra, n in groups.items())
    yield Finding("ok", f"packages inside their bounds: {inside or 'none'}")


def key(requirement) -> str:
    """A requirement without its extra, in one spelling."""
    return f"{requirement.name}{requirement.specifier}"


def declared(path: Path) -> set[str]:
    """The `key`s of what a pyproject.toml asks for; nothing where there is none or this Python (3.10) cannot read TOML."""
    from packaging.requirements import Requirement

    if not path.is_file() or sys.version_info < (3, 11):
        return set()
    import tomllib

    project = tomllib.loads(path.read_text())["project"]
    lines = [*project["dependencies"], *(line for part in project["optional-dependencies"].values() for line in part)]
    return {key(Requirement(line)) for line in lines}


def weights() -> Iterator[Finding]:
    """The embedded CLIP and the shipped checkpoint: there, and of their recorded hashes."""
    from . import SDDError
    from .embedded import FILE, cache_dir, check_cached, sha256

    clip = cache_dir() / FILE
    if not clip.is_file():
        yield Finding("fail", f"weights: CLIP is not in {clip.parent}", "python -m sddlib env (fetches 75 MB)")
    else:
        try:
            yield Finding("ok", f"weights: {check_cached(clip)}, {clip.stat().st_size / 1e6:.0f} MB, hash as recorded")
        except SDDError as e:
            yield Finding("fail", f"weights: {one_line(e)}", f"rm {clip}; python -m sddlib env")
    shipped = ROOT / "data" / "checkpoints" / "sdd-mini.safetensors"
    cure = f"git checkout -- {shipped.relative_to(ROOT).parent}"
    if not shipped.is_file() or not shipped.with_suffix(".json").is_file():
        yield Finding("fail", f"checkpoint: {shipped.name} or its JSON is missing, `score` needs one", cure)
    elif sha256(shipped) != json.loads(shipped.with_suffix(".json").read_text())["sha256"]:
        yield Finding("fail", f"checkpoint: {shipped.name} is not the file that its JSON describes", cure)
    else:
        yield Finding("ok", f"checkpoint: {shipped.name}, hash as recorded")


def data() -> Iterator[Finding]:
    """The images of the mini benchmark, counted against its manifest."""
    manifest, cure = ROOT / "data" / "manifest.csv", "git checkout -- data/mini data/manifest.csv"
    if not manifest.is_file():
        yield Finding("fail", f"data: {manifest} is missing", cure)
        return
    with manifest.open(newline="", encoding="utf-8-sig") as f:
        rows = list(csv.DictReader(f))
    files = [(row["split"], manifest.parent / row["path"]) for row in rows]
    bad = [path for _, path in files if not path.is_file() or not path.stat().st_size]
    if bad or not rows:
        first = f", first {bad[0].relative_to(manifest.parent)}" if bad else ""
        yield Finding("fail", f"data: {len(bad)} of {len(rows)} images of manifest.csv are missing or empty{first}", cure)
    else:
        splits = ", ".join(f"{split} {n}" for split, n in Counter(split for split, _ in files).items())
        yield Finding("ok", f"data: all {len(rows)} images of manifest.csv ({splits}); `verify` decodes them")


def kernels() -> Iterator[Finding]:
    """Whether the kernels that notebooks name run this Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    found = KernelSpecManager().get_all_specs()
    register = f'python -m ipykernel install --prefix "{sys.prefix}" --name sddlib --display-name "Python (sddlib)"'
    cures = {"python3": "python -m ipykernel install --sys-prefix", "sddlib": register}
    for name, without in (("python3", "fail"), ("sddlib", "warn")):
        if name not in found:
            yield Finding(without, f"kernel {name} is not registered", cures[name])
            continue
        python, folder = found[name]["spec"]["argv"][0], found[name]["resource_dir"]
        bare = not os.path.dirname(python) and python.startswith("python")  # jupyter takes its own Python for such a one
        if bare or same_python(python):
            yield Finding("ok", f"kernel {name} runs this Python")
        else:
            yield Finding("fail", f"kernel {name} runs {python}, not {sys.executable} ({folder})", cures[name])


def same_python(path: str) -> bool:
    """Whether a path is an interpreter of this environment; links are not followed, since a venv's all lead to one."""
    return Path(os.path.abspath(path)).parent == Path(os.path.abspath(sys.executable)).parent and Path(path).exists()


def widgets() -> Iterator[Finding]:
    """What sliders and progress bars in JupyterLab need."""
    from jupyter_core.paths import jupyter_path

    cure = 'python -m pip install -e ".[notebooks]"'
    number = importlib.import_module("ipywidgets").__version__
    if any((Path(p) / "@jupyter-widgets" / "jupyterlab-manager").is_dir() for p in jupyter_path("labextensions")):
        yield Finding("ok", f"widgets: ipywidgets {number} and JupyterLab's part of it")
    else:
        yield Finding("warn", f"widgets: ipywidgets {number}, but JupyterLab's part of it is not there", cure)


CHECKS: dict[Callable[[], Iterator[Finding]], str] = {  # check -> cure, where the check itself cannot be made
    versions: INSTALL,
    device: 'make -B env, or name a build of PyTorch for this machine: make -B env TORCH="torch==X torchvision==Y"',
    memory: INSTALL,
    disk: INSTALL,
    weights: INSTALL,
    data: "git checkout -- data/manifest.csv",
    kernels: INSTALL,
    widgets: INSTALL,
}


def examine(check: Callable[[], Iterator[Finding]], cure: str) -> list[Finding]:
    """What a check finds; one that dies is a failure itself, since it dies of what it was to look at."""
    found = []
    try:
        found.extend(check())
    except Exception as e:  # whatever a broken installation raises is an answer
        found.append(Finding("fail", f"{check.__name__}: {one_line(e)}", cure))
    return found


def doctor(say: Callable[[str], None] = print) -> int:
    """Say all findings, a line each, and a verdict. Exit code 1 if anything fails, else 0."""
    count = Counter()
    for check, cure in CHECKS.items():
        for finding in examine(check, cure):
            count[finding.level] += 1
            say(f"[{finding.level}]".ljust(7) + finding.what + (f"\n       cure: {finding.cure}" if finding.cure else ""))
    say(f"{count['ok']} ok, {count['warn']} to know of, {count['fail']} to mend")
    return int(count["fail"] > 0)
