"""Fashion-MNIST is read gzipped, as published, and unpacked, as MMPretrain has it."""

from pathlib import Path

import pytest
from mmengine.config import Config
from small_fashion_mnist import COUNTS, write_fashion_mnist

from mmfish.config.own_data import own_data
from mmfish.config.paths import config_path
from mmfish.datasets import FashionMNIST


@pytest.mark.parametrize('packed', [True, False])
@pytest.mark.parametrize(('split', 'name'), [('train', 'train'), ('test', 't10k')])
def test_images_and_labels_are_those_of_the_files(tmp_path, packed, split, name):
    images, labels = write_fashion_mnist(tmp_path, packed)[name]
    data = FashionMNIST(data_root=str(tmp_path), split=split, test_mode=split == 'test')
    assert len(data) == COUNTS[name]
    for i in range(len(data)):
        assert (data[i]['img'] == images[i]).all()
        assert data[i]['gt_label'] == labels[i]
    assert len(list(tmp_path.iterdir())) == 4


def test_data_root_names_the_folder(tmp_path):
    write_fashion_mnist(tmp_path, packed=True)
    cfg = own_data(Config.fromfile(config_path('small/fishnet55_fashion_mnist.py')), tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert Path(loader.dataset.data_root) == tmp_path
