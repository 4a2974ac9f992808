"""A runner for channels-last training and testing."""

import torch
from mmengine.runner import Runner
from torch import nn

from mmfish.registry import RUNNERS


@RUNNERS.register_module()
class ChannelsLastRunner(Runner):
    """MMEngine's ``Runner``, with weights and features in channels-last (NHWC) memory format.

    Only the weights are converted: PyTorch gives the output of a convolution the memory format of
    its weights, so that all features after the first convolution follow. The results stay the same.
    """

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Convert the weights, then wrap the model for distributed training.

        ``DistributedDataParallel`` lays out its buffers for gradients as the weights are when it
        wraps them; if these were converted later, each gradient would be copied in every step.

        Args:
            model_wrapper_cfg: of the wrapper, as in a config.
            model: to be wrapped.
        """
        return super().wrap_model(model_wrapper_cfg, model.to(memory_format=torch.channels_last))
