"""The paper's tables as data: every number is there, means are recomputed, impossible accuracies are found."""

from collections import Counter

import pytest

from sddlib import SDDError
from sddlib.paper import agreement, correct_images, impossible_accuracies, read_tables, recomputed_means


@pytest.fixture(scope="module")
def cells():
    return read_tables()


def test_every_row_and_column_of_tables_1_to_4_is_there(cells):
    count = Counter(c.table for c in cells)
    assert count == {1: 9 * 20, 2: 9 * 20, 3: 9 * 14, 4: 12}
    assert len({(c.table, c.method, c.metric, c.set) for c in cells}) == len(cells)
    assert len({c.set for c in cells if c.table == 1}) == 20
    assert {c.set for c in cells if c.table == 1} == {c.set for c in cells if c.table == 2}
    assert {c.method: c.text for c in cells if c.metric == "ticks"} == {"row 1": "1", "row 2": "2", "row 3": "2", "row 4": "3"}
    refs = {(c.method, c.ref) for c in cells if c.table in (1, 2)}
    assert {("Freq-spec", "WIFS2019"), ("FatFormer", "CVPR2024"), ("Ours", "")} < refs and len(refs) == 9


@pytest.mark.parametrize(
    "table, method, name, text",
    [
        (1, "Ours", "san", "93.10"),
        (1, "Freq-spec", "cyclegan", "100.0"),
        (2, "Ours", "san", "77.45"),
        (2, "Dire", "glide_50_27", "72.70"),  # printed with a comma
        (2, "FatFormer", "progan", "99.89"),
        (3, "Ours", "kandinsky2", "97.13"),
        (3, "UnivFD", "dalle3", "48.0"),
        (3, "PatchFor", "stable_cascade", "57.4"),
    ],
)
def test_numbers_stand_where_the_paper_has_them(cells, table, method, name, text):
    assert [c.text for c in cells if (c.table, c.method, c.set) == (table, method, name)] == [text]


def test_printed_means_are_recomputed(cells):
    found = {(r["table"], r["method"]): r for r in recomputed_means(cells)}
    assert len(found) == 27
    assert found[1, "Ours"]["mean"] == pytest.approx(98.517, abs=5e-4) and found[1, "Ours"]["agreement"] == "truncated"
    assert found[2, "Ours"]["mean"] == pytest.approx(93.611, abs=5e-4) and found[2, "Ours"]["agreement"] == "rounded"
    wrong = {key for key, r in found.items() if r["agreement"] == "differs"}
    assert wrong == {(1, "UnivFD"), (2, "Freq-spec"), (2, "Dire")}


def test_table_4_rounds_what_table_1_truncates(cells):
    (full,) = [c.text for c in cells if (c.table, c.method, c.metric) == (4, "row 4", "AP")]
    assert full == "98.52" and agreement(98.51684, full) == "rounded" and agreement(98.51684, "98.51") == "truncated"
    assert agreement(98.51684, "98.50") == agreement(98.51684, "98.53") == "differs"


def test_impossible_accuracies_are_found(cells):
    assert correct_images("83.61", 360) == 301 and correct_images("91.82", 5405) == 4963
    assert correct_images("77.45", 438) is None and correct_images("100.0", 438) == 438 and correct_images("0.00", 7) == 0
    found = impossible_accuracies(cells)
    assert [c.set for c in found if c.method == "Ours"] == ["san"]
    assert not [c for c in found if c.method == "FatFormer"]
    assert sum(c.method == "UnivFD" for c in found) == 10  # copied from the UnivFD paper, whose sets are smaller


def test_missing_or_foreign_tables_are_one_sentence(tmp_path):
    with pytest.raises(SDDError, match="are missing"):
        read_tables(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(SDDError, match="must hold the columns"):
        read_tables(tmp_path / "a.csv")
