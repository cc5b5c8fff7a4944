import numpy as np
import pytest
import torch
from torch import nn

from edge_fr.errors import ModelNotFoundError
from edge_fr.models import resolve
from export.networks.backbone import FixedPReLU, MobileNetV1, load_sface
from export.networks.iresnet import AdaFaceIR, IResNet
from export.networks.mobilefacenet import FoamliuMobileFaceNet, MobileFaceNet


def test_the_body_and_tail_answer_what_sface_answers() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    try:
        path = resolve("sface")
    except ModelNotFoundError as error:
        pytest.skip(str(error))
    body, tail = load_sface(path)
    crops = np.random.default_rng(0).uniform(0, 255, (3, 3, 112, 112)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: crops})[0]
    with torch.inference_mode():
        found = tail(body.eval()(torch.from_numpy(crops))[1].flatten(1)).numpy()
    # Single precision in another order of summation: values reach 5, the difference stayed under 1e-5.
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "kind", [MobileNetV1, MobileFaceNet, FoamliuMobileFaceNet, IResNet, AdaFaceIR], ids=lambda b: b.__name__
)
def test_every_body_yields_a_map_of_14_and_one_of_7(kind: type[nn.Module]) -> None:
    body = kind()
    with torch.inference_mode():
        f3, f4 = body.eval()(torch.rand(2, 3, 112, 112) * 255)
    assert f3.shape == (2, body.f3_channels, 14, 14)
    assert f4.shape == (2, body.f4_channels, 7, 7)


def test_the_fixed_prelu_has_the_values_and_the_input_gradient_of_the_built_in_one() -> None:
    torch.manual_seed(0)
    ours, theirs = FixedPReLU(5), nn.PReLU(5)
    ours.weight = torch.tensor([0.1, 0.25, -0.3, 1.5, 0.0])
    theirs.weight.data = ours.weight.clone()
    x, y = (torch.linspace(-3, 3, 2 * 5 * 4).reshape(2, 5, 2, 2).requires_grad_() for _ in range(2))
    upstream = torch.randn(2, 5, 2, 2)
    ours(x).backward(upstream)
    theirs(y).backward(upstream)
    # lerp and the built-in multiply in another order: one rounding apart.
    torch.testing.assert_close(ours(x), theirs(y), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-6)


def test_a_frozen_body_gives_no_gradient_to_its_first_blocks_and_one_to_the_rest() -> None:
    body = MobileNetV1().train()
    body.freeze(1)
    body(torch.rand(1, 3, 112, 112) * 255)[1].sum().backward()
    with_gradient = {name for name, p in body.named_parameters() if p.grad is not None}
    assert not any(name.startswith(("stem.", "to_f3.0.")) for name in with_gradient)
    assert {"to_f3.1.0.conv.weight", "to_f4.1.1.conv.bias"} <= with_gradient
