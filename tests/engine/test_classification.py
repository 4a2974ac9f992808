"""MMPretrain's classifiers through the runs that the tools start, on scikit-learn's digits."""

import pickle

import pytest
import torch
from mmengine.registry import DefaultScope

from demo import CONFIGS
from mmfish import config_path
from mmfish.engine.run import load_config, run_test, run_train
from mmfish.errors import MissingDataError

pytestmark = pytest.mark.slow

CONFIG = str(CONFIGS / 'fishnet55_digits.py')
# 69 iterations instead of 460; the rate falls to nothing at their end.
SHORT = {
    'train_cfg.max_epochs': 3,
    'train_cfg.val_interval': 3,
    'param_scheduler.1.end': 3,
    'default_hooks.checkpoint.interval': 1,
}


@pytest.fixture(autouse=True, scope='module')
def _scope():
    """Reset the scope that a runner leaves behind."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The work directory and the runner of a short training."""
    work_dir = tmp_path_factory.mktemp('digits')
    cfg = load_config(CONFIG, work_dir=str(work_dir), cfg_options=SHORT)
    return work_dir, run_train(cfg)


def test_fishnet55_learns_to_read_digits(trained):
    accuracy = trained[1].message_hub.get_scalar('val/accuracy/top1').current()
    assert accuracy > 60  # chance: 10


def test_testing_gives_the_accuracy_of_the_predictions_and_pictures(trained, tmp_path):
    work_dir, _ = trained
    pictures, out = tmp_path / 'pictures', tmp_path / 'out.pkl'
    cfg = load_config(
        CONFIG,
        work_dir=str(tmp_path),
        cfg_options={'test_dataloader.dataset.indices': 8},
    )
    metrics = run_test(cfg, str(work_dir / 'epoch_3.pth'), out=str(out), show_dir=str(pictures))
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == len(list(pictures.glob('*.png'))) == 8
    right = [int(p['pred_label']) == int(p['gt_label']) for p in predictions]
    assert metrics['accuracy/top1'] == pytest.approx(100 * sum(right) / 8)


def test_tta_averages_the_scores_of_an_image_and_its_flip(trained, tmp_path):
    work_dir, _ = trained
    scores = {}
    for tta in (False, True):
        out = tmp_path / f'{tta}.pkl'
        cfg = load_config(
            CONFIG,
            work_dir=str(tmp_path / str(tta)),
            cfg_options={'test_dataloader.dataset.indices': 8},
        )
        metrics = run_test(cfg, str(work_dir / 'epoch_3.pth'), tta=tta, out=str(out))
        assert 'accuracy/top1' in metrics
        scores[tta] = [p['pred_score'] for p in pickle.loads(out.read_bytes())]
    assert cfg.model.type == 'mmpretrain.AverageClsScoreTTA'
    for one, both in zip(scores[False], scores[True], strict=True):
        flipped = 2 * both - one
        assert not torch.allclose(one, both)
        assert flipped.sum() == pytest.approx(1, abs=1e-5)
        assert flipped.min() >= -1e-6


def test_a_resumed_run_ends_like_an_uninterrupted_one(trained, tmp_path):
    work_dir, whole = trained
    cfg = load_config(CONFIG, work_dir=str(tmp_path), cfg_options=SHORT)
    resumed = run_train(cfg, resume=str(work_dir / 'epoch_1.pth'))
    assert resumed.iter == whole.iter
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    accuracy = resumed.message_hub.get_scalar('val/accuracy/top1').current()
    assert accuracy > 60  # chance: 10


def test_auto_scale_lr_scales_to_the_batch(tmp_path):
    options = {
        **SHORT,
        'train_dataloader.batch_size': 16,
        'train_dataloader.dataset.indices': 16,
        'train_cfg.max_epochs': 1,
        'param_scheduler': [],
        'val_dataloader.dataset.indices': 1,
    }
    cfg = load_config(CONFIG, work_dir=str(tmp_path), cfg_options=options)
    runner = run_train(cfg, auto_scale_lr=True)
    assert runner.optim_wrapper.get_lr()['lr'] == pytest.approx([0.05 * 16 / 64])


def test_a_missing_imagenet_ends_a_run_before_it_begins(tmp_path):
    cfg = load_config(
        config_path('imagenet/fishnet150_imagenet.py'),
        work_dir=str(tmp_path / 'work'),
        data_root=str(tmp_path / 'nowhere'),
    )
    with pytest.raises(MissingDataError, match=f'{tmp_path}/nowhere/train'):
        run_train(cfg)
    assert not (tmp_path / 'work').exists()
