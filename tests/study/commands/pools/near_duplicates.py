"""An evaluation set of images that a pool has, unchanged and changed."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from runners.data.pool.samples import read_samples
from runners.data.pool.shards import close_shard, write_sample


def write_retrieval_set(folder: Path, shard: Path) -> None:
    """Write 40 pairs as an evaluation set: ten each unchanged, as other PNG, as JPEG and as larger JPEG."""
    (folder / "test").mkdir(parents=True)
    (folder / "dataset_type.txt").write_text("retrieval")
    (folder / "test" / "nshards.txt").write_text("1")
    with (folder / "test" / "0.tar").open("wb") as file:
        for number, (key, members) in zip(range(40), read_samples(shard), strict=False):
            as_is, (kind, changed) = members["png"][1], (("png", BytesIO()), ("jpg", BytesIO()))[number // 20]
            with Image.open(BytesIO(as_is)) as opened:
                image = opened.convert("RGB")
            larger = image.resize((72, 72), Image.Resampling.LANCZOS)
            if kind == "png":
                image.save(changed, "PNG", compress_level=1)  # other bytes, the same pixels
            else:
                (image if number < 30 else larger).save(changed, "JPEG", quality=80)
            content = as_is if number < 10 else changed.getvalue()
            write_sample(file, key, {kind: content, "txt": members["txt"][1]})
        close_shard(file)
