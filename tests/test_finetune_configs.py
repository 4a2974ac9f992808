"""The configs of configs/finetune, for data of one's own."""

import json

import pytest
import torch
from mmdet.registry import MODELS
from slow_cases import slow_except

from benchmarks.data import CLASSES, write_data
from mmfish import config_path
from mmfish.config.paths import config_folder
from mmfish.config.validation import validate_config
from mmfish.engine.predict import run_predict
from mmfish.engine.run import load_config, run_train
from mmfish.models import FrozenBN

NAMES = sorted(file.name for file in (config_folder() / 'finetune').glob('*.py'))
SMALL = [name for name in NAMES if 'fishnet77' in name]


def load(name, folder, work_dir, **options):
    return load_config(
        config_path(f'finetune/{name}'),
        data_root=str(folder),
        work_dir=str(work_dir),
        cfg_options=options,
    )


@pytest.mark.parametrize('name', slow_except(NAMES[::3], NAMES))
def test_the_config_fits_the_data_and_counts_iterations(name, tmp_path):
    masks = name.startswith('mask')
    cfg = load(name, write_data(tmp_path, masks=masks), tmp_path / 'run')
    validate_config(cfg)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.with_mask == masks
    assert model.roi_head.bbox_head.num_classes == len(CLASSES)
    pretrained = 'fishnet150' in name
    assert any(isinstance(module, FrozenBN) for module in model.modules()) == pretrained
    assert ('init_cfg' in cfg.model.backbone) == pretrained
    # With an InfiniteSampler the length of the training does not depend on the number of images.
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
    assert cfg.train_cfg.type == 'IterBasedTrainLoop'
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].T_max
    assert not any(scheduler.by_epoch for scheduler in cfg.param_scheduler)
    assert not cfg.default_hooks.checkpoint.by_epoch


@pytest.mark.slow
@pytest.mark.parametrize('name', SMALL)
def test_from_a_folder_to_a_detector_and_to_its_predictions(name, tmp_path):
    folder = write_data(tmp_path / 'data', masks=name.startswith('mask'))
    options = {
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 2,
        'train_dataloader.batch_size': 2,
        'default_hooks.checkpoint.interval': 2,
    }
    run_train(load(name, folder, tmp_path / 'run', **options))
    out = tmp_path / 'seen'
    run_predict(str(tmp_path / 'run'), [str(folder / 'val2017')], str(out), score_thr=0)
    found = json.loads((out / 'predictions.json').read_text())
    assert {entry['file_name'] for entry in found} <= {'val0.png', 'val1.png'}
    assert {entry['category_name'] for entry in found} <= set(CLASSES)
    assert all(('segmentation' in entry) == name.startswith('mask') for entry in found)
    assert {'val0.png', 'val1.png'} <= {file.name for file in out.iterdir()}
