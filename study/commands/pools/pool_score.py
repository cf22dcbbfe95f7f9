"""``python -m study data score``: score a pool's pairs, or name a subset of them."""

import os
import re
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.commands.command import add_pool_options, continuing, number, show, show_all

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from runners.data.build.known_scores import Facts
    from runners.data.pool.pool import Pool
    from runners.host.workers import Report
    from runners.store.shared_folder import SharedFolder
    from study.run.pool_site import PoolSite

NAME = "score"
HELP = "set the quality score of the pairs, or add a named subset or columns for strategies"
EXAMPLES: tuple[str, ...] = (
    "pools/web --with ViT-B-32:openai --name clip",
    "pools/icons --with column:popularity",
    "pools/web --with '=0.5*clip + 0.5*aesthetic' --name both",
    "pools/web --with subset.npy --name basic",
    "pools/web --with ViT-B-32:openai --column teacher",
    "pools/web --with column:recaption --column recaption",
)


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_pool_options(parser)
    parser.add_argument(
        "--with",
        dest="scorer",
        required=True,
        metavar="SCORER",
        help="MODEL:PRETRAINED, where MODEL is a name of open_clip or of the catalogue or a JSON file, and "
        "PRETRAINED a tag or a checkpoint file; an exported folder; the folder of a study's trial; "
        "column:NAME of the pairs' json or of --metadata; score:NAME that the pool already has; =EXPRESSION "
        "in SQL, over its scores and other facts of a pair; or a DataComp uid file .npy, as a named subset",
    )
    parser.add_argument("--name", help="name of the score or subset")
    parser.add_argument(
        "--column",
        metavar="NAME",
        help="store what SCORER gives as a column NAME of the pool's index, for strategies that read it, and "
        "not as a score: texts or numbers, or the embeddings of a model, NAME_image and NAME_text",
    )
    parser.add_argument(
        "--metadata",
        type=Path,
        help="table of metadata (.parquet, .csv, .tsv or .jsonl), or a folder of .parquet ones, that holds "
        "column:NAME or columns of =EXPRESSION, joined by uid or key",
    )
    parser.add_argument(
        "--batch-size", type=number(1, 65_536, int), default=256, help="pairs per batch (default: 256)"
    )
    parser.add_argument("--device", help="cpu or cuda (default: cuda if available)")


def run(options: Namespace) -> int:
    """Score the pool, and print its contents afterwards."""
    # Between batches torch's threads would spin; OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from runners.data.build.info import info_lines
    from runners.data.pool.pool import Pool
    from runners.store.shared_folder import SCORING, open_shared
    from study.run.pool_site import PoolSite
    from study.show.view import WorkProgress
    from study.storage.lock import only_writer

    _check(options)
    with continuing(options.pool), only_writer(options.pool, show), open_shared(options.pool) as shared:
        before = Pool.open(shared.path)
        with PoolSite(options.address, options.workers, show) as site, WorkProgress() as report:
            pool = _scored(before, options, shared, site, report)
            shared.publish()
            shared.delete(SCORING)
        show_all(info_lines(pool))
    return 0


def _check(options: Namespace) -> None:
    """Raise ValueError for options that contradict each other, or a name that can't be that of a column."""
    kind, _, name = options.scorer.partition(":")
    is_subset, expression = options.scorer.endswith(".npy"), options.scorer.startswith("=")
    if options.column is not None and (
        options.name is not None or is_subset or expression or kind == "score"
    ):
        raise ValueError("--column stores a model's embeddings or column:NAME, without --name")
    named = _name(options) if is_subset else options.column
    if named is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", named):
        raise ValueError(
            f"--{'name' if is_subset else 'column'} {named[:100]}: names of subsets and columns have up to "
            "100 letters, digits, '.', '_' and '-', and start with a letter or digit"
        )
    if options.metadata and kind != "column" and not expression:
        raise ValueError("--metadata needs --with column:NAME or --with =EXPRESSION")
    if options.name is not None and kind == "score":
        raise ValueError("--name names a new score: leave it out with --with score:NAME")
    if expression and options.name is None:
        raise ValueError("a computed score needs --name, by which declarations and reports call it")
    if not (name or is_subset or expression or Path(options.scorer).is_dir()):
        raise ValueError(
            f"--with {options.scorer} must be MODEL:PRETRAINED, an exported folder, "
            "a trial's folder, column:NAME, score:NAME, =EXPRESSION or a .npy file"
        )


def _name(options: Namespace) -> str:
    """Return the name of a score or subset: as given, else that of the column, file, folder or model."""
    kind, _, column = options.scorer.partition(":")
    path, name = Path(options.scorer), str(options.scorer)
    if kind == "column":
        name = column
    elif path.suffix == ".npy":
        name = path.stem
    elif path.is_dir():
        name = path.resolve().name
    return name if options.name is None else str(options.name)


def _scored(
    pool: "Pool", options: Namespace, shared: "SharedFolder", site: "PoolSite", report: "Report"
) -> "Pool":
    """Return the pool with the score or subset that the options ask for."""
    from runners.data.build.expression import Expression
    from runners.data.build.known_scores import expression_scores, json_facts, metadata_facts
    from runners.data.build.rescore import require_score_name, set_column, set_score, set_subset, use_score
    from runners.data.pool.pool import COMPUTED, Scorer

    kind, _, name = options.scorer.partition(":")
    if options.scorer.endswith(".npy"):
        return set_subset(pool, _name(options), Path(options.scorer))
    if kind == "score":
        return use_score(pool, name)
    if options.column is None:
        require_score_name(pool, _name(options))  # before the work
    is_expression = options.scorer.startswith("=")
    if kind != "column" and not is_expression:
        return _scored_by_model(pool, options, shared, site, report)

    def facts(names: "Collection[str]") -> "Facts":
        if options.metadata:
            return metadata_facts(pool, options.metadata, names)
        return json_facts(pool, site.workers(written=shared.url or pool.path), report, shared, names)

    if not is_expression:
        known = facts([name])
        if options.column:
            return set_column(pool, {options.column: known.values(name)})
        return set_score(pool, known.numbers(name), Scorer(name=_name(options)))
    text = options.scorer[1:]
    models = pool.models_behind(Expression(text).names)
    made = Scorer(name=options.name, convention=COMPUTED + text, sources=models)
    return set_score(pool, expression_scores(pool, text, facts), made)


def _scored_by_model(
    pool: "Pool", options: Namespace, shared: "SharedFolder", site: "PoolSite", report: "Report"
) -> "Pool":
    from runners.data.build.rescore import set_column, set_score
    from runners.evaluate.clip_score import clip_scorer, clip_scores, scoring_source
    from runners.models.load_model import by_pool_words
    from runners.store.shared_folder import SCORING

    scorer = options.scorer
    if (Path(scorer) / "result.json").is_file():
        scorer = str(_exported(Path(scorer), shared.path / SCORING / Path(scorer).resolve().name))
    source = scoring_source(scorer, pool)
    trial, train_flops = _trial_of(Path(source.checkpoint))
    if source.model and by_pool_words(source.model):
        show(
            f"note: texts are split into the {len(pool.vocabulary):,} words of {options.pool}; weights that "
            "were trained on another pool give wrong scores: name their trial's folder or an exported one"
        )
    files = [path for path in (Path(source.checkpoint), Path(source.model)) if path.name and path.exists()]
    # Nodes that share a URL get the model's files from there.
    seen = () if shared.url else files
    workers = site.models(options.device, *seen, written=shared.url or pool.path)
    score = partial(
        clip_scores,
        pool,
        source,
        embeddings=bool(options.column),
        batch_size=options.batch_size,
        device=options.device,
        threads=site.threads(workers),
        shared=shared,
        workers=workers,
        report=report,
    )
    scores, config = score()
    made = clip_scorer(
        options.column or _name(options), config, pool.count,
        model=trial or options.scorer, train_flops=train_flops,
    )  # fmt: skip
    if options.column:

        def arrays(side: int) -> "Iterator[NDArray[Any]]":
            """Yield the embeddings of images or texts, in a pass of its own over what has been computed."""
            return (both[:, side] for both in score()[0])

        sides = ("image", "text")
        return set_column(pool, {f"{options.column}_{side}": arrays(n) for n, side in enumerate(sides)}, made)
    return set_score(pool, scores, made)


def _trial_of(checkpoint: Path) -> tuple[str, int]:
    """Return the trial that an exported folder or weights are of, in words, and its training FLOPs, or 0."""
    from runners.models.export import read_origin
    from runners.trials.trial_files import read_outcome, require_own_weights

    origin = read_origin(checkpoint)
    require_own_weights(checkpoint)
    if checkpoint.name == "weights.pt" and (outcome := read_outcome(checkpoint.parent)) is not None:
        origin = dict(outcome.row)
    return (f"trial {origin['trial']}" if origin else ""), int(origin.get("train_flops", 0))


def _exported(trial: Path, target: Path) -> Path:
    """Export a trial for the workers, unless an interrupted scoring has done so."""
    from study.run.export_trial import export_from

    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        export_from(trial, target)
        # The time distinguishes models of the same name: a repeated scoring continues with the parts of this
        # one.
        time = (trial / "weights.pt").stat().st_mtime_ns
        os.utime(target, ns=(time, time))
    return target
