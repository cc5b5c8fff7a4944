"""The router of a body with adapters learns how little detail a crop has, before they learn what to do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from export.networks.adapters import DetailRouter, detail_loss
from export.training.config import Config
from export.training.data import Faces
from export.training.index_fit import draw, learn
from export.training.masks import MaskRenderer
from export.training.teacher import to_tensor

EPOCHS = 10


def fit_router(router: DetailRouter, faces: Faces, config: Config, masks: MaskRenderer) -> None:
    """Teaches it, in place, the sides of `config.router_views` drawn views of training faces."""
    views = draw(faces, np.flatnonzero(~faces.tune), config.router_views, config, masks)
    side_px = torch.from_numpy(views.side_px)
    torch.manual_seed(config.seed)

    def loss(some: Tensor) -> Tensor:
        return detail_loss(router(to_tensor(views.crops[some.numpy()])), side_px[some])

    learn(router, loss, config.router_views, epochs=EPOCHS, rate=1e-2, decay=0.01)
