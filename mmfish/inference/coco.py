"""Predictions, and how COCO's results format writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Predictions:
    """What was found in one image: n objects.

    Attributes:
        boxes: (n, 4), x1, y1, x2, y2 in pixels.
        scores: (n,), 0 to 1.
        labels: (n,), indices of classes.
        masks: (n, H, W), bool; None if there are none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None

    def above(self, score_thr: float) -> 'Predictions':
        """Those with at least a score, best first."""
        order = np.argsort(-self.scores, kind='stable')
        order = order[self.scores[order] >= score_thr]
        masks = None if self.masks is None else self.masks[order]
        return Predictions(self.boxes[order], self.scores[order], self.labels[order], masks)


def class_name(classes: Sequence[str], label: int) -> str:
    """The name of a class; ``class 7`` where there is none."""
    return classes[label] if label < len(classes) else f'class {label + 1}'


def coco_results(
    found: Predictions, image_id: int, file_name: str, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Write predictions in COCO's results format.

    Args:
        found: in one image.
        image_id: of the image.
        file_name: of the image.
        classes: names of the classes.

    Returns:
        A dict for each object: ``image_id``, ``category_id`` (1 for the first class),
        ``bbox`` (x, y, width, height), ``score``, ``segmentation`` (a run-length code) if there are
        masks, and beside COCO's keys ``file_name`` and ``category_name``.
    """
    results = []
    for i, (x1, y1, x2, y2) in enumerate(found.boxes.astype(float)):
        label = int(found.labels[i])
        result = dict(
            image_id=image_id,
            file_name=file_name,
            category_id=label + 1,
            category_name=class_name(classes, label),
            bbox=[round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
            score=round(float(found.scores[i]), 6),
        )
        if found.masks is not None:
            result['segmentation'] = encode_mask(found.masks[i])
        results.append(result)
    return results


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """The run-length code of a mask, as ``pycocotools.mask.encode`` writes it.

    Written here because a machine that only runs an exported file need not have pycocotools.

    Args:
        mask: (H, W), bool.

    Returns:
        ``size`` (H, W) and ``counts``, a string.
    """
    pixels = np.concatenate([[False], mask.ravel(order='F')])  # runs of False come first
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    runs = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    # Each number is the difference to the run before last, in groups of 5 bits, lowest first; bit
    # 5 says that another group follows.
    text = bytearray()
    for i, run in enumerate(runs):
        rest = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            group = rest & 0x1F
            rest >>= 5
            more = rest != (-1 if group & 0x10 else 0)
            text.append((group | (0x20 if more else 0)) + 48)
    return dict(size=list(mask.shape), counts=text.decode())
