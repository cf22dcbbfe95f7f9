"""Jobs over several nodes: Ray Train starts the ranks and forms their process group."""

import logging
import pickle
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from runners.host.faults import fault_of, lost_its_peers, tell_to_leave, words_of
from runners.host.process import Exit
from runners.scheduling.ray_backend.notices import Notices, actor_here
from runners.scheduling.ray_backend.scratch import in_memory
from runners.training.group_timeout import GROUP_TIMEOUT_S

_LOOK_S = 0.5
_RANKS = "ranks"


class OverNodes:
    """A call made by all ranks and, when they have ended, once more without a process group.

    Used like a `runners.host.process.FreshProcess`; returns the value of the last call.

    Args:
        run: The call, pickled; each rank learns its index from `runners.training.ranks`.
        nodes: Ray's ids of the nodes.
        ranks_per_node: Ranks on each node.
        resources: Resources that the job occupies on each node, under Ray's names.
    """

    def __init__(
        self, run: bytes, *, nodes: Sequence[str], ranks_per_node: int, resources: Mapping[str, float]
    ) -> None:
        self._run = run
        self._notices = actor_here(Notices)
        each = {name: amount / ranks_per_node for name, amount in resources.items()}
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # `wait` returns the errors
        self._trainer = TorchTrainer(
            _take_part,
            train_loop_config={"run": run, "notices": self._notices},
            torch_config=TorchConfig(
                backend="nccl" if each.get("GPU") else "gloo", timeout_s=int(GROUP_TIMEOUT_S)
            ),
            scaling_config=ScalingConfig(  # type: ignore[call-arg]  # the stubs are of an older version
                num_workers=len(nodes) * ranks_per_node,
                use_gpu=bool(each.get("GPU")),
                resources_per_worker=each,
                label_selector=[{"ray.io/node-id": node} for node in nodes for _ in range(ranks_per_node)],
            ),
            run_config=RunConfig(failure_config=FailureConfig(max_failures=0), **in_memory("train")),
        )
        self._end: Exit | None = None
        # Not in the main thread: there, Train would handle the SIGINT with which Ray asks a task to leave.
        self._thread = threading.Thread(target=self._fit, daemon=True)
        self._thread.start()

    def ended(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s`` seconds for the call's end; returns whether it has ended."""
        self._thread.join(timeout_s)
        return self._end is not None

    def ask_to_leave(self) -> None:
        """Make rank 0, which writes for all ranks, write a checkpoint and leave."""
        self._notices.ask.remote(_RANKS)
        if not ray.get(self._notices.listens.remote(_RANKS)):  # it still waits for room, possibly forever
            self._end = Exit(how="left", reason="asked to leave before it began")

    def wait(self) -> Exit:
        """Wait for the call's end."""
        while self._end is None:
            self._thread.join(_LOOK_S)
        return self._end

    def _fit(self) -> None:
        try:
            self._trainer.fit()
            self._end = Exit(how="finished", pickled=pickle.dumps(pickle.loads(self._run)()))  # noqa: S301 - our own data
        except WorkerGroupError as error:
            self._end = _first_cause(error.worker_failures)
        except (TrainingFailedError, RayError) as error:  # for example a node lost before its rank began
            self._end = Exit(how="crashed", reason=words_of(error))
        except Exception as error:  # noqa: BLE001 - any error of the call is its result
            self._end = Exit(how=fault_of(error), reason=words_of(error))


def _take_part(config: Mapping[str, Any]) -> None:
    import torch  # noqa: PLC0415 - only ranks need it

    if get_device().type == "cuda":
        torch.cuda.set_device(get_device())
    if get_context().get_world_rank() == 0:
        threading.Thread(target=_listen, args=(config["notices"],), daemon=True).start()
    pickle.loads(config["run"])()  # noqa: S301 - our own data


def _listen(notices: Any) -> None:  # noqa: ANN401 - a handle of `Notices`
    """Forward a request to leave to the rank, which Train runs in a thread that receives no signals."""
    with suppress(RayError):  # the driver is gone
        while True:
            if ray.get(notices.asked.remote(_RANKS)):
                tell_to_leave("request from the driver")  # repeated: the rank may not listen yet
            time.sleep(_LOOK_S)


def _first_cause(failures: Mapping[int, Exception]) -> Exit:
    """Return the first cause: ranks that lost their peers come last, then leaving, crashes and failures."""
    ends = []
    for rank, failure in sorted(failures.items()):
        if isinstance(failure, RayError):
            ends.append(
                Exit(how="crashed", reason=f"rank {rank}: its process died ({type(failure).__name__})")
            )
        else:
            cause = getattr(failure, "_base_exc", failure)
            reason = f"rank {rank}: {words_of(cause)}"
            ends.append(Exit(how=fault_of(cause), reason=reason, lost_peers=lost_its_peers(cause)))
    # min keeps the first of equals: the lowest rank.
    return min(ends, key=lambda end: (end.lost_peers, ("left", "crashed", "failed").index(end.how)))
