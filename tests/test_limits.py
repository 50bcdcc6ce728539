"""Files from a stranger: nothing in them runs, and what they hold or claim is measured before any memory is taken for it."""

import io
import json
import os
import pickle
import resource
import shutil
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from models import tiny_checkpoint
from PIL import Image
from safetensors.torch import load, load_file, save_file

from sddlib import SDDError, data, embedded, limits, pictures, resume
from sddlib import __main__ as cli
from sddlib.baselines import baseline
from sddlib.baselines.lora import LoraLinear
from sddlib.data import read_csv, read_manifest
from sddlib.detector import Detector
from sddlib.evaluate import read_scores
from sddlib.executed import Places, read_executed
from sddlib.filefacts import file_facts
from sddlib.grids import read_grid
from sddlib.presets import get_preset
from sddlib.profiles import parse_overrides, read_json, read_profile
from sddlib.recipes import load_bank, load_scorer
from sddlib.registry import Registry
from sddlib.resume import States
from sddlib.weights import load_backbone

HUGE = 10**9
TINY = {"backbone": "tiny", "weights": "random"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "m.safetensors")


@pytest.fixture
def file(saved, tmp_path):
    """A checkpoint of one's own to spoil."""
    shutil.copy(saved.with_suffix(".json"), tmp_path)
    return Path(shutil.copy(saved, tmp_path))


def refusal(function, *arguments) -> str:
    """The one sentence with which a call is refused."""
    with pytest.raises(SDDError) as caught:
        function(*arguments)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 1500
    return said


def edit(file: Path, **changes) -> None:
    record = file.with_suffix(".json")
    record.write_text(json.dumps(json.loads(record.read_text()) | changes))


# --- nothing runs


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def payloads(sprung: Path) -> dict[str, bytes]:
    """A trap as a plain pickle, as torch saves one today, and as it did before."""
    found = {"plain": pickle.dumps({"f_s": Trap(sprung)})}
    for name, zipped in (("torch", True), ("old", False)):
        stream = io.BytesIO()
        torch.save({"f_s": Trap(sprung)}, stream, _use_new_zipfile_serialization=zipped)
        found[name] = stream.getvalue()
    return found


def test_the_trap_springs_where_a_pickle_is_opened(tmp_path):
    for name, content in payloads(tmp_path / "sprung").items():
        if name == "plain":
            pickle.loads(content)
        else:
            torch.load(io.BytesIO(content), weights_only=False)
        (tmp_path / "sprung").rmdir()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["plain", "torch", "old"])
def test_no_pickle_runs_as_checkpoint_weights_bank_or_state(kind, file, tmp_path, capsys):
    sprung = tmp_path / "sprung"
    content = payloads(sprung)[kind]
    file.write_bytes(content)
    edit(file, sha256=embedded.sha256(file))
    assert "m.safetensors is broken" in refusal(load_scorer, file)
    for name in ("w.safetensors", "w.pt", "w.pth", "w.bin", "w"):
        (tmp_path / name).write_bytes(content)
        assert name in refusal(load_backbone, "tiny", tmp_path / name)
    (tmp_path / "bank.safetensors").write_bytes(content)
    (tmp_path / "bank.json").write_text('{"settings": {}, "empty": 0}')
    assert load_bank(tmp_path / "bank.safetensors", {}) is None and "is broken" in capsys.readouterr().out
    states = States(tmp_path / "s", "key", say=print)
    states.save(1, {"w": torch.ones(1)})
    (state,) = states.files()
    state.write_bytes(sha256(content).hexdigest().encode() + b"\n" + content)  # its checksum is right
    assert "holds more than tensors and plain values, so it is not opened" in refusal(states.load)
    head = tmp_path / "head.pth"
    head.write_bytes(content)
    assert "is damaged or holds more than plain tensors" in refusal(baseline("univfd")(32, **TINY).load_head, head)
    assert not sprung.exists()


def test_a_map_that_is_a_pickle_is_not_opened(tmp_path):
    import numpy as np

    from sddlib.baselines.diffusion import load_maps

    np.save(tmp_path / "m.npy", np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    assert "m.npy is broken" in refusal(load_maps, tmp_path / "m.npy") and not (tmp_path / "sprung").exists()


def test_packed_weights_are_refused_before_they_are_unpacked(tmp_path):
    torch.save({"w": torch.zeros(2_000_000)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "p.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    assert (tmp_path / "p.pt").stat().st_size < 50_000
    assert "p.pt holds packed parts" in refusal(load_backbone, "tiny", tmp_path / "p.pt")


# --- sizes


def sparse(path: Path, size: int) -> Path:
    """A file of this size that takes no disk."""
    path.touch()
    os.truncate(path, size)
    return path


def test_files_are_measured_before_they_are_read(tmp_path, file, capsys):
    sizes = dict.fromkeys(("a.json", "index.jsonl"), limits.JSON) | dict.fromkeys(("p.yaml", "g.yaml"), limits.YAML)
    sizes |= dict.fromkeys(("w.safetensors", "w.pt"), limits.TENSORS) | {"m.csv": limits.CSV, "a.webp": pictures.MAX_BYTES}
    at = {name: sparse(tmp_path / name, limit + 1) for name, limit in sizes.items()}
    (tmp_path / "notebooks").mkdir()
    sparse(tmp_path / "notebooks" / "03_train.ipynb", limits.JSON + 1)
    for said in (
        refusal(read_json, at["a.json"]),
        refusal(read_profile, str(at["p.yaml"])),
        refusal(read_grid, at["g.yaml"]),
        refusal(read_csv, at["m.csv"]),
        refusal(read_manifest, at["m.csv"]),
        refusal(read_scores, at["m.csv"]),
        refusal(load_backbone, "tiny", at["w.safetensors"]),
        refusal(load_backbone, "tiny", at["w.pt"]),
        refusal(Registry(at["index.jsonl"]).read),
        read_executed(tmp_path, Places(tmp_path))[1]["03_train"],
    ):
        assert "MiB, and of such a file at most" in said
    assert (
        "1024 MiB is too large" in refusal(data.decode, at["a.webp"]) and "too large" in file_facts(str(at["a.webp"]))["error"]
    )
    os.truncate(file, limits.TENSORS + 1)
    assert "at most 16384 are read" in refusal(load_scorer, file)
    sparse(file.with_suffix(".json"), limits.JSON + 1)
    assert "at most 64 are read" in refusal(load_scorer, file)
    states = States(tmp_path / "s", "key")
    states.save(1, {})
    sparse(states.files()[0], limits.TENSORS + 1)
    assert "at most 16384 are read" in refusal(states.load)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refusal(limits.check_size, tmp_path / "pipe", 1)
    assert "no regular file" in refusal(load_backbone, "tiny", tmp_path / "pipe")
    assert "no regular file" in refusal(load_backbone, "tiny", Path("/dev/zero"))


def laughs(depth: int = 12) -> str:
    """Ten names, each nine times the one before."""
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, depth)]
    return "\n".join(lines)


def test_yaml_with_aliases_is_refused_where_it_is_read(tmp_path):
    (tmp_path / "bomb.yaml").write_text(f"common:\n  {laughs().replace(chr(10), chr(10) + '  ')}\n")
    assert "has an alias, *a0" in refusal(read_profile, str(tmp_path / "bomb.yaml"))
    assert "has an alias, *a0" in refusal(read_grid, tmp_path / "bomb.yaml")
    assert "is not a valid YAML value" in refusal(parse_overrides, ["epochs={a: &a [1], b: *a}"])
    assert limits.parse_yaml("{a: &a [1], b: 2}") == {"a": [1], "b": 2}  # a name that nothing uses is harmless


def test_yaml_makes_no_objects(tmp_path):
    (tmp_path / "p.yaml").write_text(f"common: !!python/object/apply:os.mkdir [{tmp_path / 'sprung'}]\n")
    assert "is not valid YAML" in refusal(read_profile, str(tmp_path / "p.yaml")) and not (tmp_path / "sprung").exists()


def test_csv_cells_are_counted(tmp_path, monkeypatch):
    """A header of many names makes every short row as long: seven megabytes would become gigabytes."""
    monkeypatch.setattr(data, "CELLS", 1000)
    for name, text in (
        ("rows", "a,b\n" + "1,2\n" * 501),
        ("columns", ",".join(f"c{i}" for i in range(600)) + "\n" + "1\n" * 2),
    ):
        (tmp_path / name).write_text(text)
        assert "has more than 1,000 cells" in refusal(read_csv, tmp_path / name)
    (tmp_path / "fits").write_text("a,b\n" + "1,2\n" * 500)
    assert len(read_csv(tmp_path / "fits")) == 500
    (tmp_path / "field").write_text("a,b\n" + "x" * 131_073 + ",2\n")
    assert "field larger than field limit" in refusal(read_csv, tmp_path / "field")


def test_a_grid_of_too_many_runs_is_counted_and_not_made(tmp_path):
    lists = "\n".join(f"  {name}: {list(range(1, 1000))}" for name in ("seed", "epochs", "batch", "patience", "accumulate"))
    (tmp_path / "g.yaml").write_text(f'notebooks: ["03"]\ngrid:\n{lists}\n')
    assert "runs, and 10000 are the most" in refusal(read_grid, tmp_path / "g.yaml")


# --- claims


@pytest.fixture
def little():
    """Memory that this process may take beyond what it has: far less than any claim below stands for."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10 < 500


FIELDS = ("M", "width", "heads", "F_low", "lora_r", "lora_alpha", "lora_blocks")


@pytest.mark.parametrize("field", [*FIELDS, "channels", "image_size"])
@pytest.mark.parametrize("size", [HUGE, 10**30])
def test_sizes_that_a_json_claims_are_refused_by_their_names(field, size, file, little):
    about = json.loads(file.with_suffix(".json").read_text())
    if field == "image_size":
        edit(file, image_size=16 * size)
    else:
        edit(file, preset=about["preset"] | {field: [size] * 3 if field == "channels" else size})
    assert field in refusal(load_scorer, file)


@pytest.mark.parametrize("change", [{"width": 2**14}, {"channels": [4096] * 3}, {"F_low": 2**14}, {"lora_r": 1024}])
def test_sizes_that_are_possible_but_not_the_files_take_no_memory(change, file, little, monkeypatch):
    """Of all of them together whatever is made is a shape: no model with these sizes is ever filled."""
    made = []
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", checked(torch.nn.Module.load_state_dict, made))
    about = json.loads(file.with_suffix(".json").read_text())
    edit(file, preset=about["preset"] | change)
    assert "does not fit its own description" in refusal(load_scorer, file)
    assert made and all(made)


def checked(load, made: list):
    """load_state_dict that notes whether what the file's tensors go into is nothing but shapes."""

    def noted(self, state, *arguments, **options):
        if "f_s" in state:
            made.append(all(p.is_meta for n, p in self.named_parameters() if n.split(".")[0] in ("enhancement", "head")))
        return load(self, state, *arguments, **options)

    return noted


def test_long_lists_are_refused_before_they_become_modules(file, little):
    about = json.loads(file.with_suffix(".json").read_text())
    edit(file, preset=about["preset"] | {"channels": [1] * 1_000_000})
    assert "channels has 1000000 values; give 1 to 16" in refusal(load_scorer, file)


def test_the_largest_that_the_paper_and_its_release_need_are_possible():
    assert get_preset("release").M == 5000 and get_preset("paper", M=65536, width=4096, heads=64).M == 65536


@pytest.mark.parametrize(
    "kind, options, claim",
    [
        ("npr", {"width": 4}, {"width": HUGE}),
        ("npr", {"width": 4}, {"stages": HUGE}),
        ("cnnspot", {"width": 4}, {"width": HUGE}),
        ("patchfor", {"width": 4}, {"stages": HUGE}),
        ("cooccurrence", {"width": 4}, {"width": 10**30}),
        ("fatformer", TINY | {"width": 8}, {"width": HUGE}),
        ("fatformer", TINY | {"width": 8}, {"stages": HUGE}),
        ("fatformer", TINY | {"width": 8, "text": "random", "contexts": 2}, {"contexts": HUGE}),
        ("univfd", TINY, {"backbone": "ViT-bigG-14"}),
    ],
)
def test_sizes_that_a_baseline_claims_are_refused(kind, options, claim, tmp_path, little):
    cls = baseline(kind)
    cls(32, **options).save(tmp_path / "b.safetensors", {"threshold": 0.5})
    about = json.loads((tmp_path / "b.json").read_text())
    edit(tmp_path / "b.safetensors", options=about["options"] | claim)
    said = refusal(load_scorer, tmp_path / "b.safetensors")
    assert "does not fit its own description" in said and "alloc" not in said  # no memory was asked for
    edit(tmp_path / "b.safetensors", options=about["options"], image_size=HUGE)
    assert "image_size" in refusal(load_scorer, tmp_path / "b.safetensors")


def test_random_weights_of_the_largest_models_are_refused(file, little):
    edit(file, backbone="ViT-bigG-14")
    assert "with random weights would fill" in refusal(load_scorer, file)


@pytest.mark.parametrize("name", ["backbone", "weights", "preset", "kind", "image_size", "fingerprint", "sha256"])
@pytest.mark.parametrize("value", [None, 3, -1.5, True, [], ["tiny"], {"a": 1}, "\x1b[31m", "x" * 10_000])
def test_facts_of_any_type_are_one_sentence(name, value, file):
    edit(file, **{name: value})
    with pytest.raises(SDDError):
        load_scorer(file)


@pytest.mark.parametrize("value", [None, 3, [], "x", {"n_real": "many", "real_acc_val": {}}, {"n_real": 10**30}])
@pytest.mark.parametrize("name", ["val", "generators", "manifest", "threshold", "bank"])
def test_facts_that_are_only_shown_may_be_of_any_type(name, value, file, tmp_path, capsys):
    Image.new("RGB", (70, 70)).save(tmp_path / "a.png")
    edit(file, **{name: value})
    code = cli.main(["score", str(tmp_path / "a.png"), "--checkpoint", str(file), "--out", str(tmp_path / "v.csv")])
    assert code == (2 if name == "threshold" else 0) and "Traceback" not in capsys.readouterr().err


def test_what_comes_back_has_no_mere_shapes_and_learns(file, tmp_path):
    """Loaded parameters are the file's own, those of CLIP stay frozen."""
    for path in (file, tiny_checkpoint(tmp_path / "lora.safetensors", LoraLinear)):
        model, stored = load_scorer(path), load_file(path)
        assert not any(t.is_meta for t in model.state_dict().values())
        learned = {n for n, p in model.named_parameters() if p.requires_grad}
        assert learned == {k for k in stored if k in dict(model.named_parameters())}
    assert isinstance(load_scorer(file), Detector)


def test_tensors_of_another_type_are_one_sentence(file):
    state = load(file.read_bytes())  # not mapped from the file that is written over
    save_file(state | {"head.bias": torch.zeros(1, dtype=torch.int64)}, file, {"kind": "sdd"})
    edit(file, sha256=embedded.sha256(file))
    assert "does not fit its own description" in refusal(load_scorer, file)


def test_a_state_of_a_stranger_still_needs_its_checksum(tmp_path):
    states = States(tmp_path, "key", say=lambda text: None)
    states.save(1, {"w": torch.ones(1)})
    states.files()[0].write_bytes(b"0" * 64 + b"\n" + pickle.dumps(1))
    assert states.load() is None and not states.files()
    assert resume.KEPT == 2
