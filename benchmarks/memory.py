"""Activation memory: the bytes that autograd keeps between the forward and the backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from benchmarks.complexity import build_classifier
from demo.markdown import markdown_table
from mmfish.errors import UsageError

META_CHECKPOINTING = '2.5'  # the first torch that recomputes on the meta device

# Of the comparison in section 4.2 of the paper, with and without recomputing in the backward pass.
COMPARED = {
    'FishNet-150': dict(name='fishnet150'),
    'DenseNet-161': dict(name='densenet161_3rdparty_in1k'),
    'FishNet-150, with_cp': dict(name='fishnet150', with_cp=True),
    'DenseNet-161, memory_efficient': dict(name='densenet161_3rdparty_in1k', memory_efficient=True),
}


def activation_memory(
    model: nn.Module, *inputs: Any, forward: Callable[..., Any] | None = None
) -> int:
    """Run the forward pass and count what autograd keeps for the backward pass.

    It is the same on any device, also on ``meta``, where counting costs neither memory nor time.
    Every storage counts once and whole, however many tensors share it (views, results of in-place
    operations). Parameters and buffers do not count, nor does what a checkpointed block frees, nor
    what a GPU needs on top: weights, gradients, the optimiser's state, workspaces of kernels and
    the allocator's reserve.

    Args:
        model: in the mode (train or eval) that is of interest.
        *inputs: of its forward pass, on its device.
        forward: what to call with them where that is not the model itself, such as its loss.

    Returns:
        The number of bytes.
    """
    own = {StorageWeakRef(t.untyped_storage()) for t in (*model.parameters(), *model.buffers())}
    # Weak references tell what is still held at the end, and keep addresses from being used twice.
    saved: dict[StorageWeakRef, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if reference not in own:
            saved[reference] = storage.nbytes()
        return tensor.detach()  # an output that a node saved would keep the node alive

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = (forward or model)(*inputs)
    held = sum(size for storage, size in saved.items() if not storage.expired())
    del outputs  # until here it kept the graph
    return held


def training_memory(name: str, batch_size: int = 32, size: int = 224, **options: Any) -> int:
    """The activation memory of a classifier in training, computed on the ``meta`` device.

    Args:
        name: as for `build_classifier`.
        batch_size: images.
        size: their height and width, in pixels.
        **options: as for `build_classifier`.

    Returns:
        The number of bytes.

    Raises:
        UsageError: ``with_cp`` with torch 2.4, whose checkpointing does not know that device.
    """
    if options.get('with_cp') and torch.__version__ < META_CHECKPOINTING:
        raise UsageError(
            f'the memory of a model with with_cp is counted with torch {META_CHECKPOINTING} or '
            f'later, and this is {torch.__version__}: update torch'
        )
    model = build_classifier(name, **options).to('meta').train()
    return activation_memory(model, torch.empty(batch_size, 3, size, size, device='meta'))


def memory_table(batch_size: int = 32, size: int = 224) -> str:
    """The activation memory of FishNet-150 and DenseNet-161, in Markdown.

    Args:
        batch_size: images.
        size: their height and width, in pixels.
    """
    held = {
        title: training_memory(batch_size=batch_size, size=size, **model)
        for title, model in COMPARED.items()
    }
    images = f'{batch_size} images of {size}x{size}'
    return markdown_table(
        [images, 'activation memory, MB', 'ratio to DenseNet-161'],
        [
            [title, f'{count / 1e6:,.0f}', f'{count / held["DenseNet-161"]:.2f}']
            for title, count in held.items()
        ],
        numbers=2,
    )
