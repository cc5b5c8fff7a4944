"""What is to be learned, and the networks that learn it: one batch in, every loss out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.networks.gate import Gate, gate_loss
from export.networks.lgaf import diversity_loss, length
from export.networks.mask_attention import attention_loss
from export.networks.recognizability import IndexTarget, diversion_loss, index_loss, projection_loss
from export.networks.recognizer import Recognizer
from export.training.config import Config
from export.training.data import Faces
from export.training.lanes import Features
from export.training.loader import Batch
from export.training.losses import against_prototypes, distillation, own_and_nearest


@dataclass(frozen=True)
class Lesson:
    """What is to be learned, the same for every step: the teacher's answers and the prototypes."""

    teacher: Tensor  # rows x D, unit
    prototypes: Tensor  # K x D, unit
    label: Tensor  # rows, the prototype of each face


def lesson(faces: Faces, teacher: NDArray[np.float32], device: str) -> Lesson:
    """Prototypes are class means of the training people; every other face is a prototype by itself."""
    train = np.flatnonzero(~faces.tune)
    of_row = labels(faces, teacher, train)
    _, prototypes = _class_means(of_row[train].numpy(), teacher[train])
    return Lesson(*(t.to(device) for t in (torch.from_numpy(teacher), torch.from_numpy(prototypes), of_row)))


def labels(faces: Faces, teacher: NDArray[np.float32], rows: NDArray[np.int64]) -> Tensor:
    """Who is on each of `rows`, as numbers from 0 up, one for each person; -1 for all other rows.

    A face that the teacher finds far from its own class mean (cosine under 0.3) is taken for a wrong
    label, of which the sources hold a few in a hundred, and stands by itself as unnamed faces do.
    """
    alone = faces.identity.max() + 1 + np.arange(len(faces.identity))
    names = np.where(faces.identity >= 0, faces.identity, alone)
    label, means = _class_means(names[rows], teacher[rows])
    far = (teacher[rows] * means[label]).sum(1) < 0.3
    names[rows[far]] = alone[rows[far]]
    of_row = np.full(len(names), -1)
    of_row[rows] = np.unique(names[rows], return_inverse=True)[1]
    return torch.from_numpy(of_row)


def _class_means(
    names: NDArray[np.int64], embeddings: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each row's class (N) and the classes' unit means (K x D)."""
    _, label = np.unique(names, return_inverse=True)
    sums = np.zeros((label.max() + 1, embeddings.shape[1]), np.float32)
    np.add.at(sums, label, embeddings)
    return label, sums / np.linalg.norm(sums, axis=1, keepdims=True)


class Learner(nn.Module):
    """The networks that learn and the statistics that go with them."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.gate = Gate()
        self.target = IndexTarget()

    def losses(
        self, batch: Batch, features: Features, lesson: Lesson, config: Config, *, diversion: bool
    ) -> dict[str, Tensor]:
        """Every loss of one batch, unweighted; `features` are the body's of the batch's crops."""
        found = self.recognizer.heads(*features)
        v, hopeless = found.embedding, batch.hopeless
        useful = (~hopeless).float()
        label = lesson.label[batch.row]
        teacher = lesson.teacher[batch.row]
        cosines = v @ lesson.prototypes.T  # N x K
        own, nearest = own_and_nearest(cosines.detach(), label)
        target = self.target(v.detach(), own, nearest, hopeless)
        self.target.note(found.index_logit.detach(), hopeless)
        out = {
            "distillation": distillation(v, teacher, useful),
            "prototypes": against_prototypes(
                cosines, label, useful, scale=config.prototype_scale, margin=config.prototype_margin
            ),
            "index": index_loss(found.index_logit, target),
        }
        if found.attention is not None:
            out["attention"] = attention_loss(found.attention, batch.cover, batch.masked)
        if found.local is not None:
            f_local = found.local.feature
            out["local"] = distillation(f_local / length(f_local), teacher, useful)
            out["diversity"] = diversity_loss(found.local.heads)
        if self.recognizer.lgf is not None and found.local is not None:
            self.recognizer.lgf.measure(found.f_global, found.local.feature)
        if found.attended is not None and self.recognizer.perceptibility is not None:
            v_attn = self.recognizer.perceptibility.embed(found.attended)
            out["projection"] = projection_loss(v_attn, v, self.target.direction())
        if diversion:
            logit = self.recognizer.index.with_fixed_weights(found.f_global, found.f4)
            recognisable = (target[:, 0] > 0.1) & ~hopeless
            out["diversion"] = diversion_loss(logit, self.target.hopeless, recognisable)
        out["gate"] = gate_loss(self.gate.logit(batch.crops), found.index_logit)
        return out
