"""Nothing is lost by kills, and nothing grows with the number of images: short forms of what `make soak` runs for minutes."""

import kills
import numpy as np
from elsewhere import Elsewhere

from sddlib.data import read_csv


def test_a_scoring_killed_at_random_points_and_resumed_gives_the_csv_of_one_go_byte_for_byte(tmp_path):
    call = [kills.pictures(tmp_path / "pictures", 300, 0), "--checkpoint", kills.checkpoint(tmp_path)]
    whole = Elsewhere(tmp_path / "whole", kills.score, [*call, "--out", tmp_path / "whole.csv", "--batch", 8])
    assert whole.wait() == kills.DONE, whole.err.read_text()
    out = tmp_path / "out.csv"
    rows = kills.score_through_kills(call, out, 300, 8, 3, np.random.default_rng(0))
    assert rows == sorted(rows) and out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    errors = [bool(row["error"]) for row in read_csv(out)]
    assert len(errors) == 300 and 10 <= sum(errors) <= 15
    assert not [*tmp_path.glob("out.csv.*")]


def test_a_training_killed_at_random_points_ends_with_the_weights_of_an_undisturbed_one_bit_for_bit(tmp_path):
    steps, resumed, whole = kills.train_through_kills(tmp_path, 8, 3, np.random.default_rng(0))
    assert len(steps) == 3 and steps[-1] > 0 and kills.same_weights(resumed, whole)


def test_memory_does_not_grow_with_the_images_that_are_scored(tmp_path):
    call = [kills.pictures(tmp_path / "pictures", 2000, 0), "--checkpoint", kills.checkpoint(tmp_path)]
    series = kills.rss_while_scoring(call, tmp_path / "out.csv", 16)
    assert kills.growth(series, 2000) <= 0.05, series


def test_a_folder_of_many_names_is_scanned_and_every_one_counted(tmp_path):
    found = kills.scanned(kills.names(tmp_path / "names", 5000), tmp_path / "said")
    assert (found["pictures"], found["others"]) == (4000, 1000) and found["MiB"] < 10
