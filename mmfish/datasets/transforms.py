"""MMCV's and MMDetection's transforms, with better handling of unusable images."""

import logging
from typing import Any

import mmcv.transforms
import mmdet.datasets.transforms
import numpy as np
import torch
from mmcv.image import rescale_size
from mmengine.logging import print_log

from mmfish.datasets.annotations import run_lengths_problem
from mmfish.errors import DataError
from mmfish.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """MMCV's ``LoadImageFromFile``, whose error names the image that cannot be read.

    Args:
        ignore_empty: in training, take another image instead of one that is missing, empty or
            damaged, and warn with its path and the number of images skipped. Defaults to False.
        **kwargs: options of MMCV's.

    Raises:
        DataError: an image cannot be read, and ``ignore_empty`` is False.
    """

    def __init__(self, ignore_empty: bool = False, **kwargs: Any) -> None:
        # MMCV's own ignore_empty skips missing files only, and says nothing.
        super().__init__(ignore_empty=False, **kwargs)
        self.skip = ignore_empty
        # Shared by the worker processes.
        self.skipped = torch.zeros((), dtype=torch.long).share_memory_()

    def transform(self, results: dict) -> dict | None:
        """Load the image of ``results['img_path']``."""
        try:
            return super().transform(results)
        except Exception as error:  # of whichever storage and decoder
            reason = 'it is damaged or no image' if isinstance(error, AssertionError) else error
            problem = f'{results["img_path"]} cannot be read: {reason}'.replace('\n', ' ')
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
    """MMDetection's ``LoadAnnotations``, whose error names the image with unusable annotations.

    Raises:
        DataError: a box or a mask does not fit the image, or an object has none.
    """

    def transform(self, results: dict) -> dict:
        """Load the annotations of one image."""
        try:
            if self.with_mask and self.poly2mask:
                for instance in results.get('instances', []):
                    problem = _mask_problem(instance['mask'], results['ori_shape'])
                    if problem:
                        raise ValueError(f'an object {problem}')
            return super().transform(results)
        except Exception as error:  # of numpy, pycocotools and MMDetection, for many reasons
            lacking = isinstance(error, KeyError)
            reason = f'an object has no {error.args[0]}' if lacking else error
            raise DataError(
                f'the annotations of {results["img_path"]} (image {results.get("img_id")}) cannot '
                f'be used: {reason}; correct them or take the image out'.replace('\n', ' ')
            ) from error


@TRANSFORMS.register_module()
class Resize(mmdet.datasets.transforms.Resize):
    """MMDetection's ``Resize``, which leaves every image at least one pixel high and wide.

    At a scale of (1333, 800), an image of 1x3000 that keeps its ratio would get a height of 0, and
    OpenCV would fail. Here it becomes 1x1333. All other images are resized as by MMDetection.
    """

    def transform(self, results: dict) -> dict:
        """Resize one image and its annotations."""
        size = self.scale
        if size and self.keep_ratio:
            height, width = results['img'].shape[:2]
            size = rescale_size((width, height), size)
        if size and 0 in size:
            stretch = mmdet.datasets.transforms.Resize(
                (max(size[0], 1), max(size[1], 1)),
                clip_object_border=self.clip_object_border,
                backend=self.backend,
                interpolation=self.interpolation,
            )
            return stretch(results)
        return super().transform(results)


def _mask_problem(mask: list | dict, size: tuple[int, int]) -> str | None:
    """What would make pycocotools' C code fail, of the masks that MMDetection does not ignore."""
    if isinstance(mask, list):
        for polygon in mask:
            if len(polygon) >= 6 and len(polygon) % 2 == 0:
                # pycocotools needs memory for every pixel of an outline, wherever it is.
                reach = np.abs(polygon).max()
                if not reach <= 10 * max(size):
                    return (
                        f'has a polygon with the coordinate {reach:g}, and the image is '
                        f'{size[1]}x{size[0]}'
                    )
    elif mask.get('size') is not None and isinstance(mask.get('counts'), list | str):
        return run_lengths_problem(mask, size)
    return None
