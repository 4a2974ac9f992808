"""scikit-learn's handwritten digits: real images that need no download."""

from typing import Any, ClassVar

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmfish.errors import MissingDataError
from mmfish.registry import DATASETS

TEST_IMAGES = 360


@DATASETS.register_module()
class Digits(BaseDataset):
    """The 1797 digits of 8x8 pixels that come with scikit-learn, for MMPretrain's configs.

    They are the test part of UCI's "Optical Recognition of Handwritten Digits". Of a fixed
    permutation of them the last 360 are for testing, the other 1437 for training.

    Args:
        split: 'train' or 'test'.
        **kwargs: of MMPretrain's BaseDataset (``pipeline``, ``indices``, ``test_mode``, ...). Each
            image goes into the pipeline as ``img``, (8, 8) of uint8, white on black, with its
            ``gt_label``.

    Raises:
        ValueError: there is no such split.
        MissingDataError: scikit-learn is not installed.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=tuple('0123456789'))

    def __init__(self, split: str, **kwargs) -> None:
        if split not in ('train', 'test'):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}")
        self.split = split
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """The images of the split and their labels."""
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError:
            raise MissingDataError(
                'The digits come with scikit-learn, which is not installed: run `pip install '
                'scikit-learn`.'
            ) from None
        digits = load_digits()
        order = np.random.RandomState(0).permutation(len(digits.target))
        part = order[:-TEST_IMAGES] if self.split == 'train' else order[-TEST_IMAGES:]
        # 16 is the brightest.
        images = np.round(digits.images[part] * (255 / 16)).astype(np.uint8)
        labels = digits.target[part].tolist()
        return [dict(img=img, gt_label=label) for img, label in zip(images, labels, strict=True)]
