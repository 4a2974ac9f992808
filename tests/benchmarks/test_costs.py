"""The estimate of what trainings cost: its formulas, and where they can be compared."""

from pathlib import Path

import pytest

from benchmarks import costs
from benchmarks.costs import coco_table, imagenet_table
from mmfish.config.paths import config_folder

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / 'docs' / 'reproduce.md'


def cells(table):
    """The numbers of each row, by the name of its config."""
    rows = [line.strip('| ').split(' | ') for line in table.splitlines()[2:]]
    return {name.strip('`'): [float(cell) for cell in numbers] for name, *numbers in rows}


@pytest.fixture(scope='module')
def tables():
    pytest.importorskip('timm')  # has the two ResNets of pre-activation blocks
    folder = config_folder()
    return dict(coco=coco_table(folder), imagenet=imagenet_table(folder / 'imagenet'))


def test_the_page_has_the_tables(tables):
    for table in tables.values():
        assert table in PAGE.read_text()


def test_resnet_50_costs_what_was_published(tables):
    found = cells(tables['coco'])
    iterations = 32 * 117_266 / 16
    for detector, seconds, speed in (('faster', 0.216, 22.2), ('mask', 0.265, 19.6)):
        activations, *_, hours, _ = found[f'{detector}_rcnn_r50_fpn_coco.py']
        assert activations == 1
        assert hours == round(8 * iterations * seconds / 3600 + 32 * 5000 / speed / 3600)


@pytest.mark.parametrize(
    ('name', 'images'),
    # timm's figures, from the same file as ResNet-50's.
    [
        ('resnet101_8xb32_in1k', 568.98),
        ('resnext50-32x4d_8xb32_in1k', 663.39),
        ('densenet121_3rdparty_in1k', 730.11),
        ('densenet161_3rdparty_in1k', 346.02),
        ('res2net50-w14-s8_3rdparty_8xb32_in1k', 586.94),
        ('hrnet-w32_3rdparty_8xb32_in1k', 340.54),
    ],
)
def test_activations_of_other_networks_are_within_a_third_of_their_published_times(name, images):
    reference = costs._held(costs._classifier(costs.RESNET50), 32, 224, 224)
    ratio = costs._held(costs._classifier(name), 32, 224, 224) / reference
    published = costs.RESNET50_IMAGES / images
    assert ratio == pytest.approx(published, rel=0.35)
    assert f'| {published:.2f} | {ratio:.2f} |' in PAGE.read_text()
