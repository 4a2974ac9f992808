import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from demo.digits import Digits
from mmfish.errors import MissingDataError


@pytest.fixture(scope='module')
def splits():
    return {split: Digits(split) for split in ('train', 'test')}


def contents(dataset):
    items = [dataset[i] for i in range(len(dataset))]
    return sorted((item['gt_label'], item['img'].tobytes()) for item in items)


def test_the_splits_hold_every_digit_once(splits):
    assert (len(splits['train']), len(splits['test'])) == (1437, 360)
    original = load_digits()
    expected = sorted(
        (label, np.round(image * 255 / 16).astype(np.uint8).tobytes())
        for image, label in zip(original.images, original.target.tolist(), strict=True)
    )
    assert sorted(contents(splits['train']) + contents(splits['test'])) == expected


def test_an_item_has_the_form_that_the_pipelines_read(splits):
    item = splits['test'][0]
    assert item['img'].shape == (8, 8)
    assert item['img'].dtype == np.uint8
    assert max(splits['test'][i]['img'].max() for i in range(10)) == 255
    assert splits['test'].metainfo['classes'][item['gt_label']] == str(item['gt_label'])


def test_both_splits_have_every_class_in_equal_shares(splits):
    for dataset in splits.values():
        share = np.bincount(dataset.get_gt_labels(), minlength=10) / len(dataset)
        assert ((share > 0.07) & (share < 0.13)).all()


def test_the_split_stays_as_it_is(splits):
    labels = ''.join(str(splits['test'][i]['gt_label']) for i in range(20))
    assert labels == '79470261313736716610'


def test_there_are_no_other_splits():
    with pytest.raises(ValueError, match="'train' or 'test', got 'val'"):
        Digits('val')


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(MissingDataError, match='pip install scikit-learn'):
        Digits('test')
