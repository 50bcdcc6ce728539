"""The bench times what it says: a step that trains LoRA whatever was scored before, and scoring that trains nothing."""

import re
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from sddlib import SDDError, bench, bench_growth, bench_loader, timing
from sddlib.backbone import Backbone
from sddlib.baselines.lora import LoraLinear
from sddlib.bench_bank import CHUNK, made_up, stream_memory
from sddlib.data import decode
from sddlib.optim import trainable
from sddlib.presets import PRESETS, get_preset
from sddlib.weights import load_backbone


def test_training_and_scoring_do_not_get_in_each_others_way():
    model = LoraLinear(Backbone(load_backbone("tiny", "random"), 64), get_preset("paper"))
    x, y = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])
    step, forward = bench.training_step(model, x, y), bench.scoring(model, x)
    forward()
    assert not model.training and all(layer.merged for layer in model.backbone.lora_layers().values())
    step()
    assert all(p.grad is not None for p in trainable(model).values())
    before = {n: p.clone() for n, p in trainable(model).items()}
    forward()
    assert all(torch.equal(p, before[n]) for n, p in trainable(model).items())


def test_bench_prints_every_ratio(capsys, monkeypatch):
    monkeypatch.setitem(PRESETS, "release", get_preset("release", M=300, width=64))  # as every size here, for time
    monkeypatch.setattr(bench_growth, "SIZES", (256, 512))
    arguments = "--backbone tiny --image-size 64 --batch 2 --pairs 1 --tokens 20000 --precision bfloat16"
    assert bench.main(arguments.split()) == 0
    said = capsys.readouterr().out
    for preset in ("paper", "release"):
        assert re.search(rf"{preset}: SDD training step / LoRA-CLIP \+ linear head: \d+\.\d\d", said)
        assert re.search(rf"{preset}: SDD scoring / bare encoder: \d+\.\d\d", said)
    assert re.search(r"scoring 4n images / n images, n = 1: \d+\.\d\d \[.*\], linear is 4", said)
    assert re.search(r"scoring with M 512 / M 256: \d+\.\d\d \[.*\], operations \d+\.\d\d; bank queries computed 1 time", said)
    assert len(re.findall(r"2 loading workers, .*: [\d,]+ images/s, (?:ahead of|behind) the encoder's", said)) == 2
    assert re.search(r"JS \+ sampling [\d,]+ tokens/s / scipy, a call a token, [\d,]+: \d+\.\d", said)
    assert re.search(r"20,000 tokens streamed: \d+ MiB above the interpreter", said)


def test_sizes_that_cannot_be_timed_are_refused():
    for arguments, said in ((["--pairs", "0"], "whole numbers above 0"), (["--batch", "1"], "--batch is 2 at least")):
        with pytest.raises(SDDError, match=said):
            bench.main(arguments)


def test_ratio_is_that_of_the_times_and_leaves_out_the_first_call():
    calls = []

    def slow():
        time.sleep(0.03 if calls else 0.3)
        calls.append(1)

    mid, low, high, seconds = timing.ratio(slow, lambda: time.sleep(0.01), 3)
    assert len(calls) == 4 and low <= mid <= high < 10 and 2 < mid and 0.01 <= seconds < 0.02


def test_scoring_computes_the_bank_queries_once(capsys):
    def encoder():
        return Backbone(load_backbone("tiny", "random"), 64)

    bench_growth.with_bank(encoder, get_preset("paper", width=32, heads=4), torch.randn(2, 3, 64, 64), 3)
    assert capsys.readouterr().out.count("bank queries computed 1 time(s) in 4 passes") == 2


def test_loaders_rate_counts_every_image_and_the_files_are_photographs_of_their_size():
    with bench_loader.photographs(count=3) as samples:
        pictures = [decode(s.path) for s in samples]
        assert [p.size for p in pictures] == [(256, 256)] * 3 and not np.array_equal(*map(np.asarray, pictures[:2]))
        assert all(2_000 < s.path.stat().st_size < 60_000 for s in samples)
        start = time.perf_counter()
        rate = bench_loader.delivered(samples, 64, 4, batches=10)
        assert 40 / (time.perf_counter() - start) < rate < 1e5
    assert not samples[0].path.exists()


def test_memory_sees_what_was_there_for_a_moment_only():
    with timing.Memory() as memory:
        held = np.ones(50_000_000)
        time.sleep(0.05)
        del held
    assert 390e6 < memory.growth < 500e6


def test_memory_of_a_stream_does_not_grow_with_its_chunks():
    """1.6 GB of tokens go by; the M chosen sit in nearly every chunk, and none of these may stay."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert 16 < pool.submit(stream_memory, 400_000, 1024, 256).result() < 500


def test_the_stream_has_as_many_tokens_as_it_says_and_no_two_chunks_alike():
    chunks = list(made_up(2 * CHUNK + 5, 8))
    assert sum(map(len, chunks)) == 2 * CHUNK + 5 and not torch.equal(chunks[0], chunks[1])
