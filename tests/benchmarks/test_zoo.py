import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from mmdet.utils import register_all_modules

from benchmarks.data import loaded_inputs, write_data
from benchmarks.zoo import (
    COLUMNS,
    OWN_DATA,
    by_family,
    read_results,
    run_zoo,
    try_model,
    zoo_tables,
)
from demo.markdown import fill_page
from mmfish import own_data
from mmfish.engine.inputs import TEXT, model_inputs

ATSS = ['atss/atss_r101.py', 'atss/atss_r50.py', 'atss/atss_r50_ms.py']
CONFIGS = [*ATSS, 'dcn/x101.py', 'rfp/rfp.py']
RETINANET = 'retinanet/retinanet_r18_fpn_1x_coco.py'
OK = dict.fromkeys(COLUMNS, 'passed')
NO_OP = 'RuntimeError: no such op on a CPU'


@pytest.fixture
def results(tmp_path):
    """Outcomes of an earlier run, so that nothing has to be tried."""
    outcomes = {name: OK for name in CONFIGS} | {
        'atss/atss_r50.py': dict.fromkeys(COLUMNS, NO_OP),
        'dcn/x101.py': OK | dict(FishNet='a | b'),
        'rfp/rfp.py': OK | dict(FishNet='refused, because it cannot be'),
    }
    file = tmp_path / 'zoo.jsonl'
    file.write_text(
        ''.join(
            json.dumps(dict(arch='fishnet77', config=name, **row)) + '\n'
            for name, row in outcomes.items()
        )
    )
    return file


def test_families_begin_with_their_plainest_config():
    assert by_family(CONFIGS) == {
        'atss': ['atss/atss_r50.py', 'atss/atss_r50_ms.py', 'atss/atss_r101.py'],
        'dcn': ['dcn/x101.py'],
        'rfp': ['rfp/rfp.py'],
    }


def test_a_config_with_outcomes_is_not_tried_again(results):
    before = results.read_text()
    assert list(run_zoo(CONFIGS, results)) == CONFIGS
    assert results.read_text() == before


def test_outcomes_of_another_arch_are_not_read(results):
    assert read_results(results, 'fishnet99') == {}


@pytest.mark.slow
def test_a_crash_with_fishnet_leaves_the_outcome_of_the_control(tmp_path, monkeypatch):
    monkeypatch.setitem(COLUMNS, 'FishNet', lambda cfg, arch, data: os._exit(139))
    monkeypatch.delitem(COLUMNS, OWN_DATA)
    outcomes = run_zoo([RETINANET], tmp_path / 'zoo.jsonl')[RETINANET]
    assert outcomes == dict(control='passed', FishNet='the process died (exit code 139)')


def test_a_new_column_is_tried_for_configs_that_lack_it(results, monkeypatch):
    results.write_text(json.dumps(dict(arch='fishnet77', config=RETINANET, **OK)) + '\n')
    monkeypatch.setitem(COLUMNS, 'new', lambda cfg, arch, data: os._exit(1))
    assert list(read_results(results, 'fishnet77')) == [RETINANET]
    outcomes = run_zoo([RETINANET], results)[RETINANET]
    assert outcomes == dict(**OK, new='the process died (exit code 1)')
    assert read_results(results, 'fishnet77') == {RETINANET: outcomes}


def test_a_config_that_takes_too_long_has_failed_and_is_kept(tmp_path):
    results = tmp_path / 'new' / 'zoo.jsonl'
    outcomes = run_zoo([RETINANET], results, limit=0)
    assert outcomes[RETINANET]['control'] == 'took more than 0 s'
    assert json.loads(results.read_text())['FishNet'] == 'took more than 0 s'


def test_the_tables_count_and_give_reasons(results):
    tables = zoo_tables([*CONFIGS, 'yolof/yolof.py'], read_results(results, 'fishnet77'))
    fishnet, own = (
        f'of these {{}} pass with {name} and {{}} are refused' for name in ('FishNet', '3 classes')
    )
    for what, tried, fish in (('3 of 4 families', 3, 1), ('5 of 6 configs', 4, 2)):
        words = f'{tried} controls passed', fishnet.format(fish, 1), own.format(tried, 0)
        assert f'**{what} tried: {", and ".join(words)}.**' in tables['counts']
    because = 'FishNet: refused, because it cannot be'
    assert tables['families'].splitlines()[2:] == [
        '| atss/atss_r50_ms | passed | passed | passed |  |',
        '| dcn/x101 | passed | failed | passed | FishNet: a \\| b |',
        f'| rfp/rfp | passed | refused | passed | {because} |',
    ]
    assert tables['reasons'].splitlines()[2:] == [
        f'| control and FishNet and 3 classes: {NO_OP} | 1 | atss/atss_r50 |',
        '| FishNet: a \\| b | 1 | dcn/x101 |',
        f'| {because} | 1 | rfp/rfp |',
    ]


def test_the_page_has_a_place_for_every_table(tmp_path):
    page = Path(shutil.copy(Path(__file__).resolve().parents[2] / 'docs' / 'zoo.md', tmp_path))
    fill_page(page, zoo_tables([], {}))
    assert '0 of 0 configs tried' in page.read_text()


@pytest.mark.parametrize('classes', [1, 80, 1203])
def test_targets_have_the_classes_of_the_model(classes):
    samples = model_inputs(dict(bbox_head=dict(num_classes=classes)), 64)['data_samples']
    assert len(samples) == 2
    labels = torch.cat([sample.gt_instances.labels for sample in samples])
    assert 0 <= labels.min() <= labels.max() < classes


def test_a_config_that_lacks_a_column_is_not_counted_yet():
    row = {name: 'passed' for name in COLUMNS if name != OWN_DATA}
    tables = zoo_tables(['atss/atss_r50.py'], {'atss/atss_r50.py': row})
    assert '0 of 1 configs tried' in tables['counts']


@pytest.fixture
def retinanet(tmp_path):
    """A config for the data set that the column of three classes has."""
    register_all_modules()  # so that data sets find the transforms
    write_data(tmp_path, TEXT, images=(2, 1), size=128)
    return own_data(f'mmdet::{RETINANET}', tmp_path)


@pytest.mark.parametrize(('split', 'images'), [('train', 2), ('val', 1)])
def test_a_pipeline_loads_small_images_with_all_classes(retinanet, split, images):
    batch = loaded_inputs(retinanet, split, 128)
    assert [tuple(image.shape) for image in batch['inputs']] == [(3, 100, 100)] * images
    for sample in batch['data_samples']:
        assert sample.gt_instances.labels.tolist() == list(range(len(TEXT)))


def test_three_classes_train_predict_and_are_evaluated(retinanet):
    assert all(loss > 0 for loss in try_model(retinanet, load=True).values())


@pytest.mark.slow
def test_more_classes_than_the_data_has_fail(retinanet):
    retinanet.model.bbox_head.num_classes = 80
    with pytest.raises(IndexError):
        try_model(retinanet, load=True)
