"""How much gradient reaches each convolution: norms of gradients against depth."""

import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from matplotlib.figure import Figure
from mmengine.logging import MMLogger
from torch import Tensor, nn

from benchmarks.complexity import build_classifier
from demo.markdown import markdown_table

NETWORKS = {
    'FishNet-150': dict(name='fishnet150'),
    # With MMPretrain's default, residual branches begin at zero, and so do their gradients.
    'ResNet-50': dict(name='resnet50_8xb32_in1k', zero_init_residual=False),
    'DenseNet-121': dict(name='densenet121_3rdparty_in1k'),
}


def synthetic_images(
    count: int, classes: int = 10, size: int = 64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Images that can be told apart: a smooth random pattern for each class, plus noise.

    Args:
        count: of images.
        classes: of patterns.
        size: height and width in pixels.
        seed: of patterns, noise and labels.

    Returns:
        Images (count, 3, size, size) of mean 0 and variance 1, and labels (count,).
    """
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, 3, 8, 8, generator=generator)
    patterns = F.interpolate(patterns, size=(size, size), mode='bicubic')
    labels = torch.randint(classes, (count,), generator=generator)
    images = patterns[labels] + torch.randn(count, 3, size, size, generator=generator)
    return (images - images.mean()) / images.std(), labels


def gradient_norms(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """The L2 norm of the cross-entropy's gradient at each convolution's weights.

    Args:
        model: maps images to logits; its gradients are replaced.
        images: (N, 3, H, W).
        labels: (N,).

    Returns:
        The norms by name of module, in the order in which the convolutions compute.
    """
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    order: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in convolutions.items()
    ]
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    for hook in hooks:
        hook.remove()
    return {name: float(convolutions[name].weight.grad.norm()) for name in order}


def gradient_flow(
    steps: int = 20, batch_size: int = 16, lr: float = 0.02, seed: int = 0
) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    """Gradient norms at initialisation and after some steps of SGD, on synthetic images.

    Args:
        steps: of SGD with momentum 0.9.
        batch_size: images in each step.
        lr: learning rate.
        seed: of weights and images.

    Returns:
        For each of `NETWORKS`, both of what `gradient_norms` returns.
    """
    MMLogger.get_current_instance().setLevel('WARNING')  # no line for every initialised parameter
    images, labels = synthetic_images(batch_size * (steps + 1), seed=seed)
    *batches, last = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    norms = {}
    for title, network in NETWORKS.items():
        torch.manual_seed(seed)
        model = build_classifier(**network)
        model.init_weights()
        model.train()
        before = gradient_norms(model, *last)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        for batch_images, batch_labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(batch_images), batch_labels).backward()
            optimizer.step()
        norms[title] = before, gradient_norms(model, *last)
    return norms


def flow_table(norms: dict[str, tuple[dict[str, float], dict[str, float]]]) -> str:
    """The first tenth of the convolutions against the last, in Markdown.

    Args:
        norms: as `gradient_flow` returns them.
    """
    rows = []
    for title, both in norms.items():
        count = len(both[0])
        tenth = max(count // 10, 1)
        logs = [np.log(list(values.values())) for values in both]
        ratios = (np.exp(log[:tenth].mean() - log[-tenth:].mean()) for log in logs)
        rows.append([title, str(count), *(f'{ratio:.2f}' for ratio in ratios)])
    head = ['network', 'convolutions', 'first / last tenth, at initialisation', 'after the steps']
    return markdown_table(head, rows, numbers=3)


def draw_gradient_flow(
    norms: dict[str, tuple[dict[str, float], dict[str, float]]], steps: int, out: Path
) -> Path:
    """Draw gradient norms against depth, a panel for each network.

    Args:
        norms: as `gradient_flow` returns them.
        steps: how many there were.
        out: the PNG to write. Its folder is made where there is none.

    Returns:
        ``out``.
    """
    figure = Figure(figsize=(13, 4.2), dpi=100, layout='constrained')
    panels = figure.subplots(1, len(norms), sharey=True, squeeze=False)[0]
    for axes, (title, (before, after)) in zip(panels, norms.items(), strict=True):
        axes.semilogy(list(before.values()), label='at initialisation')
        axes.semilogy(list(after.values()), label=f'after {steps} steps')
        parts = [_part(name) for name in before]
        starts = {i: part for i, part in enumerate(parts) if part != parts[i - 1]}
        # A label of a short part would lie on that of the next one.
        labels = [part * (parts.count(part) > len(parts) / 20) for part in starts.values()]
        axes.set_xticks(list(starts), labels, ha='left', fontsize=8)
        axes.grid(color='#e4e4e4')
        axes.set_title(title, loc='left')
    panels[0].set_ylabel('L2 norm of the gradient of the weights')
    panels[0].legend(frameon=False)
    figure.supxlabel('convolutions, in the order in which they compute')
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def _part(name: str) -> str:
    """The part of a network to which a convolution belongs: 'tail', 'stage 2', 'block 3', ..."""
    block = re.match(r'backbone\.(?:stages|transitions)\.(\d)', name)
    if block:
        return f'block {int(block[1]) + 1}'
    owner, part, *_ = name.split('.')
    return re.sub(r'layer(\d)', r'stage \1', part if owner == 'backbone' else 'score')
