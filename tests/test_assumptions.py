"""What mmfish relies on in other packages without a promise of theirs.

Each test fails with a sentence that says what is missing and which part of mmfish needs it. Run it
first after an upgrade: `make test PYTEST_ARGS=tests/test_assumptions.py`.
"""

import inspect
import re
import sys
from functools import partial
from pathlib import Path

import mmcv.cnn
import mmcv.ops
import mmdet
import mmengine.runner.checkpoint
import numpy as np
import pytest
import torch
import torch.distributed.elastic.rendezvous.dynamic_rendezvous as rendezvous
from mmdet.datasets import CocoDataset
from mmengine.dataset import worker_init_fn
from mmengine.hooks import CheckpointHook
from mmengine.model import initialize
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop, Runner
from torch import nn
from torch.distributed.elastic.agent.server import local_elastic_agent

from mmfish.registry import MODELS


def require(condition: object, sentence: str) -> None:
    assert condition, f'{sentence}. Find its successor, or a public way, in what is named there.'


@pytest.mark.parametrize('name', ['BatchNorm1d', 'BatchNorm2d', 'BatchNorm3d', 'SyncBatchNorm'])
def test_batch_norms_have_a_common_base(name):
    base = getattr(torch.nn.modules.batchnorm, '_BatchNorm', None)
    require(
        base and issubclass(getattr(nn, name), base),
        f'torch.nn.modules.batchnorm._BatchNorm is no base of nn.{name} any more; norm_eval, '
        'with_cp, mmfish.fuse and plug_in (mmfish/models, mmfish/config/plug_in.py) find BatchNorm '
        'by it',
    )


def test_weight_initialisers_find_batch_norm_by_the_name_of_its_base():
    norm = nn.BatchNorm2d(2)
    nn.init.zeros_(norm.weight)
    initialize(norm, dict(type='Constant', layer=['_BatchNorm'], val=1))
    require(
        norm.weight.eq(1).all(),
        "MMEngine's initialisers do not find nn.BatchNorm2d by layer='_BatchNorm' any more; "
        'default_init_cfg (mmfish/models/fishnet.py) needs it',
    )


def test_modules_load_their_own_part_of_a_state_dict():
    parameters = list(inspect.signature(nn.Module._load_from_state_dict).parameters)
    require(
        parameters[1:6] == ['state_dict', 'prefix', 'local_metadata', 'strict', 'missing_keys'],
        'nn.Module._load_from_state_dict has other parameters; FrozenBN (mmfish/models/norm.py) '
        'and FishNet (mmfish/models/fishnet.py) override it',
    )


def test_a_batch_norm_of_version_2_has_a_counter():
    require(
        getattr(nn.BatchNorm2d, '_version', None) == 2,
        'nn.BatchNorm2d._version is not 2; FrozenBN (mmfish/models/norm.py) writes checkpoints of '
        'that version',
    )


def test_mmcv_names_a_norm_layer_by_its_abbreviation():
    with MODELS.switch_scope_and_registry('mmfish'):
        name, _ = mmcv.cnn.build_norm_layer(dict(type='mmfish.FrozenBN'), 4, postfix=1)
    require(
        name == 'bn1',
        'MMCV does not read _abbr_ any more; FrozenBN (mmfish/models/norm.py) is named bn by it, '
        'as BatchNorm is in checkpoints',
    )


def test_the_gradient_of_max_pooling_is_an_operator():
    operator = getattr(torch.ops.aten, 'max_pool2d_with_indices_backward', None)
    x = torch.rand(1, 1, 4, 4)
    y, indices = nn.functional.max_pool2d(x, 2, return_indices=True)
    gradient = operator and operator(
        torch.ones_like(y), x, [2, 2], [2, 2], [0, 0], [1, 1], False, indices
    )
    require(
        gradient is not None and gradient.sum() == 4,
        'torch.ops.aten.max_pool2d_with_indices_backward is gone or takes other arguments; '
        'MaxPool2d (mmfish/models/pooling.py) calls it',
    )


def test_a_checkpoint_hook_knows_its_storage_and_its_checkpoints(tmp_path):
    runner = Runner(nn.Linear(1, 1), str(tmp_path))
    hook = CheckpointHook()
    hook.before_train(runner)
    for name in ('last_ckpt', 'file_backend', 'out_dir', 'args'):
        require(
            hasattr(hook, name),
            f"MMEngine's CheckpointHook has no {name} any more; AtomicCheckpointHook "
            '(mmfish/engine/fault_tolerance/saving.py) needs it to know what has been written',
        )


def test_a_loop_over_epochs_says_when_it_evaluates(tmp_path):
    runner = Runner(nn.Linear(1, 1), str(tmp_path))
    loader = dict(
        dataset=[0], sampler=dict(type='DefaultSampler', shuffle=False), batch_size=1, num_workers=0
    )
    loop = EpochBasedTrainLoop(runner, loader, max_epochs=1)
    for name in ('dynamic_milestones', 'dynamic_intervals', 'val_begin', 'val_interval'):
        require(
            hasattr(loop, name),
            f"MMEngine's EpochBasedTrainLoop has no {name} any more; ResumableTrainLoop "
            '(mmfish/engine/fault_tolerance/resuming.py) makes up for evaluations by it',
        )
    seeding = loop.dataloader.worker_init_fn
    require(
        isinstance(seeding, partial) and seeding.func is worker_init_fn,
        "MMEngine's data loaders seed their workers in another way; ResumeHook "
        '(mmfish/engine/fault_tolerance/resuming.py) leaves that to PyTorch',
    )


@pytest.mark.skipif(torch.__version__ < '2.5', reason='torch 2.4 shares no store between starts')
def test_a_restart_can_have_a_store_of_its_own():
    require(
        'TORCH_DISABLE_SHARE_RDZV_TCP_STORE' in inspect.getsource(rendezvous),
        'torchrun does not read TORCH_DISABLE_SHARE_RDZV_TCP_STORE any more; without it the ranks '
        'of a restart (MAX_RESTARTS of tools/dist_train.sh) wait at addresses of dead ones',
    )


@pytest.mark.parametrize('name', ['TORCHELASTIC_RESTART_COUNT', 'TORCHELASTIC_MAX_RESTARTS'])
def test_torchrun_says_how_often_it_has_started_the_ranks(name):
    require(
        name in inspect.getsource(local_elastic_agent),
        f'torchrun does not set {name} any more; start_from_checkpoint (mmfish/engine/prepare.py) '
        'tells a restart by it',
    )


def test_mmengines_loaders_of_files_and_urls_can_be_put_back():
    names = [hasattr(mmengine.runner.checkpoint, f'load_from_{kind}') for kind in ('local', 'http')]
    require(
        all(names) and hasattr(CheckpointLoader, 'register_scheme'),
        'mmengine.runner.checkpoint has no load_from_local or load_from_http any more; '
        'plain_data_only (mmfish/checkpoints/loading.py) puts them back after a run',
    )


def test_importing_the_ops_of_mmcv_loads_its_compiled_module():
    require(
        mmcv.ops and 'mmcv._ext' in sys.modules,
        "MMCV's compiled ops are not in mmcv._ext any more; mmfish/stack.py looks for them there",
    )


def test_onedls_packages_name_themselves_in_their_version():
    versions = [Path(module.__file__).parent / 'version.py' for module in (mmcv, mmengine, mmdet)]
    found = {'onedl' in file.read_text() for file in versions}
    require(
        len(found) == 1,
        "some of mmcv, mmengine and mmdet say 'onedl' in version.py and some do not; by it "
        'mmfish/stack.py tells which names to put into its advice',
    )


@pytest.mark.parametrize(
    'name', ['__init__', 'load_data_list', 'parse_data_info', 'COCOAPI', 'ANN_ID_UNIQUE']
)
def test_a_coco_data_set_reads_its_file_in_known_places(name):
    require(
        hasattr(CocoDataset, name),
        f"MMDetection's CocoDataset has no {name} any more; check_annotation_files "
        '(mmfish/datasets/annotations.py) tells by it which data sets read as CocoDataset does',
    )


def test_a_data_set_can_be_asked_for_its_files_before_they_are_read():
    dataset = CocoDataset(ann_file='nowhere.json', metainfo=dict(classes=('a',)), lazy_init=True)
    require(
        dataset.ann_file == 'nowhere.json' and dataset.metainfo['classes'] == ('a',),
        'lazy_init=True does not give ann_file and metainfo any more; check_annotation_files '
        '(mmfish/datasets/annotations.py) asks for them',
    )


def test_numpys_message_when_there_is_nothing_to_join():
    with pytest.raises(ValueError, match='at least one array') as raised:
        np.concatenate([])
    require(
        re.search('at least one array', str(raised.value)),
        'NumPy has another message; check_classes (mmfish/engine/check.py) tells an empty data set '
        'by it',
    )
