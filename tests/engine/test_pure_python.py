"""Pure-Python configs from training to test-time augmentation, with FishNet and without it."""

import pickle
import runpy
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmfish.engine.fault_tolerance.resuming import ResumableTrainLoop
from mmfish.engine.fault_tolerance.saving import AtomicCheckpointHook
from mmfish.engine.run import load_config, run_test, run_train
from mmfish.errors import CheckpointError

CONFIGS = Path(__file__).parent / 'pure_python'
FISHNET = str(CONFIGS / 'retinanet_fishnet.py')
RESNET = str(CONFIGS / 'retinanet_resnet.py')


@pytest.fixture(autouse=True, scope='module')
def _scope():
    """Reset the scope that a runner leaves behind."""
    with DefaultScope.overwrite_default_scope('mmengine'):
        yield


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(FISHNET, id='fishnet'),
        pytest.param(RESNET, id='resnet', marks=pytest.mark.slow),
    ],
)
def trained(request, shapes, tmp_path_factory):
    """The config's path, and the runner of a training of one epoch."""
    work_dir = tmp_path_factory.mktemp(Path(request.param).stem)
    cfg = load_config(request.param, data_root=str(shapes), work_dir=str(work_dir))
    return request.param, run_train(cfg)


def test_a_training_has_atomic_checkpoints_exact_resume_and_our_transforms(trained):
    _, runner = trained
    assert any(type(hook) is AtomicCheckpointHook for hook in runner.hooks)
    assert isinstance(runner.train_loop, ResumableTrainLoop)
    steps = runner.train_dataloader.dataset.pipeline.transforms
    assert [type(step).__module__ for step in steps[:2]] == ['mmfish.datasets.transforms'] * 2
    assert Path(runner.work_dir, 'epoch_1.pth').is_file()


def test_the_config_in_the_work_directory_can_be_read(trained):
    config, runner = trained
    written = Config.fromfile(Path(runner.work_dir, Path(config).name))
    assert written.train_cfg.type == 'mmengine.runner.EpochBasedTrainLoop'
    assert written.train_dataloader.dataset.type == 'mmdet.datasets.CocoDataset'
    assert written.model.type == 'mmdet.models.RetinaNet'
    assert ('mmfish' in written.pretty_text) is (config == FISHNET)


def test_the_log_folder_and_the_checkpoints_have_the_same_config(trained):
    _, runner = trained
    files = list(Path(runner.work_dir).rglob('*.py'))
    checkpoint = torch.load(f'{runner.work_dir}/epoch_1.pth', weights_only=False)
    assert len(files) == 2
    assert {file.read_text() for file in files} == {checkpoint['meta']['cfg']}


@pytest.mark.slow
def test_a_run_resumes_from_its_checkpoint(trained, shapes, tmp_path):
    config, runner = trained
    cfg = load_config(
        config,
        data_root=str(shapes),
        work_dir=str(tmp_path),
        cfg_options={'train_cfg.max_epochs': 2},
    )
    resumed = run_train(cfg, resume=f'{runner.work_dir}/epoch_1.pth')
    assert resumed.iter == 2 * runner.iter


@pytest.mark.slow
def test_tta_predicts_the_same_as_mmdetections_tool(trained, shapes, tmp_path, monkeypatch):
    config, runner = trained
    checkpoint = f'{runner.work_dir}/epoch_1.pth'
    cfg = load_config(config, data_root=str(shapes), work_dir=str(tmp_path / 'ours'))
    cfg.dump(tmp_path / 'config.py')
    metrics = run_test(cfg, checkpoint, tta=True, out=str(tmp_path / 'ours.pkl'))
    assert 'coco/bbox_mAP' in metrics

    tool = Path(mmdet.__file__).parent / '.mim/tools/test.py'
    arguments = [tmp_path / 'config.py', checkpoint, '--tta', '--out', tmp_path / 'theirs.pkl']
    # The names in its own settings for --tta are looked up in the default scope.
    arguments += ['--work-dir', tmp_path / 'theirs', '--cfg-options', 'default_scope=mmdet']
    monkeypatch.setattr('sys.argv', [str(tool), *map(str, arguments)])
    monkeypatch.setenv('LOCAL_RANK', '0')
    runpy.run_path(str(tool), run_name='__main__')

    ours, theirs = (
        pickle.loads((tmp_path / f'{name}.pkl').read_bytes()) for name in ('ours', 'theirs')
    )
    assert len(ours) == len(theirs) == 4
    for one, other in zip(ours, theirs, strict=True):
        assert len(one['pred_instances']['scores'])
        for key in ('bboxes', 'scores', 'labels'):
            assert torch.equal(one['pred_instances'][key], other['pred_instances'][key])


def test_weights_that_do_not_fit_are_an_error_for_fishnet_and_else_a_warning(
    trained, shapes, tmp_path, capsys
):
    """Models of MMDetection load what fits, with its own warning."""
    config, runner = trained
    state_dict = runner.model.state_dict()
    del state_dict['bbox_head.retina_cls.weight']
    file = str(tmp_path / 'part.pth')
    torch.save(dict(state_dict=state_dict), file)
    cfg = load_config(config, data_root=str(shapes), work_dir=str(tmp_path))
    if config == FISHNET:
        with pytest.raises(CheckpointError, match=r'lacks bbox_head\.retina_cls\.weight'):
            run_test(cfg, file, tta=True)
        return
    run_test(cfg, file)
    printed = capsys.readouterr().out
    assert 'missing keys in source state_dict: bbox_head.retina_cls.weight' in printed
