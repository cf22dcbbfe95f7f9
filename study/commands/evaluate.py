"""``python -m study evaluate``: evaluate any open_clip model on any evaluation sets."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from budgets.quantity import finite_or_none
from study.commands.command import number, output_file, show, show_all

NAME = "evaluate"
HELP = "evaluate any open_clip model: zero-shot, retrieval, linear and few-shot probes"
EXAMPLES: tuple[str, ...] = (
    "exported --sets sets --probe",
    "openai --model ViT-B-32 --sets /data/wds/imagenet1k --json openai.json",
)

_LABELS = {
    "top1": "zero-shot top-1",
    "top5": "zero-shot top-5",
    "mean_per_class": "zero-shot mean per class",
    "probe_top1": "linear probe top-1",
}


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "checkpoint", help="an exported folder, a checkpoint file, or a tag of open_clip's weights"
    )
    parser.add_argument(
        "--model",
        default="",
        help="architecture of a file or tag: a name in the catalogue or in open_clip, or a JSON file",
    )
    parser.add_argument(
        "--sets",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="evaluation sets, or folders of sets",
    )
    parser.add_argument("--probe", action="store_true", help="fit probes where a set has a training split")
    parser.add_argument(
        "--pool",
        type=Path,
        metavar="FOLDER",
        help="the pool that a trial's weights were trained on, for its vocabulary",
    )
    parser.add_argument(
        "--mean",
        type=number(0, 1),
        nargs=3,
        default=(),
        help="mean of the pixels (0 to 1) per colour channel (default: the model's own)",
    )
    parser.add_argument(
        "--std",
        type=number(0.001, 10),
        nargs=3,
        default=(),
        help="standard deviation of the pixels per colour channel",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="compute precision (default: fp32, as trials are evaluated)",
    )
    parser.add_argument("--device", help="cpu or cuda (default: cuda if available)")
    parser.add_argument(
        "--threads",
        type=number(0, 1024, int),
        default=0,
        help="threads to compute and decode with (default: one per core)",
    )
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write all results to this JSON file"
    )
    parser.add_argument("--csv", type=output_file, metavar="FILE", help="write the table to this CSV file")


def run(options: Namespace) -> int:
    """Evaluate the model, print the table, and write the requested files."""
    import pandas as pd
    import torch

    from budgets.cost.flops import CONVENTION
    from budgets.quantity import format_flops, plural
    from runners.data.evaluation.evaluation_set import SetFolder, describe_evaluation_set
    from runners.data.evaluation.evaluation_suite import found_sets
    from runners.data.index.writing import VERSIONS
    from runners.data.pool.pool import Pool
    from runners.evaluate.evaluate import evaluate_model, forward_flops
    from runners.host.process import set_gpu_arithmetic
    from runners.models.load_model import ModelSource, device_named, load_model
    from runners.results import EVALUATION_PRECISION, EVALUATION_VERSION, csv_text
    from runners.store.files import new_file, write_json
    from runners.trials.trial_files import require_own_weights

    if options.threads:
        torch.set_num_threads(options.threads)
    if options.csv is not None and options.csv == options.json:
        raise ValueError(f"--csv and --json both name {options.csv}; name two files")
    # Check the sets before the slow step of loading a model.
    sets = {name: Path(place) for name, place in found_sets(*options.sets).items()}
    facts = {
        name: describe_evaluation_set(
            path, probe=options.probe and (path / "train").is_dir() and not SetFolder(path=path).is_retrieval
        )
        for name, path in sets.items()
    }
    pool = Pool.open(options.pool) if options.pool else None
    if pool is not None and any((pool.path / VERSIONS).glob("*.json")):
        show(
            f"{options.pool} has earlier versions: texts are split into the words of the present one; export "
            "a trial of an earlier one to evaluate it with its own words"
        )
    require_own_weights(Path(options.checkpoint))
    device = device_named(options.device)
    source = ModelSource(
        checkpoint=options.checkpoint,
        model=options.model,
        words=() if pool is None else pool.vocabulary,
        mean=tuple(options.mean),
        std=tuple(options.std),
    )
    precision = options.precision or EVALUATION_PRECISION
    loaded = load_model(source, device)
    set_gpu_arithmetic(device.type)
    probes = [name for name, entry in facts.items() if "probe_top1" in entry.metrics]
    metrics = evaluate_model(loaded, sets, probes, precision=precision)
    images, texts = (sum(getattr(entry, what) for entry in facts.values()) for what in ("images", "texts"))
    flops = forward_flops(loaded, images=images, texts=texts)
    rows = list(_rows(metrics))
    # First the files: whatever reads the table may close it early, such as `head`.
    if options.csv:
        with new_file(options.csv) as path:
            path.write_text(csv_text(pd.DataFrame(rows)), encoding="utf-8")
    if options.json:
        content = {
            "checkpoint": options.checkpoint,
            "model": options.model,
            "precision": precision,
            "evaluation_version": EVALUATION_VERSION,
            "device": str(device),
            "sets": {
                name: {"folder": str(sets[name]), "content": entry.content} for name, entry in facts.items()
            },
            "images": images,
            "texts": texts,
            "evaluation_flops": flops,
            "convention": CONVENTION,
            "metrics": {name: finite_or_none(value) for name, value in metrics.items()},
        }
        write_json(options.json, content)
    show_all(_table(rows))
    cost = "FLOPs not counted: no closed form for this architecture" if flops is None else format_flops(flops)
    show(f"{plural(images, 'image')} and {plural(texts, 'text')} encoded once: {cost}")
    return 0


def _rows(metrics: dict[str, float]) -> Iterator[dict[str, Any]]:
    for name, value in metrics.items():
        where, _, what = name.rpartition("/")
        if what == "count" or what.endswith("_se"):
            continue
        yield {
            "set": where,
            "metric": what,
            "value": finite_or_none(value),
            "standard_error": finite_or_none(metrics.get(f"{name}_se")),
            "images": int(metrics.get(f"{where}/count", 0)) or "",
        }


def _table(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    from study.show.terminal import table_lines

    table_rows = []
    for row in rows:
        metric = row["metric"]
        value, error = (
            "" if row[what] is None else f"{100 * row[what]:.2f}" for what in ("value", "standard_error")
        )
        measured = metric.replace("_r", " R@").replace("_top1", " top-1").replace("_", " ")
        table_rows.append({
            "set": row["set"], "measured": _LABELS.get(metric, measured), "%": value, "±": error,
            "images": f"{row['images']:,}" if row["images"] else "",
        })  # fmt: skip
    return table_lines(table_rows, words=("set", "measured"), group="set")
