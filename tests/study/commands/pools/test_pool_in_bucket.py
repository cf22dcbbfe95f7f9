"""``python -m study data`` on shards in a bucket."""

from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.data.pool.pool import Pool
from runners.store.location import Location
from tests.runners.store.bucket import Bucket
from tests.study.commands.pools.conftest import command, write_retrieval_set
from tests.study.conftest import Run

pytestmark = pytest.mark.slow


def test_shards_in_a_bucket_are_indexed_scored_and_shown(
    owner: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(owner / "cache"))
    built = Pool.open(owner / "pools" / "icons")
    bucket = Bucket(monkeypatch, "bucket")
    try:
        Location("s3://bucket").put(built.path / "shards" / "00000.tar", "shards/00000.tar")

        assert "pools/theirs: 300 pairs; left out: none" in run(command("pools/theirs --from"))

        said = run("data score pools/theirs --with column:popularity --name popular")
        assert "shards at: s3://bucket/shards" in said
        assert "ranked by the score of popular; 300 pairs have one:" in said
        theirs = Pool.open(owner / "pools" / "theirs")
        assert theirs.shards == {"00000.tar": built.shards["shards/00000.tar"]}
        assert sorted(theirs.frame["hash"]) == sorted(built.frame["hash"])
        files = sorted(path.name for path in theirs.path.iterdir())
        assert files == [".lock", "index", "pool.json", "vocabulary.txt"]
        assert "no can't be read: no file is below" in run(
            "data build pools/x --from s3://bucket/no --in-place", code=2
        )
        assert "s3://bucket/shards has no pool.json" in run("data info s3://bucket/shards", code=2)

        assert "s3://bucket/pool: 300 pairs; left out: none" in run(
            command("s3://bucket/pool --from s3://bucket/shards")
        )
        assert "s3://bucket/shards: 300 pairs" in run(command("build s3://bucket/shards --in-place"))
        said = run("data score s3://bucket/pool --with column:popularity --name popular")
        assert "ranked by the score of popular; 300 pairs have one:" in said
        assert run("data info s3://bucket/pool --workers 1") == said
        exists = run("data build s3://bucket/pool --from s3://bucket/other --workers 1", code=2)
        assert exists.startswith("study: pool s3://bucket/other can't be read: no file is below")
        table = run("data build s3://bucket/new --from icons.csv --workers 1")
        assert table.startswith("s3://bucket/new: 300 pairs; left out: ")

        write_retrieval_set(owner / "cards", built.path / "shards" / "00000.tar")
        for file in filter(Path.is_file, (owner / "cards").rglob("*")):
            Location("s3://bucket").put(
                file, f"sets/wds_cards/{file.relative_to(owner / 'cards').as_posix()}"
            )
        said = run("data eval-sets s3://bucket/sets --workers 1")
        assert said.startswith("cards: retrieval, 40 images, ")
        assert "in s3://bucket/sets/wds_cards\n" in said
        assert "s3://bucket/none can't be read: no file is below" in run(
            "data eval-sets s3://bucket/none", code=2
        )
        assert "s3://misspelt/sets can't be read: The specified bucket does not exist" in run(
            "data eval-sets s3://misspelt/sets", code=2
        )
    finally:
        bucket.go_away()
