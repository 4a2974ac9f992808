"""The classifier at the end of the fish."""

from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmfish.errors import ConfigError
from mmfish.models.fishnet import default_init_cfg, pre_score
from mmfish.registry import MODELS


@MODELS.register_module()
class FishNetClsHead(ClsHead):
    """BN-ReLU-1x1(c -> c/2)-BN-ReLU-GAP-1x1(c/2 -> classes), for mmpretrain's ImageClassifier.

    With ``feat_size`` a dense layer over the flattened map takes the place of GAP-1x1, as in the
    reproduction on small images that `mmfish.models.archs` names.

    Args:
        num_classes: classes. Defaults to 1000.
        in_channels: c, channels of the backbone's last level. Defaults to 2112, that of
            fishnet99, 150 and 201.
        feat_size: height and width of the last level, for the dense layer. Defaults to None: any
            size, averaged.
        norm_cfg: the normalisation layers. Defaults to dict(type='BN').
        init_cfg: how to initialise. Defaults to that of `FishNet`.
        **kwargs: of mmpretrain's ClsHead (``loss``, ``topk``, ``cal_acc``).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 2112,
        feat_size: int | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(init_cfg=init_cfg or default_init_cfg(), **kwargs)
        self.feat_size = feat_size
        c = in_channels // 2
        if feat_size is None:
            end = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, num_classes, 1), nn.Flatten()]
        else:
            end = [nn.Flatten(), nn.Linear(c * feat_size**2, num_classes)]
        self.score = nn.Sequential(*pre_score(in_channels, norm_cfg or dict(type='BN')), *end)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The last level, (N, c, H, W)."""
        return feats[-1]

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Levels of the backbone -> logits, (N, num_classes).

        Raises:
            ConfigError: the last level does not have the ``feat_size`` that was given.
        """
        x = self.pre_logits(feats)
        if self.feat_size is not None and x.shape[-2:] != (self.feat_size, self.feat_size):
            raise ConfigError(
                f'FishNetClsHead was built for a last level of {self.feat_size}x{self.feat_size} '
                f'(feat_size) and got {x.shape[-2]}x{x.shape[-1]}: resize the images, or change '
                'feat_size'
            )
        return self.score(x)
