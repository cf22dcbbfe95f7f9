"""Download of the images of a table of URLs, by img2dataset in a process of its own."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from runners.data.build.table_file import check_columns, columns_and_rows
from runners.store.files import locked, new_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Options of a download."""

    program: str  # command of img2dataset, possibly of another environment
    url: str
    caption: str
    image_size: int  # side in pixels that images are resized to
    resize_mode: str
    retries: int
    timeout_s: int
    user_agent: str  # added to a browser's user agent
    workers: int


def download(table: Path, folder: Path, how: Download) -> pd.DataFrame:
    """Download into shards; return failed downloads as ``shard`` (the URL), ``key`` and ``reason``.

    Finished shards are not downloaded again. The X-Robots-Tag values noai, noimageai, noindex and
    noimageindex are obeyed.

    Raises:
        ValueError: The table lacks a column, img2dataset is not installed or fails, or the folder has shards
            of another table or of other options.
    """
    names, _ = columns_and_rows(table)
    check_columns(names, table, how.url, how.caption)
    others = [name for name in names if name not in {how.url, how.caption, "key", "width", "height"}]
    program = shutil.which(how.program) or shutil.which(how.program, path=str(Path(sys.executable).parent))
    if program is None:
        raise ValueError(
            f"{how.program} is not installed; pip install 'img2dataset>=1.47' (from Python 3.13 on also "
            "standard-imghdr), here or in a separate environment, and give its command with --img2dataset"
        )
    options = {
        "url_list": table.resolve(),
        "input_format": table.name.partition(".")[2] if table.suffix == ".gz" else table.suffix[1:],
        "url_col": how.url,
        "caption_col": how.caption,
        "output_format": "webdataset",
        "output_folder": folder.resolve(),
        "processes_count": how.workers,
        "thread_count": 32,
        "image_size": how.image_size,
        "resize_mode": how.resize_mode,
        "resize_only_if_bigger": True,
        "retries": how.retries,
        "timeout": how.timeout_s,
        "user_agent_token": how.user_agent,
        "save_additional_columns": json.dumps(others),
        "incremental_mode": "incremental",
    }
    folder.mkdir(parents=True, exist_ok=True)
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    with locked(folder / ".lock", wait_s=0) as lock:
        if lock is None:
            raise ValueError(f"an earlier download into {folder} is still running; wait for it, or end it")
        _require_same(folder, table, how)
        # img2dataset inherits the lock, because it may outlive this process.
        ended = subprocess.run(  # noqa: S603 - the user's own command
            command, check=False, capture_output=True, text=True, pass_fds=[lock.fileno()]
        )
    (folder / "img2dataset.log").write_text(ended.stdout + ended.stderr, encoding="utf-8")
    done = sorted(folder.glob("*.parquet"))
    if ended.returncode or not done:
        last = (ended.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise ValueError(f"img2dataset failed: {last}; its full output is in {folder / 'img2dataset.log'}")
    columns = ["url", "key", "status", "error_message"]
    results = (pd.read_parquet(path, columns=columns) for path in done)
    failures = [some[some["status"] != "success"] for some in results]
    failed = pd.concat(failures, ignore_index=True).fillna("").astype("str")
    reason = failed["status"].str.replace("_", " ") + ": " + failed["error_message"]
    return pd.DataFrame({"shard": failed["url"], "key": failed["key"], "reason": reason}, dtype="str")


def _require_same(folder: Path, table: Path, how: Download) -> None:
    """Record what a folder is a download of, since img2dataset keeps finished shards of any other."""
    with table.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()
    facts = {
        "content of the table": digest, "--url": how.url, "--caption": how.caption,
        "--image-size": how.image_size, "--resize-mode": how.resize_mode,
    }  # fmt: skip
    before, record = facts, folder / "download-options"  # not *.json, all of which img2dataset reads
    if record.exists() and any(folder.glob("*.tar")):
        try:
            before = dict(json.loads(record.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{record} is damaged ({error}); delete {folder}") from error
    for name, value in facts.items():
        if before.get(name) != value:
            raise ValueError(
                f"{folder} holds shards that were downloaded with another {name} ({before.get(name)}, now "
                f"{value}); delete the folder, or choose another path of the pool"
            )
    with new_file(record) as path:
        path.write_text(json.dumps(facts), encoding="utf-8")
