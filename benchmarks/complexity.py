"""Parameters and multiply-adds of our architectures, of MMPretrain's models and of any config."""

from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mmpretrain
import torch
from mmdet.models import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.analysis import FlopAnalyzer
from mmengine.analysis.jit_handles import elementwise_flop_counter
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models import ImageClassifier
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.published import load_published
from demo.markdown import markdown_table
from mmfish.errors import UsageError
from mmfish.models import ARCHS, FishNet, FishNetClsHead

# Operators that are multiply-adds; the rest of what is counted is done element by element.
PRODUCTS = ('conv', 'linear', 'addmm', 'bmm', 'matmul', 'einsum', 'mm')


@dataclass(frozen=True)
class Complexity:
    """The cost of one forward pass.

    Attributes:
        parameters: their number.
        macs: multiply-adds of convolutions and matrix products.
        elementwise: operations of normalisation, ReLU, pooling and up-sampling.
    """

    parameters: int
    macs: int
    elementwise: int

    @property
    def flops(self) -> int:
        """Both together, a multiply-add being one: what is commonly published as FLOPs."""
        return self.macs + self.elementwise


def build_classifier(
    name: str, *, head: dict[str, Any] | None = None, **backbone: Any
) -> nn.Module:
    """A classifier by name, with random weights.

    Args:
        name: an arch of `FishNet`, or a model that `mmpretrain.list_models` lists.
        head: options of `FishNetClsHead`, such as ``num_classes``.
        **backbone: options of the backbone.

    Returns:
        MMPretrain's ImageClassifier.

    Raises:
        UsageError: there is neither an arch nor a model of that name.
    """
    if name not in ARCHS:
        try:
            return mmpretrain.get_model(name, backbone=backbone)
        except ValueError as error:
            raise UsageError(
                f'there is no arch and no model of MMPretrain {name!r}: expected one of '
                f'{", ".join(ARCHS)}, or a name that mmpretrain.list_models() lists'
            ) from error
    fish = FishNet(name, **backbone)
    return ImageClassifier(
        backbone=fish, head=FishNetClsHead(in_channels=fish.out_channels[-1], **(head or {}))
    )


def parameter_count(model: nn.Module, *, statistics: bool = False) -> int:
    """The number of parameters, frozen ones included.

    Args:
        model: any.
        statistics: count BatchNorm's running means and variances too, as Keras does. Defaults to
            False.
    """
    tensors = list(model.parameters())
    if statistics:
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        tensors += [b for m in norms for b in (m.running_mean, m.running_var)]
    return sum(t.numel() for t in tensors)


def complexity(model: nn.Module, shape: tuple[int, ...] = (224, 224)) -> Complexity:
    """Count parameters and operations for one RGB image, with MMEngine's counter.

    MMEngine counts a multiply-add as one and BatchNorm in eval mode as two for each element. Its
    `get_model_complexity_info` leaves out ReLU and pooling, which the published numbers have, and
    tells multiply-adds from nothing else; so its counter is used here, with one operation for each
    element of these two.

    Args:
        model: a classifier, backbone or detector.
        shape: (height, width) of the image in pixels.

    Returns:
        The counts.

    Raises:
        UsageError: the model cannot take an image of that size.
    """
    model = revert_sync_batchnorm(model)
    model.eval()  # which MMDetection's ResNet answers with None
    if isinstance(model, BaseDetector):
        size = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), shape)
        sample = DetDataSample(metainfo=dict(scale_factor=(1.0, 1.0), **size))
        # Not as an input: tracing takes tensors alone.
        model = copy(model)
        model.forward = partial(model.forward, data_samples=[sample])
    counter = FlopAnalyzer(model, torch.zeros(1, 3, *shape))
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counter.tracer_warnings('none')
    one_for_each = elementwise_flop_counter(1, 0)
    for op in ('relu', 'relu_', 'max_pool2d', 'avg_pool2d'):
        counter.set_op_handle(f'aten::{op}', one_for_each)
    try:
        counts = counter.by_operator()
    except ValueError as error:
        raise UsageError(str(error)) from error
    macs = sum(counts[op] for op in PRODUCTS)
    return Complexity(parameter_count(model), int(macs), int(sum(counts.values()) - macs))


def build_model(name: str, **options: Any) -> nn.Module:
    """The model of a config file (a path that ends in .py), or else `build_classifier`.

    Args:
        name: path or name.
        **options: as for `build_classifier`.

    Raises:
        UsageError: there is no such file, arch or model.
    """
    if not name.endswith('.py'):
        return build_classifier(name, **options)
    if not Path(name).is_file():
        raise UsageError(
            f'there is no config {name}: give the path of a file, or the name of an arch'
        )
    cfg = Config.fromfile(name)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        return MODELS.build(cfg.model)


def complexity_table(models: list[str], shape: tuple[int, int] = (224, 224)) -> str:
    """Parameters and operations of models beside the published ones, in Markdown.

    Args:
        models: names or paths as for `build_model`.
        shape: (height, width) of the image in pixels.

    Returns:
        One row for each. Archs are classifiers of 1000 classes, or of what ``published.json`` says;
        published operations are of 224x224 and shown for that size only.
    """
    published = load_published()['complexity']['rows']
    head = ['model', 'parameters', 'published', 'convolutions, GMACs', 'with BN, ReLU, pooling']
    rows = []
    for name in models:
        known = published.get(name, {})
        counts = complexity(build_model(name, head=known.get('head')), shape)
        parameters = known.get('parameters')
        gflops = known.get('gflops') if tuple(shape) == (224, 224) else None
        rows.append(
            [
                Path(name).stem,
                f'{counts.parameters:,}',
                '' if parameters is None else f'{parameters:,}',
                f'{counts.macs / 1e9:.3f}',
                f'{counts.flops / 1e9:.2f}',
                '' if gflops is None else f'{gflops:.2f}',
            ]
        )
    return markdown_table([*head, 'published, G'], rows, numbers=5)
