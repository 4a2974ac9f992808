"""Table 3 in miniature: networks, plan, a real run that is resumed, and the page."""

import json
import re
import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models import ResNet, ResNeXt
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, DefaultScope
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.mini.__main__ import main
from benchmarks.mini.components import LOOKED_AT, DepthScaledInit
from benchmarks.mini.page import tables, write_page
from benchmarks.mini.plan import (
    CONDITIONS,
    ITERATIONS,
    NETWORKS,
    RATES,
    SEARCH_ITERATIONS,
    VARIANTS,
    Run,
    plan,
    search,
    seeds,
)
from benchmarks.mini.runs import (
    CONFIGS,
    RECORDS,
    Folders,
    carry_out,
    found_rate,
    rate_of,
    read_records,
)
from mmfish.config.validation import validate_config
from mmfish.errors import UsageError
from mmfish.models import FishNet, FrozenBN
from mmfish.models.fishnet import Bottleneck

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'claim.md'
FULL = {
    'fishnet150': lambda: FishNet('fishnet150'),
    'resnet50': lambda: ResNet(50),
    'resnext50': lambda: ResNeXt(depth=50, groups=32, base_width=4),
}


@cache
def text(config):
    return Config.fromfile(CONFIGS / f'{config}.py').pretty_text


def load(run, rate=(0.003, 5)):
    """The config of a run with its options, as the command line would set them."""
    cfg = Config.fromstring(text(run.config), '.py')
    options = {}
    for name, value in run.options(run.rate or rate).items():
        options[name] = DictAction._parse_iterable(str(value).replace(' ', ''))
    cfg.merge_from_dict(options)
    return cfg


def build(part):
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        return MODELS.build(part)


@pytest.mark.parametrize('network', NETWORKS)
def test_every_tensor_has_a_quarter_of_the_channels(network):
    small = dict(build(load(Run(network, 'scratch')).model.backbone).named_parameters())
    with torch.device('meta'):
        full = dict(FULL[network]().named_parameters())
    assert small.keys() == full.keys()
    for name, tensor in full.items():
        out, *inputs = tensor.shape
        assert small[name].shape[0] * 4 == out
        if inputs:
            image_or_group = inputs[0] == 3 or (network == 'resnext50' and 'conv2' in name)
            assert small[name].shape[1] * (1 if image_or_group else 4) == inputs[0]
            assert small[name].shape[2:] == tensor.shape[2:]


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('condition', ['scratch', 'fashion-mnist'])
def test_all_residual_branches_begin_at_zero(condition, network):
    cfg = load(Run(network, condition))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    last = 'conv3' if network == 'fishnet150' else 'bn3'
    ends = [p for name, p in backbone.named_parameters() if name.endswith(f'{last}.weight')]
    assert len(ends) == (46 if network == 'fishnet150' else 16)
    assert not any(p.any() for p in ends)
    assert all(p.any() for name, p in backbone.named_parameters() if name.endswith('conv2.weight'))


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('condition', CONDITIONS)
def test_networks_of_a_condition_differ_in_nothing_but_the_network(condition, network):
    ours, fish = (load(Run(name, condition)) for name in (network, 'fishnet150'))
    for cfg in (ours, fish):
        validate_config(cfg)
        cfg.model.pop('backbone')
        cfg.model.neck.pop('in_channels')
        cfg.pop('weights', None)
    assert ours.to_dict() == fish.to_dict()


def test_condition_a_is_adamw_for_640_iterations():
    cfg = load(Run('fishnet150', 'scratch'))
    assert cfg.train_dataloader.batch_size == 8
    assert cfg.train_dataloader.dataset.pipeline[3].crop_size == (192, 192)
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=0.003, weight_decay=0.05, fused=True
    )
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone == dict(lr_mult=5)
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[1].T_max == ITERATIONS == 640
    model = build(cfg.model)
    assert all(p.requires_grad for p in model.parameters())
    assert any(isinstance(m, _BatchNorm) for m in model.backbone.modules())


@pytest.mark.parametrize('network', NETWORKS)
def test_condition_b_is_the_papers_recipe_with_half_of_its_epochs(network):
    cfg = load(Run(network, 'pretrained'), rate=(0.02, 1))
    assert (cfg.train_cfg.type, cfg.train_cfg.max_epochs) == ('EpochBasedTrainLoop', 16)
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
        clip_grad=dict(max_norm=5.0),
    )
    assert cfg.custom_hooks[0] == dict(type='mmfish.StopGradClipHook', epoch=1)
    assert cfg.param_scheduler[1].milestones == [10, 14]
    backbone = build(cfg.model.backbone)
    backbone.train()
    assert any(isinstance(m, FrozenBN) for m in backbone.modules())
    assert not any(isinstance(m, _BatchNorm) for m in backbone.modules())
    stem = 'stem.' if network == 'fishnet150' else 'conv1.'
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (not name.startswith(stem))


@pytest.mark.parametrize('network', NETWORKS)
def test_a_classifier_has_the_detectors_backbone_and_colours(network):
    run = Run(network, 'fashion-mnist')
    cfg, detector = load(run), load(Run(network, 'scratch'))
    epoch = -(-60_000 // cfg.train_dataloader.batch_size)
    assert run.iterations == cfg.train_cfg.max_epochs * epoch
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    images = torch.full((2, 1, 64, 64), 130, dtype=torch.uint8)
    seen = model.data_preprocessor(dict(inputs=images))['inputs']
    with DefaultScope.overwrite_default_scope('mmdet'):
        colours = MODELS.build(detector.model.data_preprocessor)
    grey = colours(dict(inputs=[images[0].expand(3, -1, -1)]))['inputs']
    assert torch.equal(seen[:1], grey)
    assert model(seen).shape == (2, 10)
    shapes = {n: p.shape for n, p in build(detector.model.backbone).named_parameters()}
    assert {n: p.shape for n, p in model.backbone.named_parameters()} == shapes


def test_the_plan_names_each_run_once_and_begins_with_the_searches():
    runs = plan()
    assert len({run.name for run in runs}) == len(runs)
    assert {run.config for run in runs} == {path.stem for path in CONFIGS.glob('*.py')}
    first = {}
    for place, run in enumerate(runs):
        first.setdefault((run.network, run.condition, bool(run.rate)), place)
    for network in NETWORKS:
        for condition in CONDITIONS:
            assert first[network, condition, True] < first[network, condition, False]
        assert first[network, 'fashion-mnist', False] < first[network, 'pretrained', True]
        # Both conditions have an answer from one seed before either has one from two.
        again = runs.index(seeds(network, 'scratch')[1])
        assert all(first[other, 'pretrained', False] < again for other in NETWORKS)


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_variant_changes_what_its_config_has(variant):
    plain, changed = (load(Run('fishnet150', 'scratch', variant=v)) for v in ('', variant))
    validate_config(changed)
    build(changed.model)
    changed.train_cfg.val_interval = plain.train_cfg.val_interval
    assert plain.to_dict() != changed.to_dict()


def test_the_search_and_the_other_detector_and_data():
    for condition in CONDITIONS:
        cfg = load(search('resnet50', condition)[0])
        assert cfg.optim_wrapper.optimizer.lr == RATES[condition][0][0]
        length = cfg.train_cfg.get('max_iters') or 40 * cfg.train_cfg.max_epochs
        assert length == SEARCH_ITERATIONS
        assert cfg.train_cfg.val_interval in (SEARCH_ITERATIONS, SEARCH_ITERATIONS // 40)
    boxes = load(Run('resnet50', 'scratch', detector='faster_rcnn', data='shapes'))
    assert boxes.train_cfg.val_interval == ITERATIONS
    assert load(Run('resnet50', 'scratch')).train_cfg.val_interval == 80
    model = build(boxes.model)
    assert type(model).__name__ == 'FasterRCNN'
    assert not model.with_mask
    for loader in (boxes.train_dataloader, boxes.val_dataloader):
        steps = {step.type: step for step in loader.dataset.pipeline}
        assert steps['LoadAnnotations'].with_mask is False
        assert (steps.get('Resize') or steps['RandomResize']).scale == (192, 192)


def test_the_rate_is_the_best_of_a_whole_search_and_nothing_runs_without(tmp_path):
    runs = search('resnet50', 'scratch')
    records = {
        run.name: dict(metrics={'coco/bbox_mAP': 0.1 * i, 'coco/segm_mAP': 0.2 * (i == 3)})
        for i, run in enumerate(runs)
    }
    records[runs[-1].name]['metrics'] = {}  # it diverged
    assert found_rate('resnet50', 'scratch', records) == runs[3].rate
    del records[runs[0].name]
    assert found_rate('resnet50', 'scratch', records) is None
    with pytest.raises(UsageError, match='its rate has not been found yet'):
        carry_out(Run('resnet50', 'scratch'), Folders(*[tmp_path] * 4))


def test_depth_scaled_branches_add_up_to_the_variance_of_one():
    arch = load(Run('fishnet150', 'scratch')).model.backbone.arch
    torch.manual_seed(0)
    net = FishNet(arch)
    blocks = [m for m in net.modules() if isinstance(m, Bottleneck)]
    DepthScaledInit()(net)
    shares = [b.conv3.weight.var() * b.conv3.out_channels / 2 for b in blocks]
    assert sum(shares).item() == pytest.approx(1, rel=0.05)
    assert blocks[0].conv2.weight.var().item() == pytest.approx(2 / (9 * 8), rel=0.2)


@pytest.mark.slow
def test_a_run_is_recorded_and_an_interrupted_one_goes_on(shapes, tmp_path, monkeypatch, capsys):
    run = search('fishnet150', 'scratch')[0]
    folders = Folders(shapes, tmp_path, tmp_path / 'work', tmp_path / 'records')
    short = {
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 2,
        'default_hooks.checkpoint.interval': 2,
        'train_dataloader.batch_size': 1,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
    }
    carry_out(run, folders, short)
    (folders.records / f'{run.name}.json').unlink()
    record = carry_out(run, folders, {**short, 'train_cfg.max_iters': 3})
    assert record == json.loads((folders.records / f'{run.name}.json').read_text())

    logs = sorted((folders.work_dirs / run.name).glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    assert [line['iter'] for line in lines if 'loss' in line] == [1, 2, 3]
    assert [point['iteration'] for point in record['curve']] == [2, 3]
    assert record['options']['optim_wrapper.optimizer.lr'] == run.rate[0]
    assert set(record['metrics']) >= {'coco/bbox_mAP_s', 'coco/segm_mAP'}
    assert 0 < record['training_seconds'] < record['seconds']
    assert record['curve'][0]['seconds'] < record['curve'][1]['seconds']
    assert record['backbone_parameters'] == 1_369_568 < record['parameters']
    assert all(record[f'level{n}_scale_0'] > 0 for n in range(4))
    assert record['memory'] > 2**20
    assert record['versions']['mmfish']
    assert record[f'gradient_norm_{LOOKED_AT[1]}'] is None

    folder = str(folders.records)
    monkeypatch.setattr(
        sys, 'argv', ['mini', '--records', folder, '--dry-run', '--only', '*_rate*']
    )
    main()
    left = capsys.readouterr().out.splitlines()
    assert len(left) == 3 * sum(map(len, RATES.values()))  # all but one, and the sum
    assert not any(line.startswith(run.name) for line in left)


@pytest.mark.slow
def test_a_run_that_diverges_is_a_result(shapes, tmp_path):
    run = seeds('fishnet150', 'scratch', variant='no-clipping')[0]
    folders = Folders(shapes, tmp_path, tmp_path / 'work', tmp_path / 'records')
    folders.records.mkdir()
    for tried in search('fishnet150', 'scratch'):
        (folders.records / f'{tried.name}.json').write_text('{"metrics": {}}')
    short = {
        'optim_wrapper.optimizer.lr': 1e30,
        'train_cfg.max_iters': 4,
        'train_dataloader.batch_size': 1,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
    }
    record = carry_out(run, folders, short)
    assert record['diverged']
    assert (record['metrics'], record['curve']) == ({}, [])
    row = '| FishNet-150, no-clipping | 1 | 0.0 | 0.0 |'
    assert row in tables({run.name: record})['start']


def write_fashion_mnist(folder):
    """Eight images of each split, in the format of MNIST."""
    folder.mkdir()
    for split in ('train', 't10k'):
        images, labels = np.arange(8 * 28 * 28) % 251, np.arange(8)
        for kind, header, values in (
            ('images-idx3', (0x803, 8, 28, 28), images),
            ('labels-idx1', (0x801, 8), labels),
        ):
            content = np.array(header, '>i4').tobytes() + values.astype(np.uint8).tobytes()
            (folder / f'{split}-{kind}-ubyte').write_bytes(content)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('network', ['fishnet150', 'resnet50'])
def test_a_detector_of_condition_b_trains_the_classifier_it_begins_with(network, shapes, tmp_path):
    fashion_mnist = write_fashion_mnist(tmp_path / 'fashion-mnist')
    folders = Folders(shapes, fashion_mnist, tmp_path / 'work', tmp_path / 'records')
    one_process = {
        'train_dataloader.num_workers': 0,
        'train_dataloader.batch_size': 8,
        'train_dataloader.persistent_workers': False,
    }
    run = search(network, 'pretrained')[0]
    epoch = {f'train_cfg.{name}': 1 for name in ('max_epochs', 'val_interval')}
    record = carry_out(
        run, folders, {**one_process, **epoch, 'default_hooks.checkpoint.interval': 1}
    )
    classifier = read_records(folders.records)[Run(network, 'fashion-mnist').name]
    assert classifier['top1'] in {12.5 * i for i in range(9)}
    assert record['curve'][0]['iteration'] == 2
    assert len(record['initial_weights']) == 1
    assert str(tmp_path) not in json.dumps(record['options'])
    start, end = (
        torch.load(folders.work_dirs / file, weights_only=False)['state_dict']
        for file in (f'fashion-mnist_{network}/epoch_3.pth', f'{run.name}/epoch_1.pth')
    )
    fixed = [name for name in start if name.startswith(('backbone.stem.', 'backbone.conv1.'))]
    learned = [name for name in start if re.match(r'backbone.*\.conv3\.weight', name)]
    assert fixed
    assert all(torch.equal(start[name], end[name]) for name in fixed)
    moved = [name for name in learned if not torch.equal(start[name], end[name])]
    assert moved
    assert all(torch.allclose(start[name], end[name], atol=0.02) for name in moved)


def made(run, ap):
    metrics = {
        f'coco/{kind}_mAP{size}': ap - 0.1 * (kind == 'segm')
        for kind in ('bbox', 'segm')
        for size in ('', '_50', '_s', '_m')
    }
    start = {f'gradient_norm_{i}': 10.0 + i for i in LOOKED_AT}
    start |= {f'level{n}_scale_{i}': n + i / 100 for n in range(4) for i in LOOKED_AT}
    return dict(
        metrics={**metrics, 'coco/bbox_mAP_l': -1.0},
        curve=[dict(iteration=80 * i, seconds=60 * i, **metrics) for i in (1, 2)],
        parameters=2_000_000,
        backbone_parameters=1_500_000,
        macs=3_000_000_000,
        memory=2**30,
        seconds_per_iteration=0.7,
        training_seconds=400,
        **start,
    )


def test_the_page_from_made_records(tmp_path):
    page = Path(shutil.copy(PAGE, tmp_path))
    runs = seeds('resnet50', 'scratch')
    records = {run.name: made(run, ap) for run, ap in zip(runs, (0.38, 0.4, 0.42), strict=True)}
    write_page(page, records)
    lines = page.read_text().splitlines()
    box, mask = '40.0 (38.0 to 42.0)', '30.0 (28.0 to 32.0)'
    boxes, masks = (' | '.join([ap] * 4) for ap in (box, mask))
    assert f'| ResNet-50, Mask R-CNN, nuclei | 3 | {boxes} |  | {masks} |  |' in lines
    assert '| ResNet-50, scratch | 3 | 1.50 | 2.00 | 3.00 | 0.70 | 1024 | 75 | 10.0 | 26 |' in lines
    start = '10.0 | 0.00 | 1.00 | 2.00 | 3.00 | 110.0 | 1.00 | 2.00 | 3.00 | 4.00'
    assert f'| ResNet-50 | 3 | {box} | {mask} | {start} |' in lines
    assert lines.count('Not run yet.') == 3  # B, its classifiers, the search
    assert '![Mask AP against iterations and seconds](images/claim.png)' in lines
    assert (tmp_path / 'images/claim.png').stat().st_size > 1000
    assert tables({})['rates'] == 'Not run yet.'


def test_the_page_has_what_the_records_say_and_they_are_of_this_plan(tmp_path):
    page = Path(shutil.copy(PAGE, tmp_path))
    records = read_records(RECORDS)
    write_page(page, records)
    assert page.read_text() == PAGE.read_text()

    runs = {run.name: run for run in plan()}
    began = {}
    for name, record in records.items():
        run = runs[name]
        options = run.options(rate_of(run, records))
        assert record['options'] == json.loads(json.dumps(options)), name
        assert record['iterations'] == run.iterations, name
        if run.condition == 'pretrained':
            began.setdefault(run.network, set()).add(*record['initial_weights'])
    assert all(len(hashes) == 1 for hashes in began.values())
