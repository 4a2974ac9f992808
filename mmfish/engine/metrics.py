"""Metrics: mask AP by size as MMDetection 1.x told the sizes, and what classifiers predict."""

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets.api_wrappers import COCOeval
from mmdet.evaluation import CocoMetric
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmfish.atomic import write_atomically
from mmfish.registry import METRICS

# As many classes of each image as top-5 accuracy needs.
TOP = 5


@METRICS.register_module()
class BoxAreaCocoMetric(CocoMetric):
    """MMDetection's ``CocoMetric``, with mask AP by size in the older measure beside today's.

    pycocotools tells whether an object is small, medium or large by its ``area``. For objects of
    the annotations that is the area that they state. For predicted masks ``COCO.loadRes`` takes the
    area of the ``bbox`` if the results have one, and otherwise counts the pixels of the mask.
    MMDetection 1.x wrote ``bbox`` into its mask results; today's takes it out before it evaluates.
    The area counts only for predictions that match no object: those outside the range of sizes are
    not held against the detector. AP over all sizes is the same in both measures.

    With ``metric='segm'`` among the metrics it adds ``segm_mAP_s_box_area``,
    ``segm_mAP_m_box_area`` and ``segm_mAP_l_box_area``, -1 where there is no such object. All
    arguments are those of ``CocoMetric``.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute both measures from the same predictions.

        Args:
            results: what `process` has collected, from all ranks.

        Returns:
            The metrics of ``CocoMetric``, and the three of the older measure.
        """
        metrics = super().compute_metrics(results)
        if not any(name.startswith('segm_') for name in metrics):
            return metrics  # no masks, nothing detected, or format_only
        # After super() the masks are as COCO's results format has them.
        found = [
            dict(
                image_id=image['img_id'],
                category_id=self.cat_ids[label],
                bbox=self.xyxy2xywh(box),
                score=float(score),
                segmentation=mask,
            )
            for _, image in results
            for label, box, score, mask in zip(
                image['labels'],
                image['bboxes'],
                image.get('mask_scores', image['scores']),
                image['masks'],
                strict=True,
            )
        ]
        evaluation = COCOeval(self._coco_api, self._coco_api.loadRes(found), 'segm')
        evaluation.params.catIds = self.cat_ids
        evaluation.params.imgIds = self.img_ids
        evaluation.params.maxDets = list(self.proposal_nums)
        evaluation.params.iouThrs = self.iou_thrs
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        for size, value in zip('sml', evaluation.stats[3:6], strict=True):
            metrics[f'segm_mAP_{size}_box_area'] = float(f'{value:.3f}')
        return metrics


class ClassPredictions(BaseMetric):
    """Write what a classifier predicts for each image into a CSV file.

    Its columns are ``image`` (the path, or the number in a data set that has no files), ``label``,
    and from the best class on ``class_1``, ``score_1`` and so on, up to five classes.

    A file that cannot be written is a warning, for it must not cost the other metrics.

    Args:
        file: to be written.
        **options: of MMEngine's BaseMetric: how the rows of all ranks are collected.
    """

    default_prefix = 'predictions'

    def __init__(self, file: str | os.PathLike, **options: Any) -> None:
        super().__init__(**options)
        self.file = file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the best classes of each image.

        Args:
            data_batch: not used.
            data_samples: what a classifier of MMPretrain returns, as dicts.
        """
        for sample in data_samples:
            row = [sample.get('img_path', sample.get('sample_idx')), int(sample['gt_label'])]
            if 'pred_score' in sample:
                best = sample['pred_score'].topk(min(TOP, len(sample['pred_score'])))
                for label, score in zip(best.indices.tolist(), best.values.tolist(), strict=True):
                    row += [label, score]
            else:
                row.append(int(sample['pred_label']))
            self.results.append(row)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Write the file.

        Args:
            results: the rows, from all ranks.

        Returns:
            No metrics.
        """
        columns = [f'{name}_{i + 1}' for i in range(TOP) for name in ('class', 'score')]
        columns = ['image', 'label', *columns][: len(results[0])]
        with failure_is_a_warning('The predictions', self.file):
            write_atomically(self.file, _csv([columns, *results]))
        return {}


@contextlib.contextmanager
def failure_is_a_warning(what: str, where: str | Path) -> Iterator[None]:
    """Go on where a result of a run cannot be written, and say so in its log.

    Args:
        what: is to be written, as the beginning of a sentence.
        where: a file or a folder.
    """
    try:
        yield
    except OSError as error:
        MMLogger.get_current_instance().warning(
            f'{what} could not be written to {where} ({error.strerror or error}): make room '
            'there, and test the checkpoint again'
        )


def _csv(rows: Iterable[Sequence]) -> bytes:
    text = io.StringIO(newline='')
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue().encode()
