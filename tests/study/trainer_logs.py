"""Logs as Hugging Face's Trainer writes them, and as W&B exports those that it logged there."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

TOKENS = 512
"""Tokens of each sequence of `wandb_project`, which the Trainer's FLOPs count."""


def trainer_state(scale: float, losses: Sequence[float], flops: float = 6e15) -> dict[str, Any]:
    """Return what ``TrainerState.save_to_json`` of transformers 4.57 writes at the end of a run."""
    last = 100 * len(losses)
    rows: list[dict[str, Any]] = []
    for step, loss in zip(range(100, last + 1, 100), losses, strict=True):
        seen = {"epoch": step / last, "step": step}
        rows += [
            {**seen, "grad_norm": 1.05, "learning_rate": 4.8e-06, "loss": loss - 0.1},
            {**seen, "eval_loss": loss, "eval_runtime": 92.01, "eval_samples_per_second": 22.6,
             "eval_steps_per_second": 1.424},
        ]  # fmt: skip
    rows.append({
        "epoch": 1.0, "step": last, "total_flos": flops * scale, "train_loss": 2.9, "train_runtime": 360.5,
        "train_samples_per_second": 88.0, "train_steps_per_second": 2.7,
    })  # fmt: skip
    control = {"should_epoch_stop": False, "should_evaluate": False, "should_log": False}
    return {
        "best_global_step": None, "best_metric": None, "best_model_checkpoint": None, "epoch": 1.0,
        "eval_steps": 100, "global_step": last, "is_hyper_param_search": False,
        "is_local_process_zero": True, "is_world_process_zero": True, "log_history": rows,
        "logging_steps": 100, "max_steps": last, "num_input_tokens_seen": 0, "num_train_epochs": 1,
        "save_steps": 100,
        "stateful_callbacks": {"TrainerControl": {"args": control, "attributes": {}}},
        "total_flos": flops * scale, "train_batch_size": 32, "trial_name": None, "trial_params": None,
    }  # fmt: skip


def write_trainer_states(folder: Path, checkpoint: str = "") -> list[Path]:
    """Write the logs of two runs, ``small`` and ``large``; the second got worse at its end."""
    written = []
    for name, scale, losses in (("small", 1.0, (3.5, 3.2, 3.1)), ("large", 4.0, (3.3, 2.9, 3.4))):
        path = folder / name / checkpoint / "trainer_state.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(trainer_state(scale, losses), indent=2, sort_keys=True) + "\n")
        written.append(path)
    return written


def wandb_run(parameters: int, rate: float, loss: float, flops: float) -> tuple[dict[str, Any], ...]:
    """Return summary and config of a run, as W&B's public API gives them for a run of the Trainer."""
    summary = {
        "_runtime": 3611.2, "_step": 2000, "_timestamp": 1.76e9, "_wandb": {"runtime": 3611},
        "eval/loss": loss, "eval/runtime": 9.1, "total_flos": flops, "train/epoch": 1,
        "train/global_step": 2000, "train/grad_norm": float("nan"), "train/loss": loss - 0.1,
        "train_loss": loss + 0.4, "train_runtime": 3605.1,
    }  # fmt: skip
    config = {
        "learning_rate": rate, "per_device_train_batch_size": 32, "num_train_epochs": 1, "max_steps": -1,
        "model/num_parameters": parameters, "optim": "adamw_torch", "fp16": False, "run_name": None,
        "id2label": {"0": "LABEL_0"},
    }  # fmt: skip
    return summary, config


def wandb_project() -> pd.DataFrame:
    """Return a project of two models at three learning rates each."""
    runs = [
        wandb_run(size, rate, loss, 6.0 * size * 32 * 2000 * TOKENS)
        for size, losses in ((10_000_000, (3.3, 3.1, 3.4)), (40_000_000, (2.9, 2.8, 3.0)))
        for rate, loss in zip((1e-4, 3e-4, 1e-3), losses, strict=True)
    ]
    return pd.DataFrame({
        "summary": [summary for summary, _ in runs], "config": [config for _, config in runs],
        "name": [f"run-{place}" for place in range(len(runs))],
    })  # fmt: skip
