"""A detector, a data set and tools, so small that a bad input is met within a second."""

import runpy
from pathlib import Path

import pytest

from demo import CONFIGS
from mmfish.engine import run as engine_run

TOOLS = Path(__file__).parents[2] / 'tools'
ARCH = dict(
    stem=8,
    tail=dict(channels=(16, 32), blocks=(1, 1)),
    bridge=dict(blocks=1),
    body=dict(channels=(32, 24), blocks=(1, 1), transfers=(1, 1)),
    head=dict(blocks=(1, 1), transfers=(1, 1)),
)
CHANNELS = [32, 80, 112]


@pytest.fixture(scope='session')
def config(shapes, tmp_path_factory):
    """The path of a config for a tiny Mask R-CNN that trains for one iteration."""
    cfg = engine_run.load_config(
        str(CONFIGS / 'mask_rcnn_fishnet77_fpn_shapes.py'),
        data_root=str(shapes),
        cfg_options={
            'train_cfg.max_iters': 1,
            'train_cfg.val_interval': 10,
            'train_dataloader.batch_size': 2,
            'default_hooks.logger.interval': 1,
            **{f'{split}_dataloader.num_workers': 0 for split in ('train', 'val', 'test')},
            **{f'{split}_dataloader.persistent_workers': False for split in ('train', 'val')},
            'test_dataloader.persistent_workers': False,
        },
    )
    channels = 8
    model = cfg.model
    model.backbone.arch = ARCH
    model.neck.update(in_channels=CHANNELS, out_channels=channels, num_outs=3)
    model.rpn_head.update(in_channels=channels, feat_channels=channels)
    model.rpn_head.anchor_generator.strides = [4, 8, 16]
    heads = model.roi_head
    for kind in ('bbox', 'mask'):
        heads[f'{kind}_roi_extractor'].update(out_channels=channels, featmap_strides=[4, 8, 16])
        heads[f'{kind}_head'].in_channels = channels
    heads.bbox_head.fc_out_channels = 16
    heads.mask_head.update(conv_out_channels=8, num_convs=1)
    path = tmp_path_factory.mktemp('config') / 'tiny.py'
    cfg.dump(path)
    return path


def unformatted(*args, load_config=engine_run.load_config, **kwargs):
    cfg = load_config(*args, **kwargs)
    # To format the config for the log takes longer than all the rest; `fromfile` has no say in it.
    object.__setattr__(cfg, '_format_python_code', False)
    return cfg


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Run a tool in this process; returns the sentence it ends with, or None if it succeeds."""

    def run(name, *arguments):
        path = str(TOOLS / name)
        monkeypatch.setattr('sys.argv', [path, *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(engine_run, 'load_config', unformatted)
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as stopped:
            message = str(stopped.code)
            assert message.startswith(f'{name}: '), message
            assert '\n' not in message, message
            assert 'Traceback' not in message, message
            return message
        return None

    return run
