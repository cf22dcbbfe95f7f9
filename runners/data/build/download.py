"""Download of the images of a table of URLs, by img2dataset in a process of its own."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from runners.data.build.table_file import check_columns, columns_and_rows
from runners.store.files import locked, new_file


def download(table: Path, folder: Path, program: str, how: Mapping[str, object]) -> pd.DataFrame:
    """Download into shards; return failed downloads as ``shard`` (the URL), ``key`` and ``reason``.

    ``program`` is the command of img2dataset, possibly of another environment, and ``how`` its options.
    Finished shards are not downloaded again. The X-Robots-Tag values noai, noimageai, noindex and
    noimageindex are obeyed.

    Raises:
        ValueError: The table lacks a column, img2dataset is not installed or fails, or the folder has shards
            of another table or of other options.
    """
    names, _ = columns_and_rows(table)
    input_columns = [str(how[name]) for name in ("url_col", "caption_col")]
    check_columns(names, table, *input_columns)
    executable = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if executable is None:
        raise ValueError(
            f"{program} is not installed; pip install 'img2dataset>=1.47' (from Python 3.13 on also "
            "standard-imghdr), here or in a separate environment, and give its command with --img2dataset"
        )
    options = {
        **how,
        "url_list": table.resolve(),
        "input_format": table.name.partition(".")[2] if table.suffix == ".gz" else table.suffix[1:],
        "output_format": "webdataset",
        "output_folder": folder.resolve(),
        "thread_count": 32,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "save_additional_columns": json.dumps(
            [name for name in names if name not in {*input_columns, "key", "width", "height"}]
        ),
        "incremental_mode": "incremental",
    }
    folder.mkdir(parents=True, exist_ok=True)
    command = [executable, *(f"--{name}={value}" for name, value in options.items())]
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


def _require_same(folder: Path, table: Path, how: Mapping[str, object]) -> None:
    """Record what a folder is a download of, since img2dataset keeps finished shards of any other."""
    with table.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b").hexdigest()
    options = {"--url": "url_col", "--caption": "caption_col", "--image-size": "image_size"}
    facts = {"content of the table": digest, **{option: how[name] for option, name in options.items()}}
    record = folder / "download-options"  # not *.json, all of which img2dataset reads
    finished = record.exists() and any(folder.glob("*.tar"))
    before = json.loads(record.read_text(encoding="utf-8")) if finished else facts
    if changed := next((name for name, value in facts.items() if before.get(name) != value), None):
        raise ValueError(
            f"{folder} holds shards that were downloaded with another {changed} ({before.get(changed)}, now "
            f"{facts[changed]}); delete the folder, or choose another path of the pool"
        )
    with new_file(record) as path:
        path.write_text(json.dumps(facts), encoding="utf-8")
