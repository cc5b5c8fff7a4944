"""The index and the gate once more, on a recognizer that no longer changes, fitted to what an index is for.

While everything learns, the head follows the target of arXiv 2304.10066 (see recognizability.py). Its d_P is
the distance to a prototype that the face itself is part of, and for a person with one picture is the face: it
says how much of a face was lost, and less how well others of the person will be matched. Here the target is
just that: the share of the person's other pictures, as the teacher knows them, that a view matches at the
cosine that LEARNED of the pairs of strangers reach. On held-out people, over all conditions, the area of
the error-versus-discard curve falls by 18 %.

The people it learned from are matched oftener than others, so a slope and an offset are fitted to held-out
people. With them the index is the chance of a match at the cosine that PROMISED of those pairs reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edge_fr.errors import InputError
from export.networks.gate import Gate, gate_loss
from export.networks.recognizability import RecognizabilityHead
from export.networks.recognizer import Recognizer
from export.training.config import Config
from export.training.data import Faces
from export.training.degradations import view
from export.training.judge import embedder, embeddings
from export.training.learner import Lesson, labels
from export.training.masks import MaskRenderer
from export.training.teacher import to_tensor

LEARNED, PROMISED = 1e-3, 1e-4  # shares of the pairs of strangers
STRANGERS = 3000  # who are compared for it
SOFT = 0.04  # how far from it a comparison counts as neither here nor there
BATCH = 64
EPOCHS, GATE_EPOCHS = 12, 4  # the head learns a training set by heart from 25 on
LEAST, LEAST_HELD_OUT = 2 * BATCH, 16  # views of people with other pictures


class Views(NamedTuple):
    """Drawn views, and the packed face that each shows."""

    crops: NDArray[np.uint8]  # N x 112 x 112 x 3 BGR
    hopeless: NDArray[np.bool_]  # N
    side_px: NDArray[np.float32]  # N, see View
    row: NDArray[np.int64]  # N


def draw(faces: Faces, rows: NDArray[np.int64], count: int, config: Config, masks: MaskRenderer) -> Views:
    """So many views of those faces, each face about equally often."""
    rng = np.random.default_rng([config.seed, 1])
    rounds = -(-count // len(rows))
    row = np.concatenate([rng.permutation(rows) for _ in range(rounds)])[:count]
    drawn = [
        view(faces.crops[r], config.recipe, masks, np.random.default_rng([config.seed, 1, i]))
        for i, r in enumerate(row)
    ]
    return Views(
        np.stack([v.image for v in drawn]),
        np.array([v.hopeless for v in drawn]),
        np.array([v.side_px for v in drawn], np.float32),
        row,
    )


def stranger_cosines(
    recognizer: Recognizer, faces: Faces, config: Config, masks: MaskRenderer
) -> tuple[float, float]:
    """The cosines that LEARNED and PROMISED of the pairs of different people reach, on good pictures."""
    named = np.flatnonzero(faces.identity >= 0)
    first = named[np.unique(faces.identity[named], return_index=True)[1]]
    rows = np.random.default_rng([config.seed, 4]).permutation(first)[:STRANGERS]
    _enough(len(rows), "people with names", 2)
    embed = embedder(recognizer, device=config.device, bf16=config.bf16)
    v = embeddings(embed, faces, rows, masks, "clean")
    cosines = (v @ v.T)[np.triu_indices(len(v), 1)]
    learned, promised = np.quantile(cosines, [1 - LEARNED, 1 - PROMISED])
    return float(learned), float(promised)


def chances(v: Tensor, views: Views, teacher: Tensor, label: Tensor, match: float) -> Tensor:
    """The share of the person's other pictures that each embedding (N x D, unit) matches: N, 0..1.

    `teacher` and `label` are of all rows, as in a Lesson. 0 for hopeless views; NaN where there is no other
    picture to ask.
    """
    of_label: dict[int, list[int]] = {}
    for row, name in enumerate(label.tolist()):
        if name >= 0:
            of_label.setdefault(name, []).append(row)
    share = torch.full((len(v),), torch.nan)
    for i, row in enumerate(views.row.tolist()):
        others = [other for other in of_label.get(int(label[row]), []) if other != row]
        if others:
            share[i] = torch.sigmoid((teacher[others] @ v[i] - match) / SOFT).mean()
    share[torch.from_numpy(views.hopeless)] = 0.0
    return share


def fit_head(head: RecognizabilityHead, inputs: Tensor, share: Tensor, *, seed: int) -> None:
    """Fits the head, from scratch, to the known shares of its `inputs` (N x K); InputError for too few.

    It learns on inputs of zero mean and unit spread, which are folded into its weights afterwards.
    """
    known = _known(share, "views", LEAST)
    x, t = inputs[known], share[known]
    mean, spread = x.mean(0), x.std(0) + 1e-4
    x = (x - mean) / spread
    torch.manual_seed(seed)
    hidden, out = nn.Linear(x.shape[1], head.hidden.out_features), nn.Linear(head.hidden.out_features, 1)
    layers = nn.Sequential(nn.Dropout(0.5), hidden, nn.ReLU(), out)

    def loss(some: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(layers(x[some])[:, 0], t[some])

    learn(layers, loss, len(x), epochs=EPOCHS, rate=1e-3, decay=0.05)
    with torch.no_grad():
        weight = hidden.weight / spread
        head.hidden.weight.copy_(weight)
        head.hidden.bias.copy_(hidden.bias - weight @ mean)
        head.out.weight.copy_(out.weight)
        head.out.bias.copy_(out.bias)


def calibrate(head: RecognizabilityHead, inputs: Tensor, share: Tensor) -> None:
    """Gives the head's logit the slope and offset with which it promises the known shares (Platt
    scaling); InputError for too few."""
    known = _known(share, "held-out views", LEAST_HELD_OUT)
    with torch.no_grad():
        logit = head.from_inputs(inputs[known])[:, 0]
    slope, offset = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([slope, offset], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(slope * logit + offset, share[known])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        head.out.weight.mul_(slope)
        head.out.bias.mul_(slope).add_(offset)


def _known(share: Tensor, what: str, least: int) -> Tensor:
    known = ~torch.isnan(share)
    _enough(int(known.sum()), f"{what} of people with several pictures", least)
    return known


def _enough(count: int, what: str, least: int) -> None:
    if count < least:
        raise InputError(
            f"{count} {what}, fitting the index needs {least}; "
            f"add a source with identities to the config, or set index_views to 0"
        )


def fit_gate(gate: Gate, views: Views, logit: Tensor, *, seed: int) -> None:
    """Teaches the gate, from where it is, the recognizer's own index of every view (its logit, N x 1)."""
    torch.manual_seed(seed)
    device = next(gate.parameters()).device
    gate.train().requires_grad_(True)

    def loss(some: Tensor) -> Tensor:
        crops = to_tensor(views.crops[some.numpy()]).to(device)
        return gate_loss(gate.logit(crops), logit[some].to(device))

    learn(gate, loss, len(logit), epochs=GATE_EPOCHS, rate=2e-3, decay=0.01)
    gate.eval().requires_grad_(False)


def learn(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    *,
    epochs: int,
    rate: float,
    decay: float,
) -> None:
    """Lowers the loss, which is told the numbers of BATCH of `count` examples each time, in one cycle."""
    steps = epochs * (count // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in range(steps):
        value = loss(torch.randint(count, (BATCH,)))
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        cycle.step()


def check_faces(faces: Faces, views: int) -> None:
    """InputError if an index could not be fitted to so many views of these faces, to be told beforehand."""
    _enough(len(np.unique(faces.identity[faces.identity >= 0])), "people with names", 2)
    _, person, pictures = np.unique(faces.identity, return_inverse=True, return_counts=True)
    several = (faces.identity >= 0) & (pictures[person] > 1)
    held = several & faces.tune
    _enough(2 * int(held.sum()), "held-out views of people with several pictures", LEAST_HELD_OUT)
    known = int(views * several[~faces.tune].mean())
    _enough(known, "views of people with several pictures", LEAST)


def fit_index(
    recognizer: Recognizer, gate: Gate, faces: Faces, lesson: Lesson, config: Config, masks: MaskRenderer
) -> None:
    """Fits the index of a trained recognizer and its gate on `config.index_views` drawn views, in place.

    For faces that `check_faces` lets pass.
    """
    teacher = lesson.teacher.cpu()
    held = np.flatnonzero(faces.tune)
    learned, promised = stranger_cosines(recognizer, faces, config, masks)
    sets = (
        (np.flatnonzero(~faces.tune), config.index_views, lesson.label.cpu(), learned),
        (held, 2 * len(held), labels(faces, teacher.numpy(), held), promised),
    )
    views, inputs, shares = [], [], []
    for rows, count, label, match in sets:
        drawn = draw(faces, rows, count, config, masks)
        v, x = _answers(recognizer, drawn, config)
        views.append(drawn)
        inputs.append(x)
        shares.append(chances(v, drawn, teacher, label, match))
    head = recognizer.index.cpu()
    fit_head(head, inputs[0], shares[0], seed=config.seed)
    calibrate(head, inputs[1], shares[1])
    with torch.no_grad():
        logit = head.from_inputs(inputs[0])
    head.to(config.device)
    fit_gate(gate, views[0], logit, seed=config.seed)


def _answers(recognizer: Recognizer, views: Views, config: Config) -> tuple[Tensor, Tensor]:
    """The embedding of each view, and what the head looks at."""
    embeddings, inputs = [], []
    with torch.inference_mode():
        for first in range(0, len(views.row), BATCH):
            crops = to_tensor(views.crops[first : first + BATCH]).to(config.device)
            found = recognizer.find(crops, bf16=config.bf16)
            embeddings.append(found.embedding.cpu())
            inputs.append(recognizer.index.inputs(found.f_global, found.f4).cpu())
    return torch.cat(embeddings), torch.cat(inputs)
