"""The index of configs, as MIM reads it."""

from pathlib import Path

import pytest
from mmengine.config import Config
from modelindex import load

from benchmarks.check_configs import experiments

ROOT = Path(__file__).parents[1]
# Of each schedule one, because every config takes half a second to read.
ONE_OF_A_KIND = (
    'mask_rcnn_fishnet150_fpn_coco',
    'htc_fishnext229_fpn_coco',
    'fishnet150_imagenet',
    'fishnet201_200e_imagenet',
    'fishnet77_cifar10',
    'fishnet55_fashion_mnist',
)


@pytest.fixture(scope='module')
def index():
    return load(str(ROOT / 'model-index.yml'))


def test_the_index_is_well_formed(index):
    assert index.check(silent=True) == []


def test_every_experiment_is_listed_once_under_its_name(index):
    listed = [model.config for model in index.models]
    assert sorted(listed) == [str(path.relative_to(ROOT)) for path in experiments(ROOT / 'configs')]
    assert [model.name for model in index.models] == [Path(config).stem for config in listed]


def test_the_files_that_mim_reads_exist(index):
    collections = {collection.name: collection for collection in index.collections}
    for model in index.models:
        assert model.weights is None  # no weights of ours are published
        assert collections[model.in_collection].metadata.data
        for value in model.metadata.data.values():
            assert isinstance(value, str | int)


def test_results_are_those_of_the_page_of_classification(index):
    page = (ROOT / 'docs' / 'classification.md').read_text(encoding='utf-8')
    # MIM wants a list where there are no results, too.
    measured = {model.name: result.metrics for model in index.models for result in model.results}
    assert list(measured) == ['fishnet55_fashion_mnist']
    for metrics in measured.values():
        assert f'{metrics["Top 1 Accuracy"]} %' in page


def test_the_epochs_are_those_of_the_config(index):
    for model in index.models:
        if model.name in ONE_OF_A_KIND:
            cfg = Config.fromfile(ROOT / model.config)
            assert model.metadata.data['Epochs'] == cfg.train_cfg.max_epochs
