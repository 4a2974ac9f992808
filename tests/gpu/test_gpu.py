"""One training step on a GPU in each mode that the docs recommend, and in all of them together."""

import pytest
import torch
from tiny_arch import TINY
from torch import Tensor

from mmfish.models import FishNet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no CUDA device'),
]
DEVICE = 'cuda'
MODES = ('amp', 'frozen_bn', 'with_cp', 'compile', 'channels_last')


def mean_square(levels: tuple[Tensor, ...]) -> Tensor:
    return sum(level.float().square().mean() for level in levels)


@pytest.mark.parametrize('modes', [*((mode,) for mode in MODES), MODES], ids='-'.join)
def test_one_step_has_the_loss_of_the_cpu_and_changes_every_weight(modes):
    torch.manual_seed(0)
    amp = 'amp' in modes
    layout = torch.channels_last if 'channels_last' in modes else torch.contiguous_format
    norm = 'mmfish.FrozenBN' if 'frozen_bn' in modes else 'BN'
    model = FishNet(TINY, norm_cfg=dict(type=norm), with_cp='with_cp' in modes).train()
    image = torch.rand(2, 3, 64, 64)
    expected = mean_square(model(image)).item()

    model.to(DEVICE, memory_format=layout)
    weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
    before = {name: one.detach().clone() for name, one in weights.items()}
    step = torch.compile(model) if 'compile' in modes else model
    optimizer = torch.optim.SGD(weights.values(), lr=0.1)
    scaler = torch.amp.GradScaler(DEVICE, init_scale=1.0, enabled=amp)
    with torch.autocast(DEVICE, torch.float16, enabled=amp):
        loss = mean_square(step(image.to(DEVICE, memory_format=layout)))
    scaler.scale(loss).backward()
    scaler.step(optimizer)

    assert loss.item() == pytest.approx(expected, rel=2e-2 if amp else 1e-3)
    assert [name for name, one in weights.items() if not one.isfinite().all()] == []
    assert [name for name, one in weights.items() if one.equal(before[name])] == []
