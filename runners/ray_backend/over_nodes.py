"""Runs a job over several nodes: Ray Train starts its ranks and forms their group."""

import logging
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from runners.faults import fault_of, words_of
from runners.process import Exit


def run_over_nodes(
    run: bytes, *, nodes: Sequence[str], ranks_per_node: int, resources: Mapping[str, float]
) -> Exit:
    """Runs a call on all ranks, and once more without a group when they are through, for what it gives.

    Args:
        run: What to call, pickled; each rank finds out by `runners.ranks` which it is.
        nodes: Ray's ids of the nodes.
        ranks_per_node: Ranks on each.
        resources: What the job occupies on each of them, by Ray's names.
    """
    each = {name: amount / ranks_per_node for name, amount in resources.items()}
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # what went wrong is told by what is returned
    with tempfile.TemporaryDirectory() as scratch:
        trainer = TorchTrainer(
            _take_part,
            train_loop_config={"run": run},
            torch_config=TorchConfig(backend="nccl" if each.get("GPU") else "gloo"),
            scaling_config=ScalingConfig(  # type: ignore[call-arg]  # its stubs are those of an older one
                num_workers=len(nodes) * ranks_per_node,
                use_gpu=bool(each.get("GPU")),
                resources_per_worker=each,
                label_selector=[{"ray.io/node-id": node} for node in nodes for _ in range(ranks_per_node)],
            ),
            run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=0)),
        )
        try:
            trainer.fit()
        except KeyboardInterrupt:
            return Exit(how="left", reason="told to leave; it goes on from its last checkpoint")
        except WorkerGroupError as error:
            return _first_cause(error.worker_failures)
        except TrainingFailedError as error:  # as when a node went before its rank began
            return Exit(how="crashed", reason=words_of(error))
    return Exit(how="finished", pickled=pickle.dumps(pickle.loads(run)()))  # noqa: S301 - our own


def _take_part(config: Mapping[str, Any]) -> None:
    import torch  # noqa: PLC0415 - where no rank runs, nothing needs it

    if get_device().type == "cuda":
        torch.cuda.set_device(get_device())
    pickle.loads(config["run"])()  # noqa: S301 - our own


def _first_cause(failures: Mapping[int, Exception]) -> Exit:
    """Tells what ended the ranks: a dead one before those that lost it, then the lowest."""
    ends = []
    for rank, failure in sorted(failures.items()):
        if isinstance(failure, ray.exceptions.RayError):
            ends.append(
                Exit(how="crashed", reason=f"rank {rank}: its process died ({type(failure).__name__})")
            )
        else:
            cause = getattr(failure, "_base_exc", failure)
            ends.append(Exit(how=fault_of(cause), reason=f"rank {rank}: {words_of(cause)}"))
    return min(ends, key=lambda end: end.how != "crashed")
