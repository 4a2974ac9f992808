import argparse
import functools
import json
import re
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import mmengine
import numpy as np
import pytest
import torch
import torchvision
from mmdet.models import PyramidVisionTransformerV2, SwinTransformer
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.model import PretrainedInit
from mmengine.runner import CheckpointLoader
from slow_cases import slow_except
from torch import nn

from mmfish.checkpoints import from_official, from_pytorchcv, load_backbone, loading, to_official
from mmfish.checkpoints.loading import (
    load_from_file,
    plain_data_only,
    read_state_dict,
    under_our_names,
)
from mmfish.errors import CheckpointError
from mmfish.models import FishNet, FishNetClsHead

fishnet = pytest.importorskip('pytorchcv.models.fishnet')


@pytest.fixture(scope='module')
def theirs():
    """pytorchcv's FishNet-99 with random weights and statistics."""
    torch.manual_seed(0)
    model = fishnet.fishnet99(pretrained=False).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope='module')
def state_dict(theirs):
    """The same weights as a classifier of ours."""
    return from_pytorchcv(theirs.state_dict())


def backbone_of(state_dict):
    prefix = 'backbone.'
    return {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}


def pretrained(checkpoint, arch='fishnet99', **kwargs):
    net = FishNet(arch, init_cfg=dict(type='Pretrained', checkpoint=str(checkpoint)), **kwargs)
    net.init_weights()
    return net


@pytest.mark.parametrize('arch', slow_except(['fishnet99'], ['fishnet99', 'fishnet150']))
def test_pytorchcv_gives_the_same_logits(arch):
    torch.manual_seed(0)
    theirs = getattr(fishnet, arch)(pretrained=False).double().eval()
    ours = nn.ModuleDict(dict(backbone=FishNet(arch), head=FishNetClsHead())).double().eval()
    ours.load_state_dict(from_pytorchcv(theirs.state_dict()))
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        expected, found = theirs(x), ours['head'](ours['backbone'](x))
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_converting_to_the_released_names_and_back_changes_nothing(state_dict):
    back = from_official(to_official(state_dict))
    assert back.keys() == state_dict.keys()
    assert all(torch.equal(back[key], state_dict[key]) for key in back)


@pytest.mark.parametrize(
    'kind', ['official', 'pytorchcv', 'classifier', 'detector', 'backbone', "timm's layout"]
)
def test_pretrained_loads_all_weights_of_every_kind_of_file(kind, theirs, state_dict, tmp_path):
    runner_state = dict(
        meta=dict(epoch=1, seed=0),
        message_hub=dict(log_scalars={'train/loss': HistoryBuffer([1.0], [1])}),
        optimizer=dict(state={}, param_groups=[]),
    )
    official = {f'module.{key}': value for key, value in to_official(state_dict).items()}
    detector = {**state_dict, 'neck.lateral_convs.0.conv.weight': torch.zeros(1)}
    content = dict(
        official=dict(epoch=100, arch='fishnet99', state_dict=official, optimizer=dict(state={})),
        pytorchcv=theirs.state_dict(),
        classifier=dict(state_dict=state_dict, **runner_state),
        detector=dict(state_dict=detector, **runner_state),
        backbone=backbone_of(state_dict),
        **{"timm's layout": dict(model=state_dict, epoch=1)},
    )[kind]
    torch.save(content, tmp_path / 'weights.pth')
    loaded = pretrained(tmp_path / 'weights.pth').state_dict()
    expected = backbone_of(state_dict)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def as_if_saved_under(core, content, path):
    """Save with the module name of NumPy's core in another major version."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, entry in entries.items():
            archive.writestr(name, re.sub(rb'numpy\._?core', core, entry))


numpy_1_and_2 = pytest.mark.parametrize('core', [b'numpy.core', b'numpy._core'])


@numpy_1_and_2
def test_a_log_written_under_any_numpy_is_read(core, tmp_path):
    content = dict(log=HistoryBuffer([1.0, 3.0], [1, 1]), empty=HistoryBuffer())
    as_if_saved_under(core, content, tmp_path / 'weights.pth')
    content = load_from_file(str(tmp_path / 'weights.pth'))
    assert content['log'].mean() == content['log'].statistics('mean') == 2
    assert len(content['empty'].data[0]) == 0


NUMPY_TYPES = [code for code in np.typecodes['All'] if code not in 'OVMm']
NUMPY_TYPES += ['U7', 'S7', '>f8', '>i2', 'M8[ns]', 'M8[D]', 'm8[s]']


@numpy_1_and_2
@pytest.mark.parametrize('kind', NUMPY_TYPES)
def test_numpy_arrays_and_scalars_of_every_plain_type_are_read(kind, core, tmp_path):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(kind)
    content = dict(array=array, transposed=array.T, scalar=array[1, 1], empty=array[:0])
    as_if_saved_under(core, content, tmp_path / 'weights.pth')
    found = load_from_file(str(tmp_path / 'weights.pth'))
    for name, expected in content.items():
        assert isinstance(found[name], np.ndarray if expected.ndim else np.generic)
        # NumPy converts the byte order of other machines when it reads.
        assert found[name].dtype == expected.dtype.newbyteorder('=')
        np.testing.assert_array_equal(found[name], expected)


def test_plain_python_data_is_read(tmp_path):
    content = dict(
        numbers=(1, 2.0, 3j, True, None, range(3), slice(1, 2)),
        text=['a', b'b', bytearray(b'c'), b''],
        sets=({1}, frozenset({2})),
        metainfo=ConfigDict(classes=('cat',), nested=dict(palette=[(1, 2, 3)])),
    )
    torch.save(content, tmp_path / 'weights.pth')
    found = load_from_file(str(tmp_path / 'weights.pth'))
    assert found == content
    assert type(found['metainfo'].nested) is ConfigDict


@pytest.mark.parametrize('backbone', [SwinTransformer, PyramidVisionTransformerV2])
@pytest.mark.parametrize('layout', ['model', 'state_dict', 'plain'])
def test_mmdetections_backbones_load_the_file_layouts_that_they_support(backbone, layout, tmp_path):
    options = {
        SwinTransformer: dict(embed_dims=12, depths=[1] * 4, num_heads=[1, 1, 1, 1]),
        PyramidVisionTransformerV2: dict(embed_dims=4, num_layers=[1] * 4),
    }[backbone]
    torch.manual_seed(0)
    expected = backbone(**options).state_dict()
    # Swin loads the backbone out of the weights of a detector.
    prefix = 'backbone.' if backbone is SwinTransformer else ''
    weights = {prefix + key: tensor for key, tensor in expected.items()}
    rest = dict(optimizer=dict(state={}), epoch=np.int64(3), config=ConfigDict(a=1))
    contents = dict(model=dict(model=weights, **rest), state_dict=dict(state_dict=weights))
    torch.save(contents.get(layout, weights), tmp_path / 'weights.pth')
    init_cfg = ConfigDict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    net = backbone(**options, init_cfg=init_cfg)
    with plain_data_only():
        net.init_weights()
    assert all(torch.equal(net.state_dict()[key], expected[key]) for key in expected)


def hub_url(scheme):
    hub = Path(mmengine.__path__[0], 'hub')
    urls = {
        'torchvision://resnet50': torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url,
        'openmmlab://detectron2/resnet50_caffe': json.loads((hub / 'openmmlab.json').read_text())[
            'detectron2/resnet50_caffe'
        ],
        'mmcls://vgg11': json.loads((hub / 'mmcls.json').read_text())['vgg11'],
    }
    return urls[scheme]


@pytest.mark.parametrize(
    'checkpoint',
    ['torchvision://resnet50', 'openmmlab://detectron2/resnet50_caffe', 'mmcls://vgg11'],
)
def test_mmengine_loads_names_in_its_own_schemes(checkpoint, tmp_path, monkeypatch):
    """Nothing is downloaded: the file is in torch's download folder already."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    file = tmp_path / 'hub' / 'checkpoints' / Path(urlparse(hub_url(checkpoint)).path).name
    file.parent.mkdir(parents=True)
    torch.save({'backbone.conv1.weight': torch.ones(2)}, file)
    with plain_data_only():
        (weights,) = read_state_dict(checkpoint).values()
        assert torch.equal(weights, torch.ones(2))


def test_a_name_that_mmengine_does_not_know_is_an_error():
    with pytest.raises(CheckpointError, match=r"openmmlab://trout .*'trout'.*check the name"):
        read_state_dict('openmmlab://trout')


def test_after_a_run_mmengine_loads_as_before(tmp_path):
    path = str(tmp_path / 'weights.pth')
    torch.save(dict(state_dict={}, options=argparse.Namespace(lr=1)), path)
    with plain_data_only(), pytest.raises(CheckpointError, match='could run code'):
        CheckpointLoader.load_checkpoint(path)
    assert CheckpointLoader.load_checkpoint(path)['options'].lr == 1


@contextmanager
def serving(folder):
    """A web server with the files of a folder; gives its URL."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f'http://127.0.0.1:{server.server_port}'
        finally:
            server.shutdown()


def test_code_in_a_download_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    torch.save(dict(state_dict={}, options=argparse.Namespace(lr=1)), tmp_path / 'weights.pth')
    refused = pytest.raises(CheckpointError, match='could run code')
    with serving(tmp_path) as url, plain_data_only(), refused:
        CheckpointLoader.load_checkpoint(f'{url}/weights.pth')
    assert list(tmp_path.glob('torch/**/weights.pth'))


def test_safe_globals_that_others_added_stay(tmp_path):
    torch.save(HistoryBuffer, tmp_path / 'weights.pth')
    torch.serialization.add_safe_globals([HistoryBuffer])
    load_from_file(str(tmp_path / 'weights.pth'))
    assert HistoryBuffer in torch.serialization.get_safe_globals()


def test_a_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save({'weight': torch.ones(1)}, tmp_path / 'weights.pth')
    assert read_state_dict('~/weights.pth').keys() == {'weight'}


@pytest.mark.parametrize(
    'kind',
    slow_except(
        [PretrainedInit], [PretrainedInit, 'mmengine.Pretrained', 'mmfish.PretrainedFishNet']
    ),
)
def test_every_way_to_write_pretrained_in_a_config_works(kind, state_dict, tmp_path):
    torch.save(state_dict, tmp_path / 'weights.pth')
    init_cfg = dict(type=kind, checkpoint=str(tmp_path / 'weights.pth'))
    net = FishNet('fishnet99', init_cfg=init_cfg)
    net.init_weights()
    assert torch.equal(net.stem[0].weight, state_dict['backbone.stem.0.weight'])
    torch.save({**state_dict, 'backbone.stray': torch.ones(1)}, tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='stray'):
        FishNet('fishnet99', init_cfg=init_cfg).init_weights()


def run_python(code):
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_pretrained_works_in_a_process_that_never_imported_mmfish(theirs, state_dict, tmp_path):
    file = tmp_path / 'weights.pth'
    torch.save(theirs.state_dict(), file)
    expected = state_dict['backbone.stem.0.weight'].double().sum().item()
    run_python(f"""
from mmengine.registry import DefaultScope
from mmdet.registry import MODELS
import mmdet.models
DefaultScope.get_instance('test', scope_name='mmdet')
net = MODELS.build(dict(type='mmfish.FishNet', arch='fishnet99',
                        init_cfg=dict(type='Pretrained', checkpoint={str(file)!r})))
net.init_weights()
assert net.stem[0].weight.double().sum().item() == {expected!r}
""")


@pytest.mark.slow
def test_weights_are_loaded_without_fcntl_as_on_windows():
    run_python("""
import sys
sys.modules['fcntl'] = None
import mmfish.checkpoints
""")


def test_official_and_pytorchcv_state_dicts_are_renamed_alike(theirs, state_dict):
    official = to_official(state_dict)
    for renamed in (under_our_names(theirs.state_dict(), ''), under_our_names(official, '')):
        assert renamed.keys() == state_dict.keys()
        assert all(torch.equal(renamed[key], state_dict[key]) for key in state_dict)


def test_two_tensors_for_the_same_place_are_refused(state_dict):
    official = to_official(state_dict)
    official['backbone.stem.0.weight'] = official['conv1.0.weight']
    with pytest.raises(CheckpointError, match='the file has two tensors for the same place'):
        under_our_names(official, 'the file')


def test_a_network_with_fewer_levels_loads_what_it_has(state_dict, tmp_path):
    torch.save(state_dict, tmp_path / 'weights.pth')
    loaded = pretrained(tmp_path / 'weights.pth', out_indices=(0, 1)).state_dict()
    assert loaded
    assert all(torch.equal(loaded[key], state_dict[f'backbone.{key}']) for key in loaded)


def test_another_arch_is_named_with_a_key_and_nothing_is_loaded(state_dict, tmp_path):
    torch.save(state_dict, tmp_path / 'weights.pth')
    net = FishNet('fishnet150')
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"'fishnet150'.*body\.0\.refine\.1\.bn1\.bias"):
        load_backbone(net, str(tmp_path / 'weights.pth'))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_a_name_that_pytorchcv_does_not_know_is_an_error():
    with pytest.raises(CheckpointError, match=r'pytorchcv://trout could not be loaded .*trout'):
        CheckpointLoader.load_checkpoint('pytorchcv://trout')


def save_as_released(state_dict, file):
    """In the form of the authors' files, which PyTorch 0.4 wrote."""
    released = {f'module.{key}': value for key, value in to_official(state_dict).items()}
    content = dict(epoch=100, arch='fishnet99', state_dict=released, best_prec1=torch.tensor(77.4))
    content['optimizer'] = dict(state={0: dict(momentum_buffer=torch.zeros(2))}, param_groups=[])
    torch.save(content, file, _use_new_zipfile_serialization=False)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Torch's download folder, empty."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    folder = tmp_path / 'torch' / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ('name', 'file'),
    [
        ('fishnet99', 'fishnet99_ckpt.tar'),
        ('fishnet150', 'fishnet150_ckpt.tar'),
        ('fishnet150_200e', 'fishnet150_ckpt_welltrained.tar'),
        ('fishnet201', 'fishnet201_ckpt_welltrain.tar'),
    ],
)
def test_a_released_file_that_was_downloaded_by_hand_is_found(name, file, state_dict, hub):
    (hub / file).write_bytes(b'')
    assert loading.local_file(f'official://{name}') == hub / file
    assert loading.missing_release(f'official://{name}') == ''


def test_a_released_file_is_loaded_by_its_name(state_dict, hub):
    save_as_released(state_dict, hub / 'fishnet99_ckpt.tar')
    loaded = pretrained('official://fishnet99').state_dict()
    assert all(torch.equal(loaded[key], state_dict[f'backbone.{key}']) for key in loaded)
    classifier = CheckpointLoader.load_checkpoint('official://fishnet99')['state_dict']
    assert classifier.keys() == state_dict.keys()
    assert all(torch.equal(classifier[key], state_dict[key]) for key in classifier)


@pytest.mark.parametrize('answer', ['file', 'page', 'none'])
def test_a_released_file_is_downloaded_or_else_the_message_says_how_to_get_it(
    answer, state_dict, hub, tmp_path, monkeypatch
):
    if answer == 'file':
        save_as_released(state_dict, tmp_path / 'fishnet99_ckpt.tar')
    elif answer == 'page':
        (tmp_path / 'fishnet99_ckpt.tar').write_text('<!DOCTYPE html>')
    with serving(tmp_path) as url:
        link = f'{url}/fishnet99_ckpt.tar'
        monkeypatch.setitem(loading.RELEASED_FILES, 'fishnet99', link)
        if answer == 'file':
            assert torch.equal(
                pretrained('official://fishnet99').stem[0].weight,
                state_dict['backbone.stem.0.weight'],
            )
            return
        with pytest.raises(CheckpointError) as error:
            pretrained('official://fishnet99')
    reason = dict(page='ValueError: there came a page for a browser', none='HTTPError: HTTP Error')
    assert f'official://fishnet99 could not be downloaded ({reason[answer]}' in str(error.value)
    advice = f'download {link} with a browser and put it into {hub}, or give the path of the file'
    assert str(error.value).endswith(advice)
    assert list(hub.iterdir()) == []


def test_a_name_that_the_release_does_not_have_is_an_error():
    with pytest.raises(CheckpointError, match=r'official://trout .* one of fishnet99, fishnet150,'):
        CheckpointLoader.load_checkpoint('official://trout')
