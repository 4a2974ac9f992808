"""The report's preprocessing, which works on whole batches."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from mmpretrain.models import ClsDataPreprocessor
from torch import Tensor

from mmfish.registry import MODELS


@MODELS.register_module()
class ReportPreprocessor(ClsDataPreprocessor):
    """Batches of 56x56 pixels, three channels and values from 0 to 255, augmented in training.

    Args:
        size: height and width in pixels. Defaults to 56.
        **options: of MMPretrain's ClsDataPreprocessor.
    """

    def __init__(self, size: int = 56, **options: Any) -> None:
        super().__init__(**options)
        self.size = size

    def forward(self, data: dict, training: bool = False) -> dict:
        """Images of one size, collated to (N, 1 or 3, H, W) -> ``inputs``, (N, 3, size, size)."""
        data = super().forward(data, training)
        images = F.interpolate(data['inputs'], size=self.size, mode='bilinear')
        if training:
            images = augment(images)
        data['inputs'] = images.expand(-1, 3, -1, -1)
        return data


def augment(images: Tensor) -> Tensor:
    """Flip each image or not; change brightness, contrast and colours of the batch as a whole.

    The brightness of values up to 255 changes by less than 0.2, as in the report's code: next to
    nothing.

    Args:
        images: (N, C, H, W). Only three channels have colours that can be changed.

    Returns:
        A tensor of the same shape, whose values may be beyond 0 and 255.
    """
    flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    images = torch.where(flipped, images.flip(-1), images)
    images = images + _uniform(-0.2, 0.2)
    mean = images.mean((2, 3), keepdim=True)
    images = (images - mean) * _uniform(0.5, 1.5) + mean
    if images.shape[1] == 3:
        images = change_colours(images, _uniform(-0.2, 0.2), _uniform(0.5, 5))
    return images


def change_colours(images: Tensor, hue: float, saturation: float) -> Tensor:
    """Turn the hue and multiply the saturation (of HSV) of RGB images.

    Args:
        images: (N, 3, H, W).
        hue: in full turns.
        saturation: a factor; what becomes more than fully saturated stays at that.

    Returns:
        A tensor of the same shape.
    """
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    divisor = chroma.clamp(min=1e-6)
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    chroma = torch.minimum(chroma * saturation, value)
    turned = [(n + sextant + 6 * hue) % 6 for n in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in turned], 1)


def _uniform(low: float, high: float) -> float:
    return torch.empty(()).uniform_(low, high).item()
