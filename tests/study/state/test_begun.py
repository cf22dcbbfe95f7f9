"""Progress of trials without a result, from the files in their folders."""

from pathlib import Path

from runners.host.files import write_json
from runners.trials.trial_files import Outcome, write_outcome
from study.state.trial_states import begun
from study.storage.lock import only_run
from tests.progress import progress


def left(folder: Path, *, kept: int) -> None:
    folder.mkdir(parents=True)
    write_json(folder / "progress.json", progress(500))
    if kept:
        (folder / f"checkpoint-{kept // 10:010d}-0.pt").touch()


def test_an_interrupted_trial_continues_from_its_checkpoint_or_starts_anew(tmp_path: Path) -> None:
    left(tmp_path / "trials" / "a", kept=400)
    left(tmp_path / "trials" / "b", kept=0)
    assert begun(tmp_path, dict.fromkeys(["a", "b", "never"], 100)) == {
        "a": "interrupted; continues from its checkpoint at 40% of its samples",
        "b": "interrupted before its first checkpoint; starts anew",
    }


def test_no_trial_is_reported_as_interrupted_during_a_run(tmp_path: Path) -> None:
    left(tmp_path / "trials" / "a", kept=400)
    with only_run(tmp_path):
        assert begun(tmp_path, {"a": 100}) == {"a": "running; 50% of its samples seen"}


def test_a_result_missing_in_the_tables_is_reported(tmp_path: Path) -> None:
    left(tmp_path / "trials" / "a", kept=400)
    row = {"trial": "a", "status": "finished", "reason": "", "samples_seen": 100}
    (tmp_path / "trials" / "a" / "curve.parquet").touch()
    write_outcome(tmp_path / "trials" / "a", Outcome(row=row, timing={}))
    assert begun(tmp_path, {"a": 100})["a"].startswith("finished")
