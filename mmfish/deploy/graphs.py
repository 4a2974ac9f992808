"""What is exported: models as plain tensor operations from an image to boxes, scores and masks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import BBoxHead, FCNMaskHead, SingleRoIExtractor, StandardRoIHead
from mmdet.models.task_modules import LegacyDeltaXYWHBBoxCoder
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmpretrain.models import ClsHead, ImageClassifier
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align

from mmfish.errors import UsageError

# What a component's class must have unchanged, for a graph of ours to do what it does.
PREDICTION = (
    'predict',
    'predict_bbox',
    'predict_mask',
    'predict_by_feat',
    '_predict_by_feat_single',
    '_bbox_post_process',
    'map_roi_levels',
)

REFUSED = 'cannot be exported by mmfish (onedl-mmdeploy exports more of MMDetection):'


class ClassifierGraph(nn.Module):
    """An image -> the scores of the classes.

    Args:
        model: a classifier of MMPretrain's.

    Raises:
        UsageError: its head predicts in a way of its own.
    """

    outputs = ('scores',)

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        _check(model.head, ClsHead)
        self.normalize = Normalize(model.data_preprocessor)
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """(1, H, W, 3), RGB -> (1, classes)."""
        return self.model.head(self.model.extract_feat(self.normalize(image))).softmax(1)


class BackboneGraph(nn.Module):
    """A backbone alone.

    Args:
        model: takes (1, C, H, W), and returns its levels as a tuple.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.in_channels = getattr(model, 'in_channels', 3)
        levels = getattr(model, 'out_indices', None)
        if levels is None:
            raise UsageError(
                f'{type(model).__name__} {REFUSED} expected is a detector, a classifier, or a '
                'backbone with out_indices'
            )
        self.outputs = tuple(f'level{i}' for i in levels)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, C, H, W) -> the levels."""
        return tuple(self.model(image))


class DetectorGraph(nn.Module):
    """What detectors of one and of two stages have in common.

    Args:
        model: a detector of MMDetection's.
    """

    outputs: tuple[str, ...] = ('boxes', 'scores', 'labels')

    def __init__(self, model: nn.Module, test_cfg: ConfigDict) -> None:
        super().__init__()
        self.normalize = Normalize(model.data_preprocessor)
        self.model = model
        self.test_cfg = test_cfg
        # A buffer has a name in the file, by which the threshold can be changed.
        self.register_buffer('score_thr', torch.tensor(float(test_cfg.get('score_thr', 0))))


class OneStageGraph(DetectorGraph):
    """RetinaNet and its like: an image -> boxes, scores and labels.

    Args:
        model: any detector whose head predicts as MMDetection's `BaseDenseHead` does.

    Raises:
        UsageError: a component does not.
    """

    def __init__(self, model: SingleStageDetector) -> None:
        _check(model, SingleStageDetector)
        _check(model.bbox_head, BaseDenseHead)
        super().__init__(model, model.bbox_head.test_cfg)
        _check_nms(self.test_cfg)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, H, W, 3), RGB -> (n, 4), (n,) and (n,)."""
        head, cfg = self.model.bbox_head, self.test_cfg
        found = []
        for level in _levels(head, self.model.extract_feat(self.normalize(image))):
            scores, deltas, priors, *factors = level
            scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(1)[:, :-1]
            chosen, labels = (scores > self.score_thr).nonzero().unbind(1)
            scores = scores[chosen, labels]
            best = _best(scores, cfg.get('nms_pre', -1))
            chosen, scores, labels = chosen[best], scores[best], labels[best]
            for factor in factors:
                scores = scores * factor[chosen, 0].sigmoid()
            found.append((priors[chosen], deltas[chosen], scores, labels))
        priors, deltas, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        boxes = _decode(head.bbox_coder, priors, deltas, image.shape[1:3])
        return _suppress(cfg, boxes, scores, labels)


class TwoStageGraph(DetectorGraph):
    """Faster R-CNN and Mask R-CNN: an image -> boxes, scores and labels, and masks.

    Args:
        model: a detector with MMDetection's standard RPN and RoI head.

    Raises:
        UsageError: a component is another one.
    """

    def __init__(self, model: TwoStageDetector) -> None:
        _check(model, TwoStageDetector)
        roi_head = model.roi_head
        _check(model.rpn_head, RPNHead)
        _check(roi_head, StandardRoIHead)
        _check(roi_head.bbox_head, BBoxHead)
        _check_extractor(roi_head.bbox_roi_extractor)
        super().__init__(model, roi_head.test_cfg)
        _check_nms(self.test_cfg)
        _check_nms(model.rpn_head.test_cfg)
        if roi_head.with_mask:
            _check(roi_head.mask_head, FCNMaskHead)
            _check_extractor(roi_head.mask_roi_extractor)
            self.outputs = (*self.outputs, 'masks')

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, H, W, 3), RGB -> (n, 4), (n,) and (n,), and for Mask R-CNN (n, 28, 28)."""
        feats = self.model.extract_feat(self.normalize(image))
        size = image.shape[1:3]
        head, roi_head = self.model.roi_head.bbox_head, self.model.roi_head
        rois = self._proposals(feats, size)
        scores, deltas = head(self._pool(roi_head.bbox_roi_extractor, feats, rois))
        scores = scores.softmax(1)[:, :-1]
        chosen, labels = (scores > self.score_thr).nonzero().unbind(1)
        # One row of indices: with two, and no object, ONNX Runtime fails.
        if head.reg_class_agnostic:
            deltas = deltas[chosen]
        else:
            deltas = deltas.reshape(-1, head.bbox_coder.encode_size)
            deltas = deltas[chosen * head.num_classes + labels]
        scores, rois = scores[chosen, labels], rois[chosen]
        boxes = _decode(head.bbox_coder, rois, deltas, size)
        boxes, scores, labels = _suppress(self.test_cfg, boxes, scores, labels)
        if not roi_head.with_mask:
            return boxes, scores, labels
        masks = roi_head.mask_head(self._pool(roi_head.mask_roi_extractor, feats, boxes))
        if roi_head.mask_head.class_agnostic:
            masks = masks[:, 0]
        else:
            rows = torch.arange(labels.shape[0]) * roi_head.mask_head.num_classes
            masks = masks.flatten(0, 1)[rows + labels]
        return boxes, scores, labels, masks.sigmoid()

    def _proposals(self, feats: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        head = self.model.rpn_head
        cfg = head.test_cfg
        found = []
        for i, (scores, deltas, priors) in enumerate(_levels(head, feats)):
            scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(1)[:, :-1]
            scores = scores.squeeze(1)
            best = _best(scores, cfg.get('nms_pre', -1))
            scores = scores[best]
            found.append((priors[best], deltas[best], scores, torch.full_like(scores, i)))
        priors, deltas, scores, levels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return _suppress(cfg, _decode(head.bbox_coder, priors, deltas, size), scores, levels)[0]

    def _pool(
        self, extractor: SingleRoIExtractor, feats: Sequence[Tensor], boxes: Tensor
    ) -> Tensor:
        rois = F.pad(boxes, (1, 0))  # the number of the image, 0, in front
        layers = extractor.roi_layers
        levels = extractor.map_roi_levels(rois, len(layers))
        pooled, order = [], []
        for i, (layer, feat) in enumerate(zip(layers, feats, strict=False)):
            chosen = (levels == i).nonzero().squeeze(1)
            options = layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
            pooled.append(roi_align(feat, rois[chosen], *options))
            order.append(chosen)
        # Back in the order of the boxes. To write each level into its place fails in the runtimes.
        pooled = torch.cat(pooled)[torch.cat(order).argsort()]
        head = self.model.roi_head
        return head.shared_head(pooled) if head.with_shared_head else pooled


class Normalize(nn.Module):
    """What a data preprocessor of the OpenMMLab packages does to one image.

    Args:
        preprocessor: it is asked what it makes of black and of the three colours.
    """

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        colours = 255 * torch.cat([torch.zeros(3, 1), torch.eye(3)], 1)
        # OpenCV's order, blue first, is that of all pipelines.
        images = [colour.flip(0).view(3, 1, 1) for colour in colours.unbind(1)]
        seen = torch.stack([preprocessor(dict(inputs=[i]))['inputs'][0, :, 0, 0] for i in images])
        self.register_buffer('shift', seen[0])
        matrix = (seen[1:] - seen[0]) / 255
        self.register_buffer('scale', matrix.sum(0))
        self.order = matrix.abs().argmax(0).tolist()
        self.divisor = preprocessor.pad_size_divisor
        self.pad_value = float(preprocessor.pad_value)

    def forward(self, image: Tensor) -> Tensor:
        """(1, H, W, 3), RGB, 0 to 255 -> (1, 3, ~H, ~W), padded at the right and the bottom."""
        x = image.float()
        if self.order != [0, 1, 2]:
            x = x[..., self.order]
        x = (x * self.scale + self.shift).permute(0, 3, 1, 2).contiguous()
        if self.divisor > 1:
            height, width = x.shape[-2:]
            x = F.pad(
                x, (0, -width % self.divisor, 0, -height % self.divisor), value=self.pad_value
            )
        return x


def graph_of(model: nn.Module) -> nn.Module:
    """The graph for a model.

    Args:
        model: a detector, a classifier or a backbone. The graph takes it over.

    Raises:
        UsageError: the model, or a component of it, cannot be exported.
    """
    for kind, graph in (
        (ImageClassifier, ClassifierGraph),
        (SingleStageDetector, OneStageGraph),
        (TwoStageDetector, TwoStageGraph),
    ):
        if isinstance(model, kind):
            return graph(model)
    return BackboneGraph(model)


def _levels(head: nn.Module, feats: Sequence[Tensor]):
    """For each level the head's outputs as rows, one for each prior, and the priors."""
    outs = head(feats)
    sizes = [scores.shape[-2:] for scores in outs[0]]
    priors = head.prior_generator.grid_priors(sizes, device=feats[0].device)
    widths = head.cls_out_channels, head.bbox_coder.encode_size, 1
    for level_priors, *level in zip(priors, *outs, strict=True):
        scores, deltas, *factors = (
            part[0].permute(1, 2, 0).reshape(-1, width)
            for part, width in zip(level, widths, strict=False)
        )
        yield scores, deltas, get_box_tensor(level_priors), *factors


def _best(scores: Tensor, most: int) -> Tensor:
    """The indices of the ``most`` highest scores, in order; of all if ``most`` is not positive."""
    if most <= 0:
        return scores.argsort(descending=True)
    length = torch.as_tensor(scores.shape[0])
    return scores.topk(torch.minimum(length, torch.tensor(most))).indices


def _decode(coder, priors: Tensor, deltas: Tensor, size: Sequence[int]) -> Tensor:
    # Clipped below: in an export, a coder that is given a shape calls a function that is not there.
    boxes = get_box_tensor(coder.decode(priors, deltas))
    legacy = isinstance(coder, LegacyDeltaXYWHBBoxCoder)
    if not legacy and not coder.clip_border:
        return boxes
    # The coder of MMDetection 1.x always clips, and to the last pixel.
    height, width = (torch.as_tensor(side) - int(legacy) for side in size)
    return torch.minimum(boxes.clamp(min=0), torch.stack([width, height, width, height]).to(boxes))


def _suppress(
    cfg: ConfigDict, boxes: Tensor, scores: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    least = cfg.get('min_bbox_size', -1)
    if least >= 0:
        width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
        large = ((width > least) & (height > least)).nonzero().squeeze(1)
        boxes, scores, labels = boxes[large], scores[large], labels[large]
    # OpenVINO reads unwritten memory if there is no box at all, so one of score -1 comes last.
    boxes, scores, labels = (
        F.pad(boxes, (0, 0, 0, 1)),
        F.pad(scores, (0, 1), value=-1),
        F.pad(labels, (0, 1)),
    )
    groups = torch.zeros_like(labels) if cfg.nms.get('class_agnostic') else labels
    keep = batched_nms(boxes, scores, groups, cfg.nms.iou_threshold)[: cfg.max_per_img]
    keep = keep[scores[keep] >= 0]
    return boxes[keep], scores[keep], labels[keep]


def _check(component: nn.Module, base: type[nn.Module]) -> None:
    """Check that a component predicts as the stock one does."""
    name, stock = type(component).__name__, base.__name__
    if not isinstance(component, base) or any(
        getattr(component, method).__func__ is not getattr(base, method)
        for method in PREDICTION
        if hasattr(base, method)
    ):
        raise UsageError(f'{name} {REFUSED} expected is a component that predicts as {stock} does')


def _check_nms(cfg: ConfigDict) -> None:
    nms = cfg.get('nms') or {}
    if nms.get('type') != 'nms' or 'iou_threshold' not in nms:
        raise UsageError(f'the NMS {dict(nms)} {REFUSED} expected is one of type nms')


def _check_extractor(extractor: nn.Module) -> None:
    _check(extractor, SingleRoIExtractor)
    layer = extractor.roi_layers[0]
    if not isinstance(layer, RoIAlign) or layer.pool_mode != 'avg':
        raise UsageError(f'{layer} {REFUSED} expected is RoIAlign with pool_mode avg')
