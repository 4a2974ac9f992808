"""What is run, as data: networks, conditions, data sets, rates and variants."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NETWORKS = {
    'fishnet150': 'FishNet-150',
    'resnet50': 'ResNet-50',
    'resnext50': 'ResNeXt-50 32x4d',
}
CONDITIONS = {'scratch': 'A, from scratch', 'pretrained': 'B, pre-trained'}
DETECTORS = {'mask_rcnn': 'Mask R-CNN', 'faster_rcnn': 'Faster R-CNN'}
DATA = ('nuclei', 'shapes')
SEEDS = (0, 1, 2)
ITERATIONS, SEARCH_ITERATIONS = 640, 160
EPOCH = 40  # iterations: both data sets have 320 images to train on
# Not one of `SEEDS`: the rate that is best with one seed is a little too good with it.
SEARCH_SEED = 10

# The rates that are tried for each network: the optimiser's, and by what the backbone's is
# multiplied.
RATES = dict(
    # Backbones this thin need high rates; a low one that is not multiplied is not worth its time.
    scratch=[
        *((rate, 5) for rate in (0.0005, 0.001, 0.002, 0.004)),
        *((rate, 1) for rate in (0.002, 0.004)),
    ],
    pretrained=[(rate, 1) for rate in (0.005, 0.01, 0.02, 0.04)],
)
BACKBONE_RATE = 'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult'

# What makes of the Mask R-CNN a Faster R-CNN, which reads no masks.
FASTER_RCNN = {
    'model.type': 'FasterRCNN',
    'model.roi_head.mask_roi_extractor': None,
    'model.roi_head.mask_head': None,
    'train_dataloader.dataset.pipeline.1.with_mask': False,
    'val_dataloader.dataset.pipeline.2.with_mask': False,
    'val_evaluator.metric': 'bbox',
}
# Shapes are as large as the crops, micrographs are enlarged to twice that.
SHAPES_SIZE = 192
SHAPES = {
    'train_dataloader.dataset.pipeline.2.scale': (SHAPES_SIZE, SHAPES_SIZE),
    'val_dataloader.dataset.pipeline.1.scale': (SHAPES_SIZE, SHAPES_SIZE),
}
# What may help FishNet to start: changes to its config of condition A.
AS_RELEASED = {'model.backbone.zero_init_residual': False}
ADAPTER = {'model.neck.type': 'mmfish.FishFPN'}
VARIANTS: dict[str, dict[str, Any]] = {
    'as-released': AS_RELEASED,
    'depth-scaled': {**AS_RELEASED, 'model.backbone.init_cfg.type': 'DepthScaledInit'},
    'adapter': ADAPTER,
    'as-released_adapter': {**AS_RELEASED, **ADAPTER},
    'group-norm': {
        'model.backbone.norm_cfg.type': 'GN',
        'model.backbone.norm_cfg.num_groups': 4,
    },
    'backbone-rate-10': {BACKBONE_RATE: 10},
    'no-clipping': {'optim_wrapper.clip_grad.max_norm': 1e12},
    'clipping-1': {'optim_wrapper.clip_grad.max_norm': 1.0},
    'warm-up-120': {'param_scheduler.0.end': 120},
    'dilation-none': {'model.backbone.dilation': 'none'},
    'dilation-body-head': {'model.backbone.dilation': 'body+head'},
}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        network: a key of `NETWORKS`.
        condition: a key of `CONDITIONS`, or 'fashion-mnist' for the classification before B.
        detector: a key of `DETECTORS`.
        data: one of `DATA`.
        seed: of weights and order of the data.
        rate: of a search, one of `RATES`; None for the one that the search has found.
        variant: a key of `VARIANTS`, or ''.
    """

    network: str
    condition: str
    detector: str = 'mask_rcnn'
    data: str = 'nuclei'
    seed: int = 0
    rate: tuple[float, float] | None = None
    variant: str = ''

    @property
    def name(self) -> str:
        """Of its record and its work folder."""
        if self.condition == 'fashion-mnist':
            return self.config
        end = f'seed{self.seed}'
        if self.rate:
            end = f'rate{self.rate[0]}x{self.rate[1]}'
        parts = (self.config, self.variant, self.detector, self.data, end)
        return '_'.join(filter(None, parts))

    @property
    def config(self) -> str:
        """The name of its config."""
        return f'{self.condition}_{self.network}'

    @property
    def iterations(self) -> int:
        """How many it has."""
        if self.condition == 'fashion-mnist':
            return 3 * 938
        return SEARCH_ITERATIONS if self.rate else ITERATIONS

    @property
    def drawn(self) -> bool:
        """Whether it has a curve. The others are evaluated at the end alone, to save the time."""
        plain = (self.detector, self.data, self.variant) == ('mask_rcnn', 'nuclei', '')
        return plain and self.rate is None

    def options(self, rate: tuple[float, float] | None) -> dict[str, Any]:
        """What it changes in its config, by dotted names.

        Args:
            rate: its own, or the one that was found for its network and condition.
        """
        options: dict[str, Any] = {'randomness.seed': self.seed}
        if self.condition == 'fashion-mnist':
            return options
        scratch = self.condition == 'scratch'
        length = self.iterations if scratch else self.iterations // EPOCH
        options['optim_wrapper.optimizer.lr'] = rate[0]
        if scratch:
            options[BACKBONE_RATE] = rate[1]
        if not self.drawn:
            options['train_cfg.val_interval'] = length
        if self.rate and scratch:
            options |= {'train_cfg.max_iters': length, 'param_scheduler.1.T_max': length}
        elif self.rate:
            options |= {
                'train_cfg.max_epochs': length,
                'param_scheduler.1.end': length,
                'param_scheduler.1.milestones': [length * 5 // 8],  # 10 of 16
            }
        if self.detector == 'faster_rcnn':
            options |= FASTER_RCNN
        if self.data == 'shapes':
            options |= SHAPES
        return options | VARIANTS.get(self.variant, {})


def search(network: str, condition: str) -> list[Run]:
    """The runs that find the rate of a network, on masks of nuclei."""
    return [Run(network, condition, seed=SEARCH_SEED, rate=rate) for rate in RATES[condition]]


def seeds(network: str, condition: str, *detector_and_data: str, variant: str = '') -> list[Run]:
    """The runs whose mean is a row of a table."""
    return [
        Run(network, condition, *detector_and_data, seed=seed, variant=variant) for seed in SEEDS
    ]


def plan() -> list[Run]:
    """Everything, in the order in which it is worth its time."""

    def in_turns(rows: Iterable[list[Run]]) -> list[Run]:
        """All first seeds before the second ones, so that an unfinished table is a fair one."""
        return sorted((run for row in rows for run in row), key=lambda run: run.seed)

    def searches(condition: str) -> list[Run]:
        return [run for network in NETWORKS for run in search(network, condition)]

    def rows(*parts: tuple[str, str]) -> list[Run]:
        return in_turns(
            seeds(network, condition, *part)
            for part in parts
            for condition in CONDITIONS
            for network in NETWORKS
        )

    nuclei = rows(('mask_rcnn', 'nuclei'))
    others = rows(('mask_rcnn', 'shapes'), ('faster_rcnn', 'nuclei'), ('faster_rcnn', 'shapes'))
    variants = in_turns(seeds('fishnet150', 'scratch', variant=v) for v in VARIANTS)
    return [
        *searches('scratch'),
        *nuclei[: len(NETWORKS)],
        *(Run(network, 'fashion-mnist') for network in NETWORKS),
        *searches('pretrained'),
        *nuclei[len(NETWORKS) :],
        *variants[: len(VARIANTS)],
        *others,
        *variants[len(VARIANTS) :],
    ]
