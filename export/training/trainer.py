"""The one trainer: recognizer and gate together, from a config, resumable, on a CPU or on CUDA.

A run is a folder: `config.json`, `log.csv` (one row every ten steps), `checkpoint.pt` (everything that a
resumed run needs to go on as if it had never stopped) and at the end `recognizer.pt`, the averaged weights.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from edge_fr.errors import InputError
from edge_fr.models import resolve
from export.networks.backbone import MobileNetV1
from export.networks.recognizability import away_from
from export.networks.recognizer import Recognizer
from export.training.config import Config
from export.training.data import Faces, pack
from export.training.index_fit import check_faces, fit_index
from export.training.judge import embedder, held_out_rows, judge
from export.training.lanes import Lanes
from export.training.learner import Learner, lesson
from export.training.loader import Batch, Loader
from export.training.masks import MaskRenderer
from export.training.start import blank, start
from export.training.teacher import teach

LOG_EVERY = 10


def rate(step: int, steps: int, warmup: float) -> float:
    """One cycle: a linear rise over `warmup` of the steps, then a cosine to a hundredth; 0..1."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def groups(learner: Learner, config: Config) -> list[dict[str, Any]]:
    """Optimiser groups by learning rate; biases, slopes and blends do not decay."""
    rates = {"recognizer.body": config.body_lr, "recognizer.tail": config.tail_lr, "gate": config.gate_lr}
    found: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = next((lr for prefix, lr in rates.items() if name.startswith(prefix)), config.heads_lr)
        decay = config.weight_decay if parameter.ndim > 1 and not name.endswith("visible.mean") else 0.0
        found.setdefault((lr, decay), []).append(parameter)
    return [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in found.items()]


@torch.no_grad()
def average(ema: Learner, learner: Learner, decay: float) -> None:
    """Moves the averaged weights towards the current ones; buffers are taken as they are."""
    current = learner.state_dict()
    trained = {name for name, _ in learner.named_parameters()}
    for name, value in ema.state_dict().items():
        if name in trained:
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])


def train(config: Config, *, data: Path, out: Path, cache: Path, stop_at: int | None = None) -> Path:
    """Trains, or goes on where the folder `out` left off, and returns the path of the averaged weights.

    `stop_at` ends early, after a checkpoint; that path does not exist yet then. Raises InputError if `out`
    holds a run of another config, or before the first step if there are too few people to fit the index to.
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    written = out / "config.json"
    if written.is_file() and written.read_text() != config.model_dump_json(indent=1):
        raise InputError(
            f"{out} holds a run of another config; delete it, or give this one another name or --out"
        )
    written.write_text(config.model_dump_json(indent=1))
    if (out / "recognizer.pt").is_file():
        return out / "recognizer.pt"
    earlier = [train(b, data=data, out=cache / "runs" / b.name, cache=cache) for b in config.begin]
    faces = pack(config.sources, data, cache)
    if config.index_views:
        check_faces(faces, config.index_views)
    judged = held_out_rows(faces, 400, sources=config.sources)
    if len(np.unique(faces.identity[judged])) < 2:
        console.print("not judged: it takes two held-out people with four pictures each")
        judged = judged[:0]
    threads = config.threads if config.device == "cpu" else 1
    teacher = teach(
        faces, resolve(config.base), cache, device=config.device, threads=threads, bf16=config.bf16
    )
    masks = MaskRenderer(data / config.mask_templates if config.mask_templates else None)
    loader = Loader(
        faces, [s.share for s in config.sources], config.recipe, masks, batch=config.batch, seed=config.seed
    )
    saved = (
        torch.load(out / "checkpoint.pt", map_location="cpu") if (out / "checkpoint.pt").is_file() else None
    )
    learner = start(config, faces, masks, earlier) if saved is None else Learner(blank(config))
    body = learner.recognizer.body
    assert isinstance(body, MobileNetV1)
    body.freeze(config.frozen_blocks)
    learner.to(config.device)
    ema = copy.deepcopy(learner).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(groups(learner, config), betas=(0.9, 0.98))
    first = 0
    if saved is not None:
        learner.load_state_dict(saved["learner"])
        ema.load_state_dict(saved["ema"])
        optimiser.load_state_dict(saved["optimiser"])
        torch.set_rng_state(saved["rng"])
        first = int(saved["step"])
        console.print(f"resuming {out} at step {first}")
    projection = learner.recognizer.projection
    if projection is not None:
        teacher = away_from(torch.from_numpy(teacher), projection.centre.cpu()).numpy()
    lessons = lesson(faces, teacher, config.device)
    lanes = Lanes(body, threads, bf16=config.bf16)
    last = min(config.steps, stop_at or config.steps)
    weights = {**config.weights.model_dump(), "gate": 1.0}
    sums: dict[str, float] = {}
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(config.name, total=config.steps, completed=first)
        for step, drawn in enumerate(loader.batches(first, last), start=first):
            batch = Batch(**{k: v.to(config.device) for k, v in vars(drawn).items()})
            learner.train()
            now = rate(step, config.steps, config.warmup)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * now
            late = step >= config.diversion_from * config.steps
            features = lanes.forward(batch.crops)
            losses = learner.losses(batch, features, lessons, config, diversion=late)
            loss = sum((weights[k] * v for k, v in losses.items()), torch.zeros((), device=config.device))
            if not torch.isfinite(loss):
                raise InputError(
                    f"loss is {loss.item()} at step {step}; lower the learning rates in the config"
                )
            optimiser.zero_grad()
            loss.backward()
            lanes.backward()
            nn.utils.clip_grad_norm_(learner.parameters(), config.clip)
            optimiser.step()
            average(ema, learner, min(config.ema, (1 + step) / (10 + step)))
            for name, value in {**losses, "loss": loss}.items():
                sums[name] = sums.get(name, 0.0) + value.item() / LOG_EVERY
            if (step + 1) % LOG_EVERY == 0:
                speed = LOG_EVERY * config.batch / (time.monotonic() - began)
                _log(out / "log.csv", step + 1, {"lr": now, "images_per_s": speed, **sums})
                sums, began = {}, time.monotonic()
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == last:
                _save(
                    out / "checkpoint.pt",
                    {
                        "step": step + 1,
                        "learner": learner.state_dict(),
                        "ema": ema.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "rng": torch.get_rng_state(),
                    },
                )
            if config.judge_every and (step + 1) % config.judge_every == 0 and step + 1 < config.steps:
                _judge(ema.recognizer, faces, judged, masks, config, out / "judged.jsonl", step + 1)
                began = time.monotonic()
            progress.update(task, completed=step + 1)
    if last == config.steps:
        if config.index_views:
            fit_index(ema.recognizer, ema.gate, faces, lessons, config, masks)
        _judge(ema.recognizer, faces, judged, masks, config, out / "judged.jsonl", last)
        _save(
            out / "recognizer.pt",
            {"config": config.model_dump_json(), "state": ema.state_dict(), "step": last},
        )
    return out / "recognizer.pt"


def _judge(
    recognizer: Recognizer,
    faces: Faces,
    rows: NDArray[np.int64],
    masks: MaskRenderer,
    config: Config,
    path: Path,
    step: int,
) -> None:
    if not len(rows):
        return
    embed = embedder(recognizer, device=config.device, bf16=config.bf16)
    found = judge(embed, faces, rows, masks)
    with path.open("a") as file:
        file.write(json.dumps({"step": step, **found}) + "\n")


def _log(path: Path, step: int, row: dict[str, float]) -> None:
    """Appends one row. After a cut, steps since the checkpoint come twice: the later row counts."""
    values = {"step": step, **{k: f"{v:.5g}" for k, v in row.items()}}
    names = [
        "step",
        "lr",
        "images_per_s",
        "loss",
        "distillation",
        "prototypes",
        "local",
        "attention",
        "index",
    ]
    names += ["diversion", "projection", "diversity", "gate"]
    fresh = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        if fresh:
            writer.writeheader()
        writer.writerow(values)


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)
