"""Batches have the pairs' ids and the columns that a strategy names, and nothing else is read."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from runners.data.build.rescore import set_column
from runners.data.pool.pool import Pool
from runners.data.reading import training_set
from runners.data.reading.training_data import Source
from runners.data.reading.training_set import StreamedSet, open_data
from tests.runners.data.pool.test_damage import flip_byte
from tests.runners.data.reading.test_training_set import lengths

NAMES = ("width", "tokens", "score", "recaption", "teacher_image")


@pytest.fixture(scope="module")
def pools(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> list[Pool]:
    """Return two pools with columns; a pair of the first is damaged."""
    made = []
    for number in range(2):
        copy = Pool.open(shutil.copytree(pool.path, tmp_path_factory.mktemp("pools") / str(number)))
        rows = np.arange(copy.count) + 10_000 * number
        texts = np.array([None if row % 7 == 0 else "a" * (row % 50) for row in rows.tolist()], object)
        arrays = np.stack([rows % 2048, rows % 5], axis=1).astype(np.float32)
        # In two stretches, which the index cuts into its own parts.
        halves = {"recaption": np.array_split(texts, 2), "teacher_image": np.array_split(arrays, 2)}
        made.append(set_column(copy, halves))
    flip_byte(made[0], 8)
    return made


@pytest.mark.parametrize("kind", ["in memory", "streamed"])
def test_batches_have_ids_and_columns_of_the_pairs_that_were_read(
    pools: list[Pool], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_set, "IN_MEMORY_BYTES", 0 if kind == "streamed" else 2**30)
    sources = [Source(pool=each, rows=np.arange(0, 200, 2), share=1) for each in pools]
    streamed = StreamedSet(sources=sources, image_size=32, tokens=lengths, columns=NAMES, tolerance=0.05)
    data = open_data(streamed)
    frames = [each.frame.iloc[:200:2] for each in pools]
    seen = []
    for batch in data.batches(seed=3, batch_size=20, first_step=1, steps=10):
        assert set(batch.columns) == set(NAMES)
        columns = {name: column.tolist() for name, column in batch.columns.items()}
        for pair, number in enumerate(batch.ids.tolist()):
            row = frames[number // 100].iloc[number % 100]
            assert batch.tokens[pair].tolist() == [len(row["caption"])]
            text = row["caption" if pd.isna(row["recaption"]) else "recaption"]
            assert columns["recaption"][pair] == [len(text)]
            assert columns["width"][pair] == row["width"]
            assert columns["tokens"][pair] == row["tokens"]
            assert columns["score"][pair] == row["score"]
            assert columns["teacher_image"][pair] == np.frombuffer(row["teacher_image"], np.float16).tolist()
        seen += batch.ids.tolist()
    assert len(set(seen)) > 150
    assert 4 not in seen  # the damaged pair, which is the pair that replaces it
    assert seen.count(5) >= 1
    plain = open_data(replace(streamed, columns=()))
    assert not next(plain.batches(seed=3, batch_size=20, first_step=1, steps=10)).columns


def test_a_column_replaces_an_earlier_one_of_its_name_and_no_other(pools: list[Pool]) -> None:
    before, values = pools[1], np.arange(pools[1].count, dtype=np.float32)
    assert set(before.columns) == {"recaption", "teacher_image"}

    after = set_column(before, {"recaption": [values]})

    assert after.fingerprint == before.fingerprint  # trials without the column keep their ids
    assert after.columns["recaption"].content != before.columns["recaption"].content
    assert after.columns["teacher_image"] == before.columns["teacher_image"]
    assert after.frame["recaption"].tolist() == values.tolist()
    widths = {name: after.column_facts[name].width for name in ("caption", "recaption", "teacher_image")}
    assert widths == {"caption": 0, "recaption": 1, "teacher_image": 2}
    assert before.column_facts["recaption"].width == 0
    parts = [replace(part, added=()) for part in after.index.parts]  # as of shards that came later
    grown = replace(after, index=replace(after.index, parts=parts))
    assert set(after.column_facts) - set(grown.column_facts) == {"recaption", "teacher_image"}
    for name in ("Caption", "Kind"):  # of the index, and of the tables that become copies of subsets
        with pytest.raises(ValueError, match=f"has a column {name.lower()}; choose another name than {name}"):
            set_column(before, {name: [values]})
    with pytest.raises(ValueError, match="pairs need a value each, but there are fewer"):
        set_column(before, {"other": [values[1:]]})
