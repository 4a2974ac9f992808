"""The configs of configs/imagenet and configs/small: recipes value by value, models that build."""

from functools import cache

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from PIL import Image
from slow_cases import slow_except

from demo import CONFIGS
from mmfish.config.paths import config_folder
from mmfish.models import FishNet, FishNetClsHead

NAMES = sorted(
    file.relative_to(config_folder()).as_posix()
    for folder in ('imagenet', 'small')
    for file in (config_folder() / folder).glob('*.py')
)
FISH = [name for name in NAMES if name.rpartition('/')[2].startswith('fish')]
IMAGENET = [name for name in NAMES if name.startswith('imagenet/')]
# Of images and of numbers of classes; MNIST's images have one channel.
ONE_OF_EACH_SIZE = (
    'imagenet/fishnet99_imagenet.py',
    'small/fishnet55_mnist.py',
    'small/fishnet77_cifar100.py',
)

# How each config of ImageNet differs from that of FishNet-150, by dotted names.
COSINE = {
    'train_cfg.max_epochs': 200,
    'max_epochs': 200,
    'param_scheduler.type': 'CosineAnnealingLR',
    'param_scheduler.milestones': None,
    'param_scheduler.gamma': None,
    'param_scheduler.T_max': 200,
    'param_scheduler.end': 200,
    'model.head.loss.type': 'LabelSmoothLoss',
    'model.head.loss.label_smooth_val': 0.1,
    'model.head.loss.mode': 'original',
    'model.head.loss.loss_weight': 1.0,
}
DIFFERENCES = {
    'imagenet/fishnet99_imagenet.py': {'model.backbone.arch': 'fishnet99'},
    'imagenet/fishnet150_imagenet.py': {},
    'imagenet/fishnet201_imagenet.py': {'model.backbone.arch': 'fishnet201'},
    'imagenet/fishnext150_imagenet.py': {'model.backbone.arch': 'fishnext150'},
    'imagenet/fishnext229_imagenet.py': {
        'model.backbone.arch': 'fishnext229',
        'model.backbone.stem': 'residual',
    },
    'imagenet/fishnet150_200e_imagenet.py': COSINE,
    'imagenet/fishnet201_200e_imagenet.py': {'model.backbone.arch': 'fishnet201', **COSINE},
    'imagenet/fishnet150_down-max3_imagenet.py': {'model.backbone.down_sample': 'max3'},
    'imagenet/fishnet150_down-avg2_imagenet.py': {'model.backbone.down_sample': 'avg2'},
    'imagenet/fishnet150_down-conv_imagenet.py': {'model.backbone.down_sample': 'conv'},
    'imagenet/fishnet150_dilation-none_imagenet.py': {'model.backbone.dilation': 'none'},
    'imagenet/fishnet150_dilation-body-head_imagenet.py': {'model.backbone.dilation': 'body+head'},
    'imagenet/fishnet150_stem-conv7x7_imagenet.py': {'model.backbone.stem': 'conv7x7'},
    'imagenet/fishnet150_stem-residual_imagenet.py': {'model.backbone.stem': 'residual'},
}
# With 1000 classes: of FishNet and FishNeXt as published, of DenseNet and ResNeXt torchvision's.
PARAMETERS = {
    'imagenet/fishnet99_imagenet.py': 16_628_904,
    'imagenet/fishnet150_imagenet.py': 24_959_400,
    'imagenet/fishnet201_imagenet.py': 44_584_552,
    'imagenet/fishnext150_imagenet.py': 25_738_024,
    'imagenet/densenet121_imagenet.py': 7_978_856,
    'imagenet/densenet161_imagenet.py': 28_681_000,
    'imagenet/densenet169_imagenet.py': 14_149_480,
    'imagenet/densenet201_imagenet.py': 20_013_928,
    'imagenet/resnext50-32x4d_imagenet.py': 25_028_904,
}


@cache
def load(name):
    return without_scopes(Config.fromfile(config_folder() / name))


def without_scopes(cfg):
    """The config without the `_scope_` that MMEngine adds to parts from another package."""
    if isinstance(cfg, dict | Config):
        cfg.pop('_scope_', None)
    for item in cfg.values() if isinstance(cfg, dict | Config) else cfg:
        if isinstance(item, dict | list | tuple):
            without_scopes(item)
    return cfg


def flat(value, prefix=''):
    """A config as {dotted name: value}; lists stay whole."""
    if not isinstance(value, dict):
        return {prefix: value}
    items = {}
    for key, item in value.items():
        items.update(flat(item, f'{prefix}.{key}' if prefix else key))
    return items


def difference(name, other):
    """The settings of `name` that differ from `other`, by dotted names; None where it has none."""
    ours, theirs = flat(load(name).to_dict()), flat(load(other).to_dict())
    keys = sorted(ours.keys() | theirs.keys())
    return {key: ours.get(key) for key in keys if ours.get(key) != theirs.get(key)}


@cache
def build(name):
    """The classifier of a config, on the meta device where it can be built there."""
    cfg = load(name)
    # A copy, because the classifier adds the type to it.
    preprocessor = dict(cfg.data_preprocessor)
    with torch.device('cpu' if 'resnext' in name else 'meta'):
        return MODELS.build({**cfg.model, 'data_preprocessor': preprocessor}).eval()


@pytest.mark.parametrize('name', slow_except(ONE_OF_EACH_SIZE, FISH))
def test_the_model_builds_and_scores_every_class_of_its_data(name):
    cfg = load(name)
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.model.backbone.type == 'mmfish.FishNet'
    assert cfg.model.head.type == 'mmfish.FishNetClsHead'
    model = build(name)
    assert isinstance(model.backbone, FishNet)
    assert isinstance(model.head, FishNetClsHead)
    sides = (
        step.crop_size if step.type == 'CenterCrop' else step.scale
        for step in reversed(cfg.test_dataloader.dataset.pipeline)
        if step.type in ('CenterCrop', 'Resize')
    )
    side = next(sides, 28)  # Fashion-MNIST as it is
    dataset = cfg.test_dataloader.dataset
    expected = len(DATASETS.get(dataset.type).METAINFO['classes'])
    channels = cfg.model.backbone.get('in_channels', 3)
    logits = model(torch.empty(1, channels, side, side, device='meta'))
    assert logits.shape == (1, expected)
    assert cfg.data_preprocessor.num_classes == expected
    assert len(cfg.data_preprocessor.mean) == channels


@pytest.mark.parametrize('name', NAMES)
def test_the_pipelines_and_evaluators_are_known_to_mmpretrain(name):
    cfg = load(name)
    for split in ('train', 'val', 'test'):
        for step in cfg[f'{split}_dataloader'].dataset.pipeline:
            assert TRANSFORMS.build(step) is not None
    assert cfg.test_dataloader == cfg.val_dataloader
    assert cfg.test_evaluator == cfg.val_evaluator


def test_every_imagenet_config_is_listed():
    assert set(DIFFERENCES) == set(IMAGENET) & set(FISH)


@pytest.mark.parametrize('name', sorted(set(IMAGENET) - set(FISH)))
def test_what_fishnet_is_compared_with_differs_in_the_model_only(name):
    found = difference(name, 'imagenet/fishnet150_imagenet.py')
    assert {key.partition('.')[0] for key in found} == {'model'}


@pytest.mark.parametrize(('depth', 'millions'), [(50, 25.5), (101, 44.5)])
def test_the_papers_resnets_have_blocks_of_pre_activation(depth, millions):
    pytest.importorskip('timm')
    model = build(f'imagenet/preresnet{depth}_imagenet.py')
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    order = []
    block = model.backbone.timm_model.stages[1].blocks[1]
    for name, module in block.named_children():
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    assert model(torch.empty(1, 3, 224, 224, device='meta')).shape == (1, 1000)
    assert order.index('norm1') < order.index('conv1') < order.index('norm2')


@pytest.mark.parametrize('name', sorted(set(IMAGENET) & set(FISH)))
def test_a_config_differs_from_fishnet150_only_as_listed(name):
    assert difference(name, 'imagenet/fishnet150_imagenet.py') == DIFFERENCES[name]


@pytest.mark.parametrize('name', PARAMETERS)
def test_the_classifiers_have_the_published_numbers_of_parameters(name):
    assert sum(p.numel() for p in build(name).parameters()) == PARAMETERS[name]


def test_the_recipe_of_imagenet_is_that_of_the_release():
    cfg = load('imagenet/fishnet150_imagenet.py')
    assert cfg.train_cfg == dict(by_epoch=True, max_epochs=100, val_interval=1)
    # No paramwise_cfg: the decay is on everything, biases and BatchNorm included.
    assert cfg.optim_wrapper == dict(
        optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)
    )
    scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1)
    assert cfg.param_scheduler == scheduler
    assert cfg.auto_scale_lr.base_batch_size == 256
    assert cfg.train_dataloader.batch_size * 8 == 256
    assert cfg.train_dataloader.dataset.split == 'train'
    assert cfg.val_dataloader.dataset.split == 'val'

    load_image, crop, flip, to_float, light, pack = cfg.train_dataloader.dataset.pipeline
    assert (load_image.type, pack.type) == ('LoadImageFromFile', 'PackInputs')
    assert to_float.dtype == 'float32'
    assert crop == dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        backend='pillow',
        interpolation='bilinear',
    )
    assert flip == dict(type='RandomFlip', prob=0.5, direction='horizontal')
    # 0.1 on images from 0 to 1 is 25.5 on those from 0 to 255.
    assert light.alphastd == pytest.approx(25.5)
    assert light.eigval == [0.2175, 0.0188, 0.0045]


def test_images_are_made_smaller_as_the_release_did_with_pil():
    """A stripe of each pixel: smoothed it is grey, and OpenCV's bilinear would pick some pixels."""
    cfg = load('imagenet/fishnet150_imagenet.py')
    stripes = np.zeros((896, 896, 3), np.uint8)
    stripes[:, ::4] = 200
    _, resize, crop, _ = map(TRANSFORMS.build, cfg.test_dataloader.dataset.pipeline)
    image = crop(resize(dict(img=stripes)))['img']
    expected = Image.fromarray(stripes).resize((256, 256), Image.Resampling.BILINEAR)
    assert (image == np.asarray(expected)[16:240, 16:240]).all()
    assert np.abs(image.astype(float) - 50).max() < 25
    assert TRANSFORMS.build(cfg.train_dataloader.dataset.pipeline[1]).backend == 'pillow'


def test_lighting_brightens_a_bright_image_beyond_white_without_wrapping_around():
    pipeline = load('imagenet/fishnet150_imagenet.py').train_dataloader.dataset.pipeline
    to_float, light = map(TRANSFORMS.build, pipeline[3:5])
    white = np.full((4, 4, 3), 254, np.uint8)
    changes = torch.stack(
        [torch.from_numpy(light(to_float(dict(img=white)))['img'])[0, 0] - 254 for _ in range(500)]
    )
    assert changes.max() > 1
    assert changes.abs().max() < 60
    # The first component is a change of brightness: all channels together, by about
    # 25.5 * 0.2175 * 0.58 = 3.2.
    assert changes.std(0).tolist() == pytest.approx([3.2] * 3, rel=0.2)
    assert torch.corrcoef(changes.T).min() > 0.9


def test_lighting_moves_red_and_blue_as_in_alexnets_table():
    """Its second component, for R, G and B: 0.7192, -0.0045, -0.6948; images are loaded as BGR."""
    light = load('imagenet/fishnet150_imagenet.py').train_dataloader.dataset.pipeline[4]
    assert not light.to_rgb
    blue, green, red = light.eigvec
    assert (red[1], green[1], blue[1]) == (0.7192, -0.0045, -0.6948)
    matrix = torch.tensor(light.eigvec, dtype=torch.float64)
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(3).double(), atol=2e-3, rtol=0)


@pytest.mark.parametrize('data', ['cifar10', 'cifar100', 'mnist', 'fashion_mnist'])
def test_fishnet77s_configs_differ_from_55s_in_the_network_only(data):
    assert difference(f'small/fishnet77_{data}.py', f'small/fishnet55_{data}.py') == {
        'model.backbone.arch': 'fishnet77',
        'model.backbone.out_indices': (3,),
        'model.head.in_channels': 528,
        'model.head.feat_size': 3 if data == 'fashion_mnist' else 7,
    }


@pytest.mark.parametrize(
    ('name', 'inputs', 'last'),
    [
        ('small/fishnet55_cifar10.py', (3, 56, 56), (112, 14, 14)),
        ('small/fishnet77_mnist.py', (1, 56, 56), (528, 7, 7)),
        ('small/fishnet55_fashion_mnist.py', (1, 28, 28), (112, 7, 7)),
        ('small/fishnet77_fashion_mnist.py', (1, 28, 28), (528, 3, 3)),
    ],
)
def test_a_small_network_halves_its_images_with_each_stage(name, inputs, last):
    levels = build(name).backbone(torch.empty(1, *inputs, device='meta'))
    assert levels[-1].shape[1:] == last


@pytest.mark.parametrize('data', ['cifar10', 'cifar100', 'mnist', 'fashion_mnist'])
def test_the_small_configs_train_and_test_on_what_their_names_say(data):
    cfg = load(f'small/fishnet55_{data}.py')
    train, test = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
    assert train.type == test.type
    assert train.type.removeprefix('mmfish.').lower() == data.replace('_', '')
    assert train.data_root.rstrip('/') == test.data_root.rstrip('/') == f'data/{data}'
    assert (train.split, test.split) == ('train', 'test')
    # MMPretrain's MNIST chooses the files by test_mode, not by split.
    assert 'mnist' not in data or (test.test_mode and not train.get('test_mode'))
    batch, rate, epochs = (64, 0.05, 20) if data == 'fashion_mnist' else (128, 0.1, 200)
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=rate, momentum=0.9, weight_decay=1e-4)
    assert cfg.train_cfg.max_epochs == epochs


@pytest.mark.parametrize(
    ('config', 'flipped'),
    [
        ('small/fishnet55_mnist.py', False),
        ('small/fishnet55_fashion_mnist.py', True),
        (CONFIGS / 'fishnet55_digits.py', False),
    ],
)
def test_digits_are_not_flipped_and_clothes_are(config, flipped):
    pipeline = load(config).train_dataloader.dataset.pipeline
    assert any(step.type == 'RandomFlip' for step in pipeline) is flipped
