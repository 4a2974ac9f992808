"""The reproduction report's networks, recipe and preprocessing."""

import colorsys
import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import DATASETS, MODELS
from small_fashion_mnist import write_fashion_mnist
from torch import nn

import benchmarks.report
from benchmarks.check_configs import experiments
from benchmarks.complexity import parameter_count
from benchmarks.published import load_published
from benchmarks.report.preprocessing import ReportPreprocessor, augment, change_colours
from benchmarks.report.results import draw_curves, records, table, update_records
from demo.markdown import fill_page
from mmfish.engine.run import load_config, run_train
from mmfish.errors import MissingDataError

CONFIGS = Path(benchmarks.report.__file__).parent / 'configs'
PAGE = Path(__file__).resolve().parents[2] / 'docs/classification.md'
NAMES = [path.stem for path in experiments(CONFIGS)]
NETWORKS = ('mlp', 'cnn', 'mobilenet', 'fishnet55', 'fishnet77')


def load(name):
    return Config.fromfile(CONFIGS / f'report_{name}.py')


def build(cfg):
    return MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})


@pytest.mark.parametrize(
    ('name', 'parameters'),
    [
        ('mlp_fashion_mnist', 2_411_274),
        ('cnn_fashion_mnist', 3_675_534),
        ('mobilenet_fashion_mnist', 4_253_864),
        ('fishnet55_fashion_mnist', 118_752),
        ('fishnet77_fashion_mnist', 1_153_306),
        ('fishnet77_cifar100', 2_317_636),
    ],
)
def test_the_networks_have_the_reports_numbers_of_parameters(name, parameters):
    """With BatchNorm's statistics, as Keras counts."""
    with torch.device('meta'):
        model = build(load(name))
    assert parameter_count(model, statistics=True) == parameters


@pytest.mark.parametrize('name', NAMES)
def test_a_network_scores_every_class_of_its_data(name):
    cfg = load(name.removeprefix('report_'))
    with torch.device('meta'):
        model = build(cfg).eval()
        scores = model(torch.empty(2, 3, 56, 56))
    classes = len(DATASETS.get(cfg.train_dataloader.dataset.type).METAINFO['classes'])
    assert scores.shape == (2, 1000 if 'mobilenet' in name else classes)
    assert cfg.data_preprocessor.num_classes == classes


def test_every_published_accuracy_has_a_config_for_each_data_set():
    expected = {f'report_{n}_{data}' for n in NETWORKS for data in ('fashion_mnist', 'cifar10')}
    expected |= {f'report_{n}_cifar100' for n in ('fishnet55', 'fishnet77')}
    expected |= {f'report_fishnet55-conv_{data}' for data in ('fashion_mnist', 'cifar10')}
    assert set(NAMES) == expected
    rows = load_published()['tables']['Table 4 of the report']['rows']
    assert {run for row in rows for run in row['runs']} <= expected


def test_the_recipe():
    cfg = load('fishnet55_fashion_mnist')
    optimizer = dict(type='SGD', lr=0.001, momentum=0.9)
    assert cfg.optim_wrapper == dict(optimizer=optimizer)
    assert 'param_scheduler' not in cfg
    assert (cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size) == (20, 32)


def test_the_fish_is_built_and_initialised_as_in_keras():
    model = build(load('fishnet55_fashion_mnist'))
    model.init_weights()
    layers = list(model.modules())
    norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert {(layer.eps, layer.momentum) for layer in norms} == {(1e-3, 0.01)}
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
            bound = (6 / (fan_in + fan_out)) ** 0.5
            assert layer.weight.abs().max() <= bound
            if layer.weight.numel() > 100:
                assert layer.weight.abs().max() > 0.9 * bound
            assert layer.bias is None or not layer.bias.any()
    stem = [layer for layer in model.backbone.stem if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride) for c in stem] == [
        (3, 4, (1, 1)),
        (4, 8, (1, 1)),
    ]
    # No ReLU before the last layer of a score.
    kinds = [type(layer) for layer in model.backbone.bridge.score]
    assert kinds == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.Conv2d]
    kinds = [type(layer) for layer in model.head.score]
    assert kinds == [nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.Flatten, nn.Linear]


@pytest.mark.parametrize('channels', [1, 3])
def test_testing_resizes_and_nothing_else(channels):
    images = torch.randint(256, (2, channels, 28, 28), dtype=torch.uint8)
    out = ReportPreprocessor()(dict(inputs=images))['inputs']
    expected = nn.functional.interpolate(images.float(), scale_factor=2, mode='bilinear')
    assert torch.equal(out, expected.expand(-1, 3, -1, -1))


def test_grey_images_are_flipped_and_change_in_contrast_around_their_mean():
    torch.manual_seed(0)
    images = torch.rand(64, 1, 8, 8) * 255
    out = augment(images)
    mean = images.mean((2, 3), keepdim=True)
    assert (out.mean((2, 3), keepdim=True) - mean).abs().max() < 0.2
    deviation = out.std((2, 3)) / images.std((2, 3))
    assert deviation.max() - deviation.min() < 1e-4  # one factor for the batch
    assert 0.5 < deviation.mean() < 1.5
    same = ((out - mean) / deviation.mean() - (images - mean)).abs().amax((1, 2, 3)) < 1
    assert 16 < same.sum() < 48
    factors = [augment(images).std() / images.std() for _ in range(100)]
    assert min(factors) < 0.6
    assert max(factors) > 1.4


@pytest.mark.parametrize(('hue', 'saturation'), [(0, 1), (0.2, 1), (-0.2, 0.5), (0.1, 3)])
def test_colours_change_as_in_hsv(hue, saturation):
    torch.manual_seed(0)
    image = torch.rand(1, 3, 4, 4)
    changed = change_colours(image, hue, saturation)
    for pixel, found in zip(image.flatten(2)[0].T, changed.flatten(2)[0].T, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*pixel.tolist())
        expected = colorsys.hsv_to_rgb((h + hue) % 1, min(s * saturation, 1), v)
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


def test_grey_has_no_colour_to_change():
    grey = torch.rand(1, 1, 4, 4).expand(-1, 3, -1, -1)
    torch.testing.assert_close(change_colours(grey, 0.2, 5), grey)


@pytest.mark.slow
def test_a_run_becomes_a_record_a_row_and_curves(tmp_path):
    write_fashion_mnist(tmp_path, packed=True)
    for seed in (0, 1):
        cfg = load_config(
            CONFIGS / 'report_fishnet55_fashion_mnist.py',
            work_dir=str(tmp_path / f'report_fishnet55_fashion_mnist_seed{seed}'),
            data_root=str(tmp_path),
            cfg_options={
                'train_cfg.max_epochs': 2,
                'default_hooks.logger.interval': 1,
                'randomness.seed': seed,
                # Its log is MMEngine's by this name, else by the second in which it begins.
                'experiment_name': str(seed),
            },
        )
        run_train(cfg)
    one, other = records(tmp_path, 'fashion_mnist')
    assert (one['config'], one['seed'], other['seed']) == ('report_fishnet55_fashion_mnist', 0, 1)
    assert (one['epochs'], one['of'], one['parameters']) == (2, 2, 118_752)
    assert len(one['loss']) == len(one['training_accuracy']) == len(one['accuracy']) == 2
    assert {'commit', 'versions', 'machine'} < one.keys()
    # With five images a lone batch is an epoch.
    assert 0 < one['seconds'] < 60
    assert 0 < one['cpu_seconds'] < 60
    assert 0 < one['loading'] < 1
    text = table([one, other], 'fashion_mnist')
    accuracies = [one['accuracy'][-1], other['accuracy'][-1]]
    assert f'| FishNet-55 | 118,752 | 88.6 | {sum(accuracies) / 2:.2f} (' in text
    assert ' | 2 of 2 | 2 | 11.36 | ' in text
    assert '| FishNet-77 |  | 90.1 | not run |  |  | 24.76 |  |' in text
    picture = draw_curves([one], {one['config']: 'dense end'}, tmp_path / 'out/ends.png')
    assert picture.stat().st_size > 10_000
    file = tmp_path / 'out/records.json'
    file.write_text(json.dumps([{**one, 'accuracy': []}]))
    assert update_records(file, tmp_path, 'fashion_mnist') == [one, other]
    assert json.loads(file.read_text()) == [one, other]
    assert update_records(file, tmp_path / 'elsewhere', 'fashion_mnist') == [one, other]
    next(tmp_path.glob('*_seed1/*/run_record.json')).unlink()
    with pytest.raises(MissingDataError, match=r'_seed1 has no run_record\.json'):
        records(tmp_path, 'fashion_mnist')


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(MissingDataError, match=str(tmp_path)):
        update_records(tmp_path / 'records.json', tmp_path, 'fashion_mnist')


def test_the_page_has_what_the_records_say(tmp_path):
    page = Path(shutil.copy(PAGE, tmp_path))
    runs = json.loads((CONFIGS.parent / 'records/fashion_mnist.json').read_text())
    fill_page(page, {'report_fashion_mnist': table(runs, 'fashion_mnist')})
    assert page.read_text() == PAGE.read_text()
