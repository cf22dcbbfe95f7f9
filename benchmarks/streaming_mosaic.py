"""MosaicML's streaming from a bucket, for ``benchmarks/streaming.py --mosaic``.

It needs an environment of its own with mosaicml-streaming, torchvision and webdataset, because its
dependencies exclude versions that this project's need. ``write SHARDS FOLDER`` converts tar shards to its
format; ``read URL PAIRS SIZE`` prints the pairs per second of one worker process with an empty cache.
"""

import sys
import tempfile
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import webdataset
from PIL import Image
from streaming import MDSWriter, StreamingDataset
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

BATCH = 64


def write(shards: Path, folder: Path) -> None:
    """Convert shards to pieces of the same size."""
    size = max(path.stat().st_size for path in shards.glob("*.tar"))
    with MDSWriter(out=str(folder), columns={"jpg": "bytes", "txt": "str"}, size_limit=size) as file:
        for sample in webdataset.WebDataset(sorted(map(str, shards.glob("*.tar"))), shardshuffle=False):
            file.write({"jpg": sample["jpg"], "txt": sample["txt"].decode()})


def decoded(samples: list[dict[str, Any]], size: int) -> tuple[Tensor, Tensor]:
    """Return a batch of images, resized as by the other loaders, and the lengths of their captions."""
    resize = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.PILToTensor(),
        ]
    )
    images = [Image.open(BytesIO(sample["jpg"])).convert("RGB") for sample in samples]
    lengths = torch.tensor([[len(sample["txt"])] for sample in samples])
    return torch.stack([resize(image) for image in images]), lengths


def read(url: str, pairs: int, size: int) -> float:
    """Return pairs per second from the first request on."""
    with tempfile.TemporaryDirectory() as cache:
        data = StreamingDataset(
            remote=url, local=cache, shuffle=True, shuffle_seed=0, batch_size=BATCH, download_retry=8
        )
        loader = DataLoader(data, batch_size=BATCH, num_workers=1, collate_fn=partial(decoded, size=size))
        began, seen = time.perf_counter(), 0
        for images, _ in loader:
            seen += len(images)
            if seen >= pairs // BATCH * BATCH:
                break
        return seen / (time.perf_counter() - began)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        torch.set_num_threads(1)
        print(read(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
