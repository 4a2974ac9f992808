"""Fashion-MNIST from the files as they are published."""

import os
from typing import Any

from mmpretrain.datasets import FashionMNIST as MMPretrainFashionMNIST
from mmpretrain.datasets.mnist import read_sn3_pascalvincent_tensor

from mmfish.registry import DATASETS


@DATASETS.register_module()
class FashionMNIST(MMPretrainFashionMNIST):
    """MMPretrain's FashionMNIST, which takes a folder of the four gzipped files too.

    Debian's package ``dataset-fashion-mnist`` has them in ``/usr/share/datasets/fashion-mnist``,
    where nothing can be unpacked. A folder without them is MMPretrain's to fill.

    Args:
        **options: of MMPretrain's FashionMNIST.
    """

    def load_data_list(self) -> list[dict[str, Any]]:
        """The images, (28, 28) of uint8, and the labels of the split."""
        names = self.test_list if self.test_mode else self.train_list
        files = [os.path.join(self.data_root, name) for name, _ in names]
        if not all(map(os.path.isfile, files)):
            return super().load_data_list()
        images, labels = (read_sn3_pascalvincent_tensor(file).numpy() for file in files)
        return [
            dict(img=image, gt_label=label)
            for image, label in zip(images, labels.tolist(), strict=True)
        ]
