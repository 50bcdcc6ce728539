"""Layouts: every set of a public benchmark is read from its real folders, shared reals once, nothing guessed."""

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from trees import INSIDE, NAMES, SIZE, both, picture, synris, univfd

from sddlib import SDDError, audit, places
from sddlib.benchmarks import PROGAN_4, SYNRIS, UNIVFD, stand_against
from sddlib.concepts import column_labels
from sddlib.data import read_manifest
from sddlib.evaluate import by_generator
from sddlib.layouts import benchmark_root, list_benchmark, read_benchmark

LAION = "ldm_200+ldm_200_cfg+ldm_100+glide_100_27+glide_50_27+glide_100_10+dalle"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """UnivFD, whole; not to be changed."""
    return univfd(tmp_path_factory.mktemp("univfd"), train=(*PROGAN_4, "dog"))


@pytest.fixture
def copy(tree, tmp_path) -> Path:
    """UnivFD, to be changed."""
    return shutil.copytree(tree, tmp_path / "univfd")


def rows(samples) -> list[dict]:
    return [vars(s) for s in samples]


def photos(samples, **wanted) -> list[str]:
    return [s.photo for s in samples if all(getattr(s, k) == v for k, v in wanted.items())]


# --- univfd


def test_all_19_sets_come_in_the_papers_order_with_their_families_and_files(tree):
    test = read_benchmark(tree, "univfd", splits=("test",))
    fakes = [s for s in test if s.label == 1]
    assert list(dict.fromkeys(s.generator for s in fakes)) == [s.name for s in UNIVFD]
    assert Counter(s.generator for s in fakes) == SIZE
    assert all(photos(test, family=s.family, generator=s.name, label=1) for s in UNIVFD)
    assert photos(test, generator="sitd", label=1) == [f"test/seeingdark/1_fake/{n}" for n in sorted(NAMES)]
    assert {s.split for s in test} == {"test"}


def test_reals_name_the_fakes_they_stand_against_and_shared_ones_come_once(tree):
    reals = Counter(s.generator for s in read_benchmark(tree, "univfd", splits=("test",)) if s.label == 0)
    assert reals == {**{s.name: SIZE[s.name] for s in UNIVFD if not s.reals}, "guided": 2, LAION: 2}
    samples = read_benchmark(tree, "univfd")
    assert all(p.startswith("test/diffusion_datasets/imagenet/0_real/") for p in photos(samples, label=0, generator="guided"))
    assert {s.family for s in samples if s.generator == LAION} == {"diffusion"}
    assert {s.family for s in samples if s.generator == "sitd"} == {"low-level"}


def test_each_set_is_evaluated_with_its_own_reals(tree):
    groups = by_generator(rows(read_benchmark(tree, "univfd")))
    for name, group in groups.items():
        assert Counter(r["label"] for r in group) == {0: SIZE[name], 1: SIZE[name]}
    of = {name: {r["photo"].split("/")[2] for r in groups[name] if not r["label"]} for name in ("guided", "ldm_100", "dalle")}
    assert of == {"guided": {"imagenet"}, "ldm_100": {"laion"}, "dalle": {"laion"}}
    sets = audit._test_sets(read_benchmark(tree, "univfd"))  # and so do the trivial baselines
    assert {name: len(group) for name, group in sets.items()} == {name: 2 * n for name, n in SIZE.items()}


def test_diffusion_sets_may_lie_beside_test_but_not_at_both_places(tmp_path):
    root = univfd(tmp_path / "a", "diffusion_datasets", PROGAN_4)
    samples = read_benchmark(root, "univfd")
    assert Counter(s.generator for s in samples if s.label and s.split == "test") == SIZE
    assert photos(samples, generator=LAION) == [f"diffusion_datasets/laion/0_real/{n}" for n in sorted(NAMES)]
    assert photos(read_benchmark(root, "univfd", splits=("test",)), generator="dalle")
    both(root / "test" / "diffusion_datasets" / "dalle", ("1_fake",))
    with pytest.raises(SDDError, match="set dalle lies in diffusion_datasets and in test/diffusion_datasets; keep one"):
        read_benchmark(root, "univfd")


def test_training_reals_and_fakes_are_progans_and_classes_choose_their_folders(tree):
    samples = read_benchmark(tree, "univfd", classes=PROGAN_4)
    for split in ("train", "val"):
        part = [s for s in samples if s.split == split]
        assert {(s.generator, s.family) for s in part} == {("progan", "gan")}
        assert Counter(s.label for s in part) == {0: 8, 1: 8}
        assert {s.photo.split("/")[2] for s in part} == set(PROGAN_4)
    assert len(photos(read_benchmark(tree, "univfd"), split="train")) == 20
    test = photos(samples, split="test", generator="progan")
    assert {p.split("/")[2] for p in test} == set(INSIDE["progan"])  # classes leave test alone


def test_a_class_that_is_not_there_is_named(tree):
    for classes in (("car", "zebra"), ("zebra",)):
        with pytest.raises(SDDError, match="train/progan has no images of class 'zebra'"):
            read_benchmark(tree, "univfd", classes=classes)
    assert read_benchmark(tree, "univfd", classes=("zebra",), splits=("test",))


def test_splits_keep_what_is_asked_for(tree):
    whole = read_benchmark(tree, "univfd")
    for splits in (("train",), ("val", "test")):
        assert read_benchmark(tree, "univfd", splits=splits) == [s for s in whole if s.split in splits]


def test_every_image_is_a_photograph_of_its_own_named_by_its_path(tree):
    samples = read_benchmark(tree, "univfd")
    assert len({s.photo for s in samples}) == len(samples)
    assert all(tree / s.photo == s.path and s.path.is_file() for s in samples)
    assert benchmark_root(tree) == tree


def test_every_image_file_of_the_19_sets_is_read_whatever_its_name(copy):
    for name in ("x.JPG", "y.v2.JPEG", "z.TiFF", "w.webp", "v.final.bmp"):
        (copy / "test" / "san" / "1_fake" / name).touch()
    (copy / "test" / "san" / "1_fake" / "notes.txt").touch()
    listing = list_benchmark(copy, "univfd")
    on_disk = {p for p in copy.rglob("*") if p.is_file() and p.suffix != ".txt"}
    assert {s.path for s in listing.samples} == on_disk and listing.other == {".txt": 1}
    assert len(photos(listing.samples, generator="san", label=1)) == 7


def test_sets_of_the_archive_that_are_not_among_the_19_are_not_read_and_named(copy):
    both(copy / "test" / "stylegan2" / "car")
    both(copy / "test" / "stylegan2" / "cat")
    both(copy / "test" / "whichfaceisreal")
    both(copy / "test" / "diffusion_datasets" / "ldm_200", ("0_real",))  # its reals are laion's
    picture(copy / "test" / "biggan" / "loose.png")
    picture(copy / "top.png")
    whole = list_benchmark(copy, "univfd")
    assert not {"stylegan2", "whichfaceisreal"} & {s.generator for s in whole.samples}
    assert dict(whole.unread) == {
        "test/stylegan2": 8,
        "test/whichfaceisreal": 4,
        "test/diffusion_datasets/ldm_200/0_real": 2,
        "test/biggan": 1,
        ".": 1,
    }


# --- synris


def test_synris_has_13_generators_in_order_each_with_its_own_reals(tmp_path):
    samples = read_benchmark(synris(tmp_path), "synris")
    groups = by_generator(rows(samples))
    assert list(groups) == [s.name for s in SYNRIS] and {s.family for s in samples} == {"text-to-image"}
    for name, group in groups.items():
        assert {r["photo"].split("/")[0] for r in group} == {name} and len(group) == 4


def test_synris_training_may_name_its_generator_or_not_and_unknown_ones_are_read(tmp_path):
    both(tmp_path / "train")
    both(tmp_path / "val" / "sd14")
    both(tmp_path / "flux")
    both(tmp_path / "test" / "sdxl" / "more")
    samples = read_benchmark(tmp_path, "synris")
    cells = {(s.split, s.generator, s.family) for s in samples}
    assert cells == {
        ("train", "stable_diffusion_v1", "text-to-image"),
        ("val", "sd14", "sd14"),
        ("test", "flux", "flux"),
        ("test", "sdxl", "text-to-image"),
    }
    picture(tmp_path / "0_real" / "x.png")  # of no generator
    assert list_benchmark(tmp_path, "synris").unread == {"0_real": 1}


# --- folder


@pytest.mark.parametrize("names", [("0_real", "1_fake"), ("real", "fake"), ("REAL", "Fake")])
def test_two_folders_alone_are_a_benchmark(tmp_path, names):
    both(tmp_path, names)
    samples = read_benchmark(tmp_path, "folder")
    cells = Counter((s.label, s.generator, s.family, s.split) for s in samples)
    assert cells == {(0, "camera", "camera", "test"): 2, (1, "fake", "fake", "test"): 2}
    assert photos(samples, label=0) == [f"{names[0]}/{n}" for n in sorted(NAMES)]


def test_folders_name_split_and_generator(tmp_path):
    both(tmp_path / "train" / "gan")
    both(tmp_path / "val" / "phone", ("real",))
    both(tmp_path / "dev" / "other", ("fake",))
    both(tmp_path / "test", ("0_real",))
    both(tmp_path / "test" / "diffusion" / "a", ("1_fake",))
    both(tmp_path / "test" / "diffusion" / "b")
    samples = read_benchmark(tmp_path, "folder")
    assert list(dict.fromkeys(s.split for s in samples)) == ["train", "val", "dev", "test"]
    test = by_generator(rows(samples))
    reals = {g: sorted({r["generator"] for r in group if not r["label"]}) for g, group in test.items()}
    assert reals == {"diffusion/a": ["camera"], "diffusion/b": ["camera", "diffusion/b"]}
    assert {r["generator"] for r in by_generator(rows(samples), "dev")["other"]} == {"phone", "other"}
    assert read_benchmark(tmp_path, "folder", splits=("dev",)) == [s for s in samples if s.split == "dev"]


def test_reals_of_a_folder_may_be_shared_by_name(tmp_path):
    for folder, names in (("a", ("1_fake",)), ("b", ("1_fake",)), ("c", ("0_real", "1_fake")), ("a+b", ("0_real",))):
        both(tmp_path / folder, names)
    groups = by_generator(rows(read_benchmark(tmp_path, "folder")))
    reals = {g: {r["generator"] for r in group if not r["label"]} for g, group in groups.items()}
    assert reals == {"a": {"a+b"}, "b": {"a+b"}, "c": {"c"}}
    both(tmp_path / "a+b", ("1_fake",))
    with pytest.raises(SDDError, match=r"generator 'a\+b' has a \+ in its name"):
        read_benchmark(tmp_path, "folder")


# --- manifest


def test_manifest_is_a_layout_too(tmp_path):
    (tmp_path / "m.csv").write_text("path,label,generator,split\na.png,0,camera,val\nb.png,1,gan,test\n")
    assert read_benchmark(tmp_path / "m.csv", "manifest") == read_manifest(tmp_path / "m.csv")
    assert [s.photo for s in read_benchmark(tmp_path / "m.csv", "manifest", splits=("test",))] == ["b.png"]
    assert benchmark_root(tmp_path / "m.csv") == tmp_path
    (tmp_path / "n.csv").write_text("path,label,generator,split,shows\na.png,0,camera,val,cat\n")
    assert column_labels(tmp_path / "n.csv", "shows") == {"a.png": "cat"}  # photographs are named alike


# --- trees of any layout


def test_order_is_that_of_names_whatever_the_file_system_says(tree, monkeypatch):
    expected, folders, scandir = read_benchmark(tree, "univfd"), list(places.walk(tree, lambda _: False)), os.scandir

    class Backwards(list):
        __enter__, __exit__ = lambda self: self, lambda *_: None

    monkeypatch.setattr(places.os, "scandir", lambda p: Backwards(sorted(scandir(p), key=lambda e: e.name, reverse=True)))
    assert read_benchmark(tree, "univfd") == expected and list(places.walk(tree, lambda _: False)) == folders
    for name in ("progan", "san"):
        own = photos(expected, split="test", generator=name)
        assert own == sorted(own)


def test_links_are_followed_and_a_loop_of_them_once(tmp_path):
    both(tmp_path / "far" / "gan")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "gan").symlink_to(tmp_path / "far" / "gan", target_is_directory=True)
    (tmp_path / "b" / "other").symlink_to(tmp_path / "far" / "gan", target_is_directory=True)
    picture(tmp_path / "far" / "one.png")
    (tmp_path / "b" / "gan" / "1_fake" / "link.png").symlink_to(tmp_path / "far" / "one.png")
    (tmp_path / "b" / "gan" / "0_real" / "loop").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "gan" / "0_real" / "self.png").symlink_to("self.png")
    samples = read_benchmark(tmp_path / "b", "folder")
    assert Counter(s.generator for s in samples) == {"gan": 6, "other": 6}
    assert "gan/0_real/self.png" in photos(samples) and "gan/1_fake/link.png" in photos(samples)


def test_no_file_is_opened_or_asked_for_anything(tmp_path, monkeypatch):
    both(tmp_path)
    calls, stat, lstat = Counter(), os.stat, os.lstat

    def count(name, call):
        return lambda *a, **k: calls.update([name]) or call(*a, **k)

    monkeypatch.setattr(os, "stat", count("stat", stat))
    monkeypatch.setattr(os, "lstat", count("lstat", lstat))
    monkeypatch.setattr("builtins.open", count("open", open))
    before = len(read_benchmark(tmp_path, "folder")), sum(calls.values())
    for i in range(300):
        (tmp_path / "1_fake" / f"{i}.png").symlink_to(f"{i + 1}.png") if i % 2 else (tmp_path / "1_fake" / f"{i}.png").touch()
    calls.clear()
    assert len(read_benchmark(tmp_path, "folder")) == before[0] + 300 and sum(calls.values()) == before[1]
    assert not calls["open"]


def broken(root: Path, what: str) -> None:
    """Harm a UnivFD tree."""
    test, diffusion = root / "test", root / "test" / "diffusion_datasets"
    if what == "a class of an own set":
        shutil.rmtree(test / "san" / "1_fake")
    elif what == "reals of one diffusion set":
        shutil.rmtree(diffusion / "imagenet")
    elif what == "all fakes of shared reals":
        for s in UNIVFD:
            if s.reals == "laion":
                shutil.rmtree(diffusion / s.name)
    elif what == "an empty class folder":
        shutil.rmtree(test / "progan" / "cat" / "0_real")
        (test / "progan" / "cat" / "0_real").mkdir()
    elif what == "fakes among reals":
        picture(test / "crn" / "0_real" / "1_fake" / "a.png")


@pytest.mark.parametrize(
    "what, said",
    [
        ("a class of an own set", "set san of test has no fake images; complete it or remove it"),
        ("reals of one diffusion set", "set guided of test has no real images"),
        ("all fakes of shared reals", "set ldm_200.*dalle of test has no fake images"),
        ("an empty class folder", "test/progan/cat/0_real holds no images; fill it or remove it"),
        ("fakes among reals", "0_real/1_fake/a.png lies in a folder of reals and in one of fakes"),
    ],
)
def test_a_set_that_is_not_whole_is_one_sentence(copy, what, said):
    broken(copy, what)
    with pytest.raises(SDDError, match=said):
        read_benchmark(copy, "univfd")


def test_a_missing_set_is_no_error_here(copy):
    shutil.rmtree(copy / "test" / "biggan")
    shutil.rmtree(copy / "train")
    samples = read_benchmark(copy, "univfd")
    assert "biggan" not in {s.generator for s in samples} and {s.split for s in samples} == {"val", "test"}


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("absent", "univfd"), "absent is no folder; layout univfd needs the root of {train,val}/progan"),
        (("file.csv", "synris"), "file.csv is no folder"),
        (("absent.csv", "manifest"), "manifest absent.csv is missing"),
        (("hollow", "manifest"), "hollow is a folder; name a manifest CSV, or its layout: univfd, synris, folder"),
        (("hollow", "univfd"), "hollow has no images of layout univfd; expected"),
        (("hollow", "synris"), "hollow has no images of layout synris; expected GENERATOR"),
        (("hollow", "folder"), "hollow has no images of layout folder"),
        (("half", "folder"), "set camera of test has no fake images"),
        (("half", "folder", None, ("train",)), "half has no images of layout folder in train"),
        (("lonely", "folder"), "set b of test has no real images"),
        (("hollow", "univf"), "layout 'univf' is unknown; use manifest, univfd, synris, folder"),
        (("hollow", "univfd", None, ("Test",)), "split 'Test' is unknown; use train, val, dev, test"),
        (("hollow", "folder", ("car",)), "layout folder has none; leave them out"),
        (("file.csv", "manifest", None, ("train",)), "file.csv has no images of layout manifest in train"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("hollow/1_fakes").mkdir(parents=True)
    Path("hollow/1_fakes/a.png").touch()
    both(Path("half"), ("0_real",))
    both(Path("lonely/a"))
    both(Path("lonely/b"), ("1_fake",))
    Path("file.csv").write_text("path,label,generator,split\na.png,0,camera,val\n")
    with pytest.raises(SDDError) as caught:
        read_benchmark(*arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch):
    both(tmp_path)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("0_real"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(places.os, "scandir", refuse)
    with pytest.raises(SDDError, match=r"0_real cannot be opened \(Permission denied\)"):
        read_benchmark(tmp_path, "folder")


def test_reals_that_name_no_fakes_stand_against_all():
    assert stand_against(["camera", "a", "b+c"], "abcd") == {
        "a": ["camera", "a"],
        "b": ["camera", "b+c"],
        "c": ["camera", "b+c"],
        "d": ["camera"],
    }
