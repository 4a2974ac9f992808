"""The classifier at the end of the fish."""

from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmfish.models.fishnet import default_init_cfg, pre_score
from mmfish.registry import MODELS


@MODELS.register_module()
class FishNetClsHead(ClsHead):
    """BN-ReLU-1x1(c -> c/2)-BN-ReLU-GAP-1x1(c/2 -> classes), for mmpretrain's ImageClassifier.

    Args:
        num_classes: classes. Defaults to 1000.
        in_channels: c, channels of the backbone's last level. Defaults to 2112, that of
            fishnet99, 150 and 201.
        norm_cfg: the normalisation layers. Defaults to dict(type='BN').
        init_cfg: how to initialise. Defaults to that of `FishNet`.
        **kwargs: of mmpretrain's ClsHead (``loss``, ``topk``, ``cal_acc``).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 2112,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(init_cfg=init_cfg or default_init_cfg(), **kwargs)
        self.score = nn.Sequential(
            *pre_score(in_channels, norm_cfg or dict(type='BN')),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels // 2, num_classes, 1),
            nn.Flatten(),
        )

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The last level, (N, c, H, W)."""
        return feats[-1]

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Levels of the backbone -> logits, (N, num_classes)."""
        return self.score(self.pre_logits(feats))
