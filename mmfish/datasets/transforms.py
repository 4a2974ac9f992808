"""Loading images and annotations with the name of what cannot be read."""

import logging
from typing import Any

import mmcv.transforms
import mmdet.datasets.transforms
import numpy as np
import torch
from mmengine.logging import print_log

from mmfish.datasets.annotations import mask_problem
from mmfish.errors import DataError
from mmfish.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """MMCV's, which stops with the name of an image that cannot be read, or skips and counts it.

    Args:
        ignore_empty: in training, take another image instead of one that is missing, empty or
            damaged, with a warning that names and counts. Defaults to False.
        **kwargs: of MMCV's.

    Raises:
        DataError: an image cannot be read, and ``ignore_empty`` is False.
    """

    def __init__(self, ignore_empty: bool = False, **kwargs: Any) -> None:
        # MMCV's own way to ignore passes over missing files only, and in silence.
        super().__init__(ignore_empty=False, **kwargs)
        self.skip = ignore_empty
        # Shared by the worker processes.
        self.skipped = torch.zeros((), dtype=torch.long).share_memory_()

    def transform(self, results: dict) -> dict | None:
        """Load the image of ``results['img_path']``."""
        try:
            return super().transform(results)
        except Exception as error:  # of whichever storage and decoder
            size = 'it is damaged or no image' if isinstance(error, AssertionError) else error
            problem = f'{results["img_path"]} cannot be read: {size}'.replace('\n', ' ')
            if not self.skip:
                raise DataError(
                    f'{problem}; replace it, or skip such images in training with '
                    'ignore_empty=True in LoadImageFromFile of the train_pipeline'
                ) from error
        self.skipped += 1
        print_log(
            f'{problem}; another image takes its place ({self.skipped} skipped so far)',
            'current',
            logging.WARNING,
        )
        return None


@TRANSFORMS.register_module()
class LoadAnnotations(mmdet.datasets.transforms.LoadAnnotations):
    """MMDetection's, which names the image whose annotations cannot be used.

    Raises:
        DataError: a box or a mask does not fit the image, or there is none.
    """

    def transform(self, results: dict) -> dict:
        """Load the annotations of one image."""
        try:
            return super().transform(results)
        except Exception as error:  # of numpy, pycocotools and MMDetection, for many reasons
            reason = 'an object has no mask' if isinstance(error, KeyError) else error
            raise DataError(
                f'the annotations of {results["img_path"]} (image {results.get("img_id")}) cannot '
                f'be used: {reason}; correct them or take the image out'.replace('\n', ' ')
            ) from error

    def _poly2mask(self, mask_ann: list | dict, img_h: int, img_w: int) -> np.ndarray:
        problem = mask_problem(mask_ann, (img_h, img_w))
        if problem:
            raise ValueError(f'an object {problem}')
        if isinstance(mask_ann, list):
            # pycocotools needs memory for every pixel of an outline, wherever it is.
            reach = max(abs(polygon).max() for polygon in mask_ann)
            if not reach <= 10 * max(img_h, img_w):
                raise ValueError(
                    f'a polygon has the coordinate {reach:g}, and the image is {img_w}x{img_h}'
                )
        return super()._poly2mask(mask_ann, img_h, img_w)
