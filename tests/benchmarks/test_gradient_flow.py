import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from matplotlib.image import imread
from torch import nn

from benchmarks.complexity import build_classifier
from benchmarks.gradient_flow import (
    draw_gradient_flow,
    flow_table,
    gradient_norms,
    synthetic_images,
)


class Reversed(nn.Module):
    """Two convolutions that run in the opposite order to that in which they are built."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Conv2d(4, 10, 1), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.last(self.first(x)).mean((2, 3))


def test_gradient_norms_are_those_of_autograd_in_forward_order():
    model, (images, labels) = Reversed(), synthetic_images(4, size=16)
    norms = gradient_norms(model, images, labels)
    assert list(norms) == ['first', 'last']
    loss = F.cross_entropy(model(images), labels)
    expected = torch.autograd.grad(loss, [model.first.weight, model.last.weight])
    assert list(norms.values()) == pytest.approx([float(grad.norm()) for grad in expected])


def test_images_are_reproducible_and_differ_by_class():
    images, labels = synthetic_images(64, size=16)
    again, _ = synthetic_images(64, size=16)
    assert torch.equal(images, again)
    assert images.mean().abs() < 1e-5
    assert float(images.std()) == pytest.approx(1)
    same, other = (images[labels == label].mean(0) for label in labels.unique()[:2])
    assert (same - other).abs().mean() > 0.3


def test_table_and_picture(tmp_path):
    model = build_classifier('fishnet55')
    norms = gradient_norms(model, *synthetic_images(2, size=32))
    assert len(norms) == sum(isinstance(module, nn.Conv2d) for module in model.modules())
    both = {'fish': (norms, {name: 2 * norm for name, norm in norms.items()})}
    *_, row = flow_table(both).splitlines()
    title, count, before, after = (cell.strip() for cell in row.strip('|').split('|'))
    assert (title, count) == ('fish', str(len(norms)))
    assert before == after  # a ratio
    assert imread(draw_gradient_flow(both, 2, tmp_path / 'flow.png')).std() > 0.05
