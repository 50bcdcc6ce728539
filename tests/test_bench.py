"""The bench times what it says: a step that trains LoRA whatever was scored before, and scoring that trains nothing."""

import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from sddlib import bench
from sddlib.backbone import Backbone
from sddlib.baselines.lora import LoraLinear
from sddlib.bench_bank import CHUNK, made_up, stream_memory
from sddlib.optim import trainable
from sddlib.presets import get_preset
from sddlib.weights import load_backbone


def test_training_and_scoring_do_not_get_in_each_others_way():
    model = LoraLinear(Backbone(load_backbone("tiny", "random"), 64), get_preset("paper"))
    x, y = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])
    step, forward = bench.training_step(model, x, y), bench.scoring(model, x, y)
    forward()
    assert not model.training and all(layer.merged for layer in model.backbone.lora_layers().values())
    step()
    assert all(p.grad is not None for p in trainable(model).values())
    before = {n: p.clone() for n, p in trainable(model).items()}
    forward()
    assert all(torch.equal(p, before[n]) for n, p in trainable(model).items())


def test_bench_prints_both_ratios(capsys):
    assert bench.main(["--backbone", "tiny", "--image-size", "64", "--batch", "2", "--pairs", "1", "--tokens", "20000"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"SDD training step / LoRA-CLIP \+ linear head: \d+\.\d\d", said)
    assert re.search(r"SDD scoring / bare encoder: \d+\.\d\d", said)
    assert re.search(r"JS \+ sampling [\d,]+ tokens/s / scipy, a call a token, [\d,]+: \d+\.\d", said)
    assert re.search(r"20,000 tokens streamed: \d+ MiB above the interpreter", said)


def test_memory_of_a_stream_does_not_grow_with_its_chunks():
    """1.6 GB of tokens go by; the M chosen sit in nearly every chunk, and none of these may stay."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(stream_memory, 400_000, 1024, 256).result() < 500


def test_the_stream_has_as_many_tokens_as_it_says_and_no_two_chunks_alike():
    chunks = list(made_up(2 * CHUNK + 5, 8))
    assert sum(map(len, chunks)) == 2 * CHUNK + 5 and not torch.equal(chunks[0], chunks[1])
