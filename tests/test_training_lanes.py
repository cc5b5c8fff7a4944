import pytest
import torch
from torch import nn

from export.training.lanes import Lanes


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 5, 3, 2)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        f3 = torch.tanh(self.one(crops))
        return f3, torch.tanh(self.two(f3))


@pytest.mark.parametrize("both", [True, False], ids=["both maps", "the last map alone"])
@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_features_and_gradients_are_those_of_the_whole_batch(lanes: int, both: bool) -> None:
    torch.manual_seed(0)
    body, crops = Body(), torch.randn(7, 3, 20, 20)

    def loss(f3: torch.Tensor, f4: torch.Tensor) -> torch.Tensor:
        return (f4**2).sum() + ((f3**3).sum() if both else 0)

    expected_features = body(crops)
    loss(*expected_features).backward()
    expected = [p.grad.clone() for p in body.parameters()]
    body.zero_grad()
    runner = Lanes(body, lanes, bf16=False)
    features = runner.forward(crops)
    loss(*features).backward()
    runner.backward()
    for found, wanted in zip(features, expected_features, strict=True):
        torch.testing.assert_close(found, wanted)
    # Single precision, summed by share instead of at once.
    torch.testing.assert_close([p.grad for p in body.parameters()], expected, rtol=1e-4, atol=1e-5)
