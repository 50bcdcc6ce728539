"""The explorer without a browser: edits are exact, what is shown is what decides, names are harmless, a slip costs nothing."""

import asyncio
import base64
import csv
import io
import json
import shutil
from datetime import datetime
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from models import enliven
from PIL import Image
from trees import picture

from sddlib import SDDError, history, panels, recipes, tiles, uploads, widgets
from sddlib.backbone import Backbone
from sddlib.baselines.lora import LoraLinear
from sddlib.controls import OWN, labels
from sddlib.data import decode, read_manifest, to_input
from sddlib.debounce import Debounced
from sddlib.detector import Detector
from sddlib.edits import Edits, edit
from sddlib.explore import (
    attention_spread,
    bundled,
    bundled_errors,
    cam_branches,
    error_rates,
    find_checkpoints,
    look,
    nearest,
    open_subject,
)
from sddlib.figures_explore import explored
from sddlib.origins import read_origins, written
from sddlib.presets import get_preset
from sddlib.profiles import ROOT
from sddlib.recipes import encoder
from sddlib.visual import cam
from sddlib.weights import load_backbone

SMALL = {"M": 10, "width": 32, "heads": 4, "channels": (4, 6, 8), "F_low": 12}
SOURCE = {"backbone": "tiny", "weights": "random", "image_size": 64}
VAL = {"real_acc_val": 82 / 85, "n_real": 85, "fake_acc_val": 0.8, "n_fake": 10}
NOW = datetime.now()
EVIL = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A benchmark of noise, and a run folder with a detector whose bank is drawn from it."""
    folder = tmp_path_factory.mktemp("explore")
    rows = [("train", f"t{i}", "camera") for i in range(3)]
    rows += [("test", f"{p}_0", g) for p in "abc" for g in ("camera", "seen", "other")] + [("test", "d_0", "camera")]
    lines = ["path,label,generator,split,photo"]
    for split, name, generator in rows:
        path = picture(folder / split / generator / f"{name}.png", (100, 80)).relative_to(folder)
        lines.append(f"{path},{int(generator != 'camera')},{generator},{split},{name[0]}{split}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    samples = read_manifest(folder / "manifest.csv")
    preset, run = get_preset("paper", **SMALL), folder / "run"
    bank = recipes.sample_bank(encoder(SOURCE, preset.norm), samples, preset, 0)
    files = recipes.bank_files(samples, folder)
    torch.manual_seed(0)
    model = enliven(Detector(Backbone(load_backbone("tiny", "random"), 64, preset.norm), bank.f_s, preset))
    (run / "checkpoints").mkdir(parents=True)
    facts = {"backbone": "tiny", "weights": "random", "threshold": 0.5, "val": VAL, "generators": ["seen"]}
    facts |= {"manifest": str(folder / "manifest.csv"), "bank": written(bank.index, files, 16)}
    checkpoint = run / "checkpoints" / "sdd.safetensors"
    model.save(checkpoint, facts)
    recipes.save_bank(bank, run / "bank.safetensors", {}, samples, folder)
    return SimpleNamespace(folder=folder, run=run, checkpoint=checkpoint, samples=samples, bank=bank, facts=facts)


@pytest.fixture(scope="module")
def subject(place):
    return open_subject(place.checkpoint, bundled(place.folder / "manifest.csv", 2))


def without(place, tmp_path, *names: str, **changes):
    """The checkpoint in a run folder of its own, its JSON changed."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    path = shutil.copy(place.checkpoint, folder / "sdd.safetensors")
    about = json.loads(place.checkpoint.with_suffix(".json").read_text())
    kept = {k: v for k, v in about.items() if k not in names} | changes
    path.with_suffix(".json").write_text(json.dumps(kept))
    return path


def noise(w: int, h: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(w * h).integers(0, 256, (h, w, 3), dtype=np.uint8))


# --- edits


@pytest.mark.parametrize(
    "edits",
    [Edits(), Edits(jpeg=30), Edits(blur=3.7), Edits(blur=2, jpeg=70, left=33, top=81), Edits(crop=70, resize=60, blur=1)],
)
def test_changes_around_the_window_are_those_of_the_whole_picture(edits):
    part, whole = (
        edit(noise(700, 500), edits, 64),
        edit(noise(700, 500), edits, min(edit(noise(700, 500), edits, 64).picture.size)),
    )
    left, top, right, bottom = (at - whole.window[i % 2] for i, at in enumerate(part.window))
    np.testing.assert_array_equal(part.seen, np.asarray(whole.seen)[top:bottom, left:right])


@pytest.mark.parametrize("size", [(200, 150), (64, 64), (90, 40), (30, 77)])
def test_without_edits_the_score_is_the_scorers(subject, size):
    assert look(subject, noise(*size), Edits()).score == pytest.approx(subject.model.score(noise(*size)), abs=1e-9)


def test_every_edit_does_what_it_says():
    p = noise(300, 200)
    assert edit(p, Edits(), 64).window == (118, 68, 182, 132)
    assert edit(p, Edits(left=0, top=100), 64).window == (0, 136, 64, 200)
    assert edit(p, Edits(crop=50), 64).picture.size == (150, 100) and edit(p, Edits(resize=200), 64).picture.size == (600, 400)
    assert edit(p, Edits(crop=50, left=0, top=0), 64).picture.tobytes() == p.crop((0, 0, 150, 100)).tobytes()
    plain, blurred, pressed = (np.asarray(edit(p, e, 64).seen).astype(int) for e in (Edits(), Edits(blur=2), Edits(jpeg=10)))
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.3 * np.abs(np.diff(plain, axis=1)).mean()
    assert 0 < np.abs(pressed - plain).mean() < 100


@pytest.mark.parametrize("wrong", [{"crop": 0}, {"resize": 1000}, {"blur": -1}, {"jpeg": 101}, {"left": -1}, {"top": 101}])
def test_impossible_edits_are_refused(wrong):
    with pytest.raises(SDDError, match="is impossible"):
        Edits(**wrong)


# --- where bank tokens come from


def test_origins_lead_to_the_tokens_of_the_bank(subject, place):
    clip = encoder(SOURCE, subject.model.preset.norm)
    assert len({o.file for o in subject.origins}) > 1
    for token, origin in zip(subject.model.f_s, subject.origins, strict=True):
        found = clip(to_input(decode(place.folder / origin.file), 64)[None])[0, 1 + origin.patch]
        torch.testing.assert_close(found, token)


def test_a_silent_checkpoint_is_helped_out_by_its_run_if_the_bank_is_the_same(place, subject, tmp_path):
    path = without(place, tmp_path, "bank")
    model = Detector.load(path)
    assert read_origins(model, path) is None
    for suffix in (".safetensors", ".json"):
        shutil.copy(place.run / f"bank{suffix}", path.parent.parent)
    assert read_origins(model, path) == subject.origins
    model.f_s.add_(1)
    assert read_origins(model, path) is None


@pytest.mark.parametrize("bank", [["a#1"], ["a"] * 10, [3] * 10, ["a#16"] * 10, "a#1"])
def test_origins_that_do_not_fit_are_one_sentence(place, tmp_path, bank):
    path = without(place, tmp_path, bank=bank)
    with pytest.raises(SDDError, match="'bank' does not name a file and a patch for each"):
        read_origins(Detector.load(path), path)


def test_the_shipped_checkpoint_names_the_photographs_of_its_tokens():
    path = ROOT / "data" / "checkpoints" / "sdd-mini.safetensors"
    model = Detector.load(path)
    origins = read_origins(model, path)
    reals = {
        s.path.relative_to(ROOT / "data").as_posix()
        for s in read_manifest(ROOT / "data" / "manifest.csv", ("train",))
        if not s.label
    }
    assert {o.file for o in origins} <= reals and len(set(origins)) == 256
    clip = encoder({k: model.about[k] for k in SOURCE}, model.preset.norm)
    some = list(dict.fromkeys(o.file for o in origins))[::60]
    x = torch.stack([to_input(decode(ROOT / "data" / file), 112) for file in some])
    with torch.inference_mode():
        tokens = dict(zip(some, clip(x)[:, 1:], strict=True))
    checked = [(j, o) for j, o in enumerate(origins) if o.file in tokens]
    assert len(checked) >= 3
    for j, o in checked:  # half precision moves a token by a thousandth of its length
        assert (tokens[o.file][o.patch] - model.f_s[j]).norm() < 3e-3 * model.f_s[j].norm()


# --- what is found


def test_nearest_tokens_are_those_of_the_most_discrepant_patches_by_distance():
    f_s = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    V_H = torch.tensor([[9.0, 1], [1, 8], [5, 4]])
    first, second = nearest(V_H, f_s, torch.tensor([0.1, 0.9, 0.5]), 2, 2)
    assert (first.patch, first.index) == (1, [2, 0]) and first.D_s == pytest.approx(0.9)
    assert second.patch == 2 and set(second.index) == {0, 1}
    assert first.distance[0] == pytest.approx(5**0.5 / 50**0.5)  # the bank's spread is the root of 50


def test_attention_is_even_over_the_bank_where_all_its_rows_are_alike_and_not_where_one_stands_out(subject):
    x, mha = torch.randn(2, 3, 64, 64), subject.model.reconstruction.mha4
    kept = mha.q.weight.detach().clone(), mha.q.bias.detach().clone()
    try:
        with torch.no_grad():
            mha.q.weight.zero_()
            mha.q.bias.zero_()
            assert attention_spread(subject.model, x) == pytest.approx(10, abs=1e-3)
            mha.q.bias.normal_(0, 1000)
            assert attention_spread(subject.model, x) < 5
    finally:
        with torch.no_grad():
            mha.q.weight.copy_(kept[0])
            mha.q.bias.copy_(kept[1])


def test_expected_errors_are_those_of_the_json_with_intervals():
    alarms, misses = error_rates({"val": VAL})
    assert (alarms["wrong"], alarms["n"], misses["wrong"], misses["n"]) == (3, 85, 2, 10)
    assert (alarms["low"], alarms["high"]) == (pytest.approx(0.0121, abs=1e-4), pytest.approx(0.0987, abs=1e-4))
    assert error_rates({}) == error_rates({"val": {}}) == []


def test_examples_are_whole_photographs_and_their_verdicts_are_counted(subject, place):
    shown = [(r["sample"].path.stem, r["sample"].generator) for r in subject.examples]
    assert shown == [(p, g) for p in ("a_0", "c_0") for g in ("camera", "seen", "other")]
    counted = bundled_errors(subject)
    assert {k: n for k, (_, n) in counted.items()} == {
        "reals": 2,
        "fakes of the seen generator": 2,
        "fakes of unseen generators": 2,
    }
    wrong = sum((r["score"] > 0.5) != bool(r["sample"].label) for r in subject.examples)
    assert sum(k for k, _ in counted.values()) == wrong
    assert subject.bright >= max(r["D_s"] for r in subject.examples) > 0
    with pytest.raises(SDDError, match="no test images"):
        bundled(_only_train(place), 1)


def _only_train(place):
    lines = (place.folder / "manifest.csv").read_text().splitlines()
    path = place.folder / "train.csv"
    path.write_text("\n".join(line for line in lines if "test" not in line) + "\n")
    return path


def test_checkpoints_are_found_once_each_with_the_first_in_front(place):
    found = find_checkpoints(place.checkpoint, place.run)
    assert list(found)[0] == "run/sdd" and "sdd-mini" in found
    assert len(set(found.values())) == len(found)


def test_a_checkpoint_without_a_threshold_is_refused(place, tmp_path):
    with pytest.raises(SDDError, match="names no threshold in 0..1"):
        open_subject(without(place, tmp_path, "threshold"), place.samples[:1])


def test_a_baseline_has_a_score_and_a_cam_and_says_what_it_has_not(place, tmp_path):
    preset = get_preset("paper", **SMALL)
    model = LoraLinear(Backbone(load_backbone("tiny", "random"), 64, preset.norm), preset)
    model.save(tmp_path / "lora.safetensors", place.facts)
    lora = open_subject(tmp_path / "lora.safetensors", place.samples[:2])
    seen = look(lora, noise(80, 80), Edits())
    assert seen.D_s is None and seen.near == [] and 0 < seen.score < 1 and cam_branches(lora.model) == ("tokens",)
    assert "a lora checkpoint has no D_s" in panels.maps(seen, lora) and "no bank" in panels.near(seen, lora)
    assert cam(lora.model, seen.x, "tokens").raw.any()
    explored("x", seen, {"tokens": cam(lora.model, seen.x, "tokens")}, lora)
    plt.close("all")


# --- what is shown


def test_panels_show_verdict_score_errors_and_maps(subject):
    seen = look(subject, noise(90, 70), Edits(), 2, 3)
    text = panels.card(seen, subject)
    assert ("FAKE" in text) == (seen.score > 0.5) and panels.shown(seen.score) in text
    assert "3 of 85" in text and "3.5% [1.2%, 9.9%]" in text and "2 of 10" in text
    assert f"D_s, mean {seen.D_s.mean():.3f}" in panels.maps(seen, subject)
    assert panels.near(seen, subject).count("<img") == 2 * (1 + 3)
    found = cam(subject.model, seen.x, "tokens")
    assert "follows when you rest" in panels.maps(seen, subject)
    assert ("empty" in panels.maps(seen, subject, found)) == (found.peak[0] == 0)


def test_tokens_without_an_image_are_named_by_number(subject, place, tmp_path):
    seen = look(subject, noise(90, 70), Edits(), 2, 3)
    for gone in (None, subject.origins):
        there = SimpleNamespace(**vars(subject) | {"origins": gone, "root": tmp_path})
        text = panels.near(seen, there)
        assert text.count("<img") == 2 and text.count("not here</div>") == 6
        assert all(f"#{j + 1}, " in text for row in seen.near for j in row.index)


def test_maps_have_one_scale_whatever_the_picture():
    low, high = tiles.heat(np.full((2, 2), 0.2), 1.0), tiles.heat(np.array([[0.2, 1.0], [0.5, 0.0]]), 1.0)
    np.testing.assert_array_equal(low[0, 0], high[0, 0])


def test_a_png_holds_the_pixels_and_the_frame_lies_around_the_window():
    pixels = np.asarray(noise(7, 5))
    content = base64.b64decode(tiles.uri(pixels).partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    side = tiles.TILE
    small = tiles.framed(Image.new("RGB", (2 * side, side)), (side, 0, 2 * side, side))
    assert small.shape == (side // 2, side, 3) and not small[:, : side // 2].any()
    assert (small[[0, -1], side // 2 :] == tiles.FRAME).all() and (small[:, [side // 2, -1]] == tiles.FRAME).all()


def test_names_from_outside_are_harmless(subject, place, tmp_path):
    seen = look(subject, noise(90, 70), Edits())
    row = {"number": 1} | history.entry(EVIL, Edits(), seen, subject)
    origins = [o._replace(file=EVIL) for o in subject.origins]
    shown = history.table([row]) + panels.near(seen, SimpleNamespace(**vars(subject) | {"origins": origins}))
    explorer = widgets.Explorer(place.checkpoint, tmp_path, bundled(place.folder / "manifest.csv", 1))
    explorer.say(EVIL)
    shown += explorer.c.shown["message"].value
    assert "<img src=x" not in shown and shown.count("&lt;img src=x") >= 3


@pytest.mark.parametrize("score, text", [(0.25, "0.2500"), (1e-7, "1.0e-07"), (1 - 1e-5, "1 - 1.0e-05")])
def test_scores_keep_the_digits_that_move(score, text):
    assert panels.shown(score) == text


def test_figure_gives_back_what_it_shows(subject):
    seen = look(subject, noise(90, 70), Edits(), 2, 3)
    cams = {b: cam(subject.model, seen.x, b) for b in cam_branches(subject.model)}
    fig, data = explored("a.png", seen, cams, subject)
    assert data == {"look": seen, "cams": cams} and "a.png" in fig.get_suptitle()
    np.testing.assert_array_equal(fig.axes[2].images[0].get_array(), seen.D_s)
    plt.close("all")


# --- history and uploads


def test_history_is_numbered_without_repeats_and_comes_back_from_its_csv(subject, tmp_path):
    rows = []
    for jpeg in (0, 50, 50, 20):
        history.add(
            rows, history.entry('a, "b".png', Edits(jpeg=jpeg), look(subject, noise(90, 70), Edits(jpeg=jpeg)), subject)
        )
    assert [r["number"] for r in rows] == [1, 2, 3]
    path = history.save(rows, tmp_path / "new")
    link = base64.b64decode(history.link(rows).partition("base64,")[2].partition('"')[0]).decode()
    assert path.read_text() == link
    back = list(csv.DictReader(io.StringIO(link)))
    assert [(r["image"], r["jpeg"]) for r in back] == [('a, "b".png', j) for j in ("0", "50", "20")]
    assert [float(r["score"]) for r in back] == [r["score"] for r in rows]
    assert history.changes(rows[1]) == "JPEG 50" and history.changes(rows[0]) == "none"


def content(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def test_uploads_are_decoded_like_files():
    exif = Image.Exif()
    exif[0x112] = 6  # turned
    assert uploads.picture_of("C:\\x\\a.jpg", content(noise(40, 20), "JPEG", exif=exif.tobytes()))[1].size == (20, 40)
    name, clear = uploads.picture_of("../b.png", content(Image.new("RGBA", (8, 8), (0, 0, 0, 0))))
    assert name == "b.png" and clear.getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(SDDError, match=r"^notes.txt: not an image file that can be read$"):
        uploads.picture_of("notes.txt", b"hello")


def test_a_dropped_file_comes_through_as_it_is_and_a_large_one_with_its_cure():
    text = json.dumps({"name": "a.png", "content": base64.b64encode(b"\x00\xff").decode()})
    assert uploads.dropped(text) == ("a.png", b"\x00\xff")
    with pytest.raises(SDDError, match="12.0 MB and at most 7 MB can be dropped; name its path"):
        uploads.dropped(json.dumps({"name": "a.png", "size": 12_000_000}))
    for broken in ("x", "[]", '{"name": "a"}', '{"name": "a", "content": "?"}'):
        with pytest.raises(SDDError, match="no file that the browser could read"):
            uploads.dropped(broken)


# --- the widget


def play(place, tmp_path, act, image=None, **options):
    """An explorer in a running loop, after `act(explorer)` and a rest."""

    async def session():
        explorer = widgets.Explorer(place.checkpoint, tmp_path, bundled(place.folder / "manifest.csv", 1), image, **options)
        await act(explorer)
        await rest(explorer)
        return explorer

    return asyncio.run(session())


async def rest(explorer) -> None:
    if explorer.soon.task is not None:
        await asyncio.gather(explorer.soon.task, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(widgets, "DELAY", 0.01)
    monkeypatch.setattr(widgets, "REST", 0.01)


def file_of(name: str, data: bytes) -> tuple:
    return ({"name": name, "type": "", "size": len(data), "content": memoryview(data), "last_modified": NOW},)


def test_the_first_picture_needs_no_click(place, tmp_path):
    explorer = play(place, tmp_path, lambda e: asyncio.sleep(0))
    (row,) = explorer.rows
    assert row["image"] == "a_0.png" and row["score"] == pytest.approx(explorer.subject.examples[0]["score"], abs=1e-6)
    assert all(explorer.c.shown[name].value for name in ("card", "maps", "near", "table", "message"))
    assert "CAM towards fake (tokens)" in explorer.c.shown["maps"].value


def test_a_moved_slider_is_scored_once_when_it_rests(place, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(widgets, "look", lambda *a, **k: calls.append(a[2]) or look(*a, **k))

    async def act(explorer):
        for sigma in (0.5, 1.0, 1.5, 2.0):
            explorer.c.sliders["blur"].value = sigma

    explorer = play(place, tmp_path, act)
    assert calls == [Edits(), Edits(blur=2.0)]
    assert [r["blur"] for r in explorer.rows] == [0, 2.0] and explorer.rows[0]["score"] != explorer.rows[1]["score"]
    assert panels.shown(explorer.rows[1]["score"]) in explorer.c.shown["card"].value


def test_uploads_and_drops_are_shown_and_leave_the_widget_at_once(place, tmp_path):
    async def act(explorer):
        explorer.c.upload.value = file_of("mine.png", content(noise(77, 88)))
        assert explorer.c.upload.value == ()
        await rest(explorer)
        text = json.dumps({"name": "other.png", "content": base64.b64encode(content(noise(66, 99))).decode()})
        explorer.c.drop.value = text
        assert explorer.c.drop.value == ""

    explorer = play(place, tmp_path, act)
    assert [r["image"] for r in explorer.rows] == ["a_0.png", "mine.png", "other.png"]
    assert explorer.picture.size == (66, 99) and explorer.c.picture.value == OWN


def test_a_broken_upload_is_one_sentence_and_everything_else_stays(place, tmp_path):
    async def act(explorer):
        explorer.c.upload.value = file_of("b.png", content(noise(70, 70)))
        await rest(explorer)
        explorer.c.upload.value = file_of(EVIL, b"no image")

    explorer = play(place, tmp_path, act)
    said = explorer.c.shown["message"].value
    assert "not an image file that can be read" in said and "wrong" in said and "<img" not in said
    assert explorer.name == "b.png" and len(explorer.rows) == 2 and explorer.own[0] == "b.png" and explorer.c.upload.value == ()


def test_another_checkpoint_is_looked_with_and_a_broken_one_leaves_the_old(place, tmp_path):
    other = without(place, tmp_path, threshold=0.0)
    broken = tmp_path / "run" / "checkpoints" / "broken.safetensors"
    shutil.copy(other.with_suffix(".json"), broken.with_suffix(".json"))
    broken.write_bytes(b"x")

    async def act(explorer):
        explorer.c.checkpoint.value = broken
        assert "is broken" in explorer.c.shown["message"].value and explorer.c.checkpoint.value == place.checkpoint.resolve()
        explorer.c.checkpoint.value = other
        await rest(explorer)

    explorer = play(place, tmp_path / "run", act)
    assert explorer.subject.path == other and explorer.rows[-1]["threshold"] == 0 and explorer.rows[-1]["verdict"] == "fake"


def test_pictures_are_chosen_changes_undone_and_the_history_saved(place, tmp_path):
    async def act(explorer):
        explorer.c.picture.value = OWN
        assert "no picture of yours yet" in explorer.c.shown["message"].value
        explorer.c.picture.value = 2
        explorer.c.sliders["jpeg"].value = 10
        await rest(explorer)
        explorer.c.reset.click()
        assert explorer.edits == Edits()
        await rest(explorer)
        explorer.c.branch.value = "pixels"
        await rest(explorer)
        explorer.c.save.click()

    explorer = play(place, tmp_path, act)
    rows = list(csv.DictReader((tmp_path / history.NAME).open(newline="")))
    assert [(r["number"], r["jpeg"]) for r in rows] == [("1", "0"), ("2", "10"), ("3", "0")]
    assert str(tmp_path) in explorer.c.shown["saved"].value and "(pixels)" in explorer.c.shown["maps"].value


def test_a_named_picture_comes_first_and_menus_tell_seen_from_unseen(place, tmp_path):
    image = picture(tmp_path / "own.png", (90, 70))
    explorer = play(place, tmp_path, lambda e: asyncio.sleep(0), image)
    assert explorer.rows[0]["image"] == "own.png" and explorer.c.picture.value == OWN
    texts = [text for text, _ in labels(bundled(place.folder / "manifest.csv", 1), ["seen"])]
    assert texts == ["a_0 | camera (real)", "a_0 | seen (fake, seen generator)", "a_0 | other (fake, unseen)"]


def test_a_later_call_stops_an_earlier_one_at_its_next_wait():
    done = []

    async def session():
        async def job():
            done.append("score")
            await asyncio.sleep(0.05)
            done.append("cam")

        soon = Debounced(job, 0.01)
        soon()
        soon()
        await asyncio.sleep(0.03)
        soon()
        await asyncio.sleep(0.15)

    asyncio.run(session())
    assert done == ["score", "score", "cam"]
