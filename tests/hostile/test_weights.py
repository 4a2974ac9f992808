"""Bad checkpoint files are refused in one sentence, and nothing in them is executed."""

import io
import os
import pickle
import re
import socket
import zipfile
from typing import ClassVar

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader

from mmfish.checkpoints import convert_checkpoint, load_backbone
from mmfish.checkpoints.loading import check_fit, check_numbers, plain_data_only, state_dict_in
from mmfish.errors import CheckpointError
from mmfish.models import FishNet, FishNetClsHead

pytestmark = pytest.mark.filterwarnings('ignore:Detected pickle protocol')


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope='module')
def detector(config):
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        model.init_weights()
    return model


@pytest.fixture(scope='module')
def good(detector):
    return {key: tensor.clone() for key, tensor in detector.state_dict().items()}


def whole(path, state_dict):
    torch.save(dict(meta={}, state_dict=state_dict), path)


def code(path, state_dict):
    whole(path, {**state_dict, 'harm': Malicious(path.parent / 'harm')})


def plain_pickle(path, state_dict):
    path.write_bytes(pickle.dumps(Malicious(path.parent / 'harm')))


def code_beside_the_weights(path, state_dict):
    torch.save(dict(meta=Malicious(path.parent / 'harm'), state_dict=state_dict), path)


def code_through_getattr(path, state_dict):
    """A pickle with allowed names only, which reaches `exec` through the globals of a method."""

    def text(string):
        return pickle.BINUNICODE + len(string).to_bytes(4, 'little') + string.encode()

    def attribute(owner, name):
        return b'cbuiltins\ngetattr\n' + owner + text(name) + pickle.TUPLE2 + pickle.REDUCE

    def call_as_np_array(function, argument):
        """HistoryBuffer(argument, argument) calls np.array(argument): put `function` there."""
        fake = history + pickle.EMPTY_TUPLE + pickle.NEWOBJ + pickle.EMPTY_DICT
        fake += text('array') + function + pickle.SETITEM + pickle.BUILD
        replaced = attribute(init, '__globals__') + text('np') + fake + pickle.SETITEM
        call = history + text(argument) * 2 + pickle.TUPLE2 + pickle.REDUCE
        return text('replaced') + replaced + text('called') + call

    history = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
    init = attribute(history, '__init__')
    item = attribute(attribute(init, '__builtins__'), '__getitem__')
    harm = f'import os; os.mkdir({str(path.parent / "harm")!r})'
    code = pickle.PROTO + b'\x02' + pickle.EMPTY_DICT + pickle.MARK
    # What was called is the buffer's history: after the first call that is `exec`.
    first = call_as_np_array(item, 'exec')
    called = first.rindex(history)
    code += first[:called] + attribute(first[called:], '_log_history') + pickle.BINPUT + b'\x00'
    code += call_as_np_array(pickle.BINGET + b'\x00', harm) + pickle.SETITEMS + pickle.STOP
    with io.BytesIO() as buffer:
        torch.save({}, buffer)
        with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, 'w') as target:
            for name in source.namelist():
                target.writestr(name, code if name.endswith('data.pkl') else source.read(name))


def truncated(path, state_dict):
    whole(path, state_dict)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed_byte(path, state_dict):
    whole(path, state_dict)
    content = bytearray(path.read_bytes())
    content[content.index(b'state_dict')] ^= 0xFF
    path.write_bytes(content)


def empty(path, state_dict):
    path.touch()


def text(path, state_dict):
    path.write_text('<html>404 Not Found</html>')


def random_bytes(path, state_dict):
    path.write_bytes(torch.arange(9973).mul(7919).bitwise_and(255).byte().numpy().tobytes())


def another_zip(path, state_dict):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'no weights here')


def folder(path, state_dict):
    path.mkdir()


def missing(path, state_dict):
    pass


def a_list(path, state_dict):
    torch.save([1, 2], path)


def no_tensors(path, state_dict):
    torch.save(dict(state_dict=dict.fromkeys(state_dict, 1)), path)


def numbers_for_names(path, state_dict):
    torch.save(dict(enumerate(state_dict.values())), path)


def another_network(path, state_dict):
    whole(path, {'layer1.0.conv1.weight': torch.zeros(1)})


def another_arch(path, state_dict):
    whole(path, {k: v for k, v in state_dict.items() if 'body.1.refine' not in k})


def another_shape(path, state_dict):
    key = 'backbone.stem.0.weight'
    whole(path, {**state_dict, key: torch.zeros(5, *state_dict[key].shape[1:])})


def more_blocks(path, state_dict):
    extra = {k.replace('refine.0', 'refine.7'): v for k, v in state_dict.items()}
    whole(path, {**state_dict, **extra})


def with_value(value):
    def damage(path, state_dict):
        key = 'backbone.bridge.blocks.0.conv2.weight'
        weights = state_dict[key].clone()
        weights.view(-1)[0] = value
        whole(path, {**state_dict, key: weights})

    return damage


def integers(path, state_dict):
    key = 'backbone.stem.0.weight'
    whole(path, {**state_dict, key: state_dict[key].int()})


def sparse(path, state_dict):
    key = 'backbone.stem.0.weight'
    whole(path, {**state_dict, key: state_dict[key].to_sparse()})


# What is wrong, and what the sentence must say of it.
FILES = {
    'code': (code, 'could run code'),
    'code in a plain pickle': (plain_pickle, 'could run code'),
    'code beside the weights': (code_beside_the_weights, 'could run code'),
    'code through getattr': (code_through_getattr, 'could run code'),
    'truncated': (truncated, 'central directory|damaged'),
    'a changed byte': (changed_byte, 'damaged|is no checkpoint|cannot be read'),
    'empty': (empty, 'cannot be read as a checkpoint'),
    'text': (text, 'damaged'),
    'random bytes': (random_bytes, 'cannot be read as a checkpoint'),
    'another zip': (another_zip, 'cannot be read as a checkpoint'),
    'a folder': (folder, 'directory|no file'),
    'missing': (missing, '[Nn]o (such )?file'),
    'a list': (a_list, 'is no checkpoint'),
    'no tensors': (no_tensors, 'expected tensors by name'),
    'numbers for names': (numbers_for_names, 'expected tensors by name'),
    'another network': (another_network, 'holds no FishNet|layer1.0.conv1.weight|lacks'),
    'another arch': (another_arch, r'lacks (backbone\.)?body\.1\.refine'),
    'another shape': (another_shape, r'stem\.0\.weight.*\[5,'),
    'more blocks': (more_blocks, r'refine\.7'),
    'NaN': (with_value(float('nan')), r'NaN or Inf in .*bridge\.blocks\.0\.conv2\.weight'),
    'Inf': (with_value(float('inf')), r'NaN or Inf in .*bridge\.blocks\.0\.conv2\.weight'),
    'integers': (integers, r'stem\.0\.weight'),
    'sparse': (sparse, r'stem\.0\.weight'),
}
# Readable files of good numbers: only a comparison with the model shows what is wrong.
SEEN_LATE = ('another network', 'another arch', 'another shape', 'more blocks', 'integers')


@pytest.fixture(params=FILES)
def bad(request, good, tmp_path):
    """The path of a bad file, and what the error must say."""
    make, message = FILES[request.param]
    path = tmp_path / 'weights.pth'
    make(path, good)
    yield path, message
    assert not (tmp_path / 'harm').exists(), 'code in the file was run'


def assert_clear(error, path, message):
    sentence = str(error.value)
    assert str(path) in sentence
    assert '\n' not in sentence
    error.match(message)


def test_a_backbone_refuses_a_bad_file_and_keeps_its_weights(bad, detector):
    path, message = bad
    before = {key: tensor.clone() for key, tensor in detector.backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_backbone(detector.backbone, str(path))
    assert_clear(error, path, message)
    after = detector.backbone.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_run_refuses_a_bad_file_before_the_model_changes(bad, detector):
    """As in a run: MMEngine's runner reads the file, then the hook checks it."""
    path, message = bad
    before = {key: tensor.clone() for key, tensor in detector.state_dict().items()}

    def load():
        content = CheckpointLoader.load_checkpoint(str(path), 'cpu')
        state_dict = state_dict_in(content, str(path))
        check_fit(detector, state_dict, str(path))
        check_numbers(state_dict, str(path))

    with plain_data_only(), pytest.raises(CheckpointError) as error:
        load()
    assert_clear(error, path, message)
    assert all(torch.equal(before[key], tensor) for key, tensor in detector.state_dict().items())


def test_convert_refuses_a_bad_file_and_writes_nothing(bad, tool):
    path, _ = bad
    message = tool('convert_checkpoint.py', path, path.with_name('out.pth'))
    assert message
    assert not list(path.parent.glob('out.pth*'))


EARLY = [name for name in FILES if name not in SEEN_LATE]


@pytest.mark.parametrize(
    ('bad', 'how'),
    [
        # Each file in one way at least, also where there is little time.
        pytest.param(bad, how, marks=() if i % 3 == j else pytest.mark.slow)
        for i, bad in enumerate(EARLY)
        for j, how in enumerate(('load_from', 'init_cfg', 'test'))
    ],
    indirect=['bad'],
)
def test_the_tools_refuse_unreadable_files_before_the_model_is_built(bad, how, config, tool):
    assert refused(bad, how, config, tool)
    assert not (bad[0].parent / 'work').exists()


@pytest.mark.parametrize(
    ('bad', 'how'),
    [
        ('another network', 'init_cfg'),
        ('another arch', 'load_from'),
        ('another arch', 'init_cfg'),
        ('more blocks', 'test'),
    ],
    indirect=['bad'],
)
def test_the_tools_refuse_weights_that_do_not_fit(bad, how, config, tool):
    assert refused(bad, how, config, tool)


def refused(bad, how, config, tool):
    path, message = bad
    option = dict(
        load_from=f'load_from={path}',
        init_cfg=f'model.backbone.init_cfg.checkpoint={path}',
    )
    if how == 'test':
        sentence = tool('test.py', config, path, '--work-dir', path.with_name('work'))
    else:
        options = [option[how]]
        if how == 'init_cfg':
            options.append('model.backbone.init_cfg.type=Pretrained')
        work = path.with_name('work')
        sentence = tool('train.py', config, '--work-dir', work, '--cfg-options', *options)
    assert sentence
    assert str(path) in sentence
    assert re.search(message, sentence), sentence
    return True


@pytest.mark.parametrize('how', ['load_from', 'init_cfg', 'convert'])
def test_a_url_that_cannot_be_reached_is_an_error(how, config, tool, tmp_path):
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{closed.getsockname()[1]}/fishnet150.pth'
    if how == 'convert':
        message = tool('convert_checkpoint.py', url, tmp_path / 'out.pth')
    else:
        option = dict(load_from=['load_from=' + url])
        option['init_cfg'] = ['model.backbone.init_cfg.type=Pretrained']
        option['init_cfg'] += ['model.backbone.init_cfg.checkpoint=' + url]
        message = tool('train.py', config, '--cfg-options', *option[how])
    assert url in message
    assert 'refused' in message
    assert 'network' in message


def test_convert_refuses_nan(tmp_path, tool):
    with torch.device('meta'):
        parts = torch.nn.ModuleDict(dict(backbone=FishNet('fishnet99'), head=FishNetClsHead()))
    # Expanded from one number each, so that the files are small.
    state_dict = {k: torch.zeros(()).expand(t.shape) for k, t in parts.state_dict().items()}
    whole(tmp_path / 'good.pth', state_dict)
    assert convert_checkpoint(str(tmp_path / 'good.pth'), tmp_path / 'converted.pth')
    key = 'backbone.stem.0.weight'
    nan = {**state_dict, key: torch.tensor(float('nan')).expand(state_dict[key].shape)}
    whole(tmp_path / 'nan.pth', nan)
    message = tool('convert_checkpoint.py', tmp_path / 'nan.pth', tmp_path / 'out.pth')
    assert 'NaN' in message
    assert key in message
    assert not (tmp_path / 'out.pth').exists()


@DATASETS.register_module()
class DatasetWithNumPyColors(CocoDataset):
    """A data set whose metainfo, which MMEngine saves, has NumPy arrays of several types."""

    METAINFO: ClassVar[dict] = dict(
        classes=('circle', 'square', 'triangle'),
        colors=np.array([[1, 2, 3]] * 3, np.uint8),
        nested=dict(joints=np.array(['a', 'b']), ratio=np.float16(0.5)),
    )


@pytest.mark.slow
def test_a_run_with_numpy_in_its_metainfo_can_be_tested_and_resumed(config, tool, tmp_path):
    options = [
        f'{split}_dataloader.dataset.type={DatasetWithNumPyColors.__name__}'
        for split in ('train', 'val', 'test')
    ]
    work = ['--work-dir', tmp_path]
    assert tool('train.py', config, *work, '--cfg-options', *options) is None
    (saved,) = tmp_path.glob('*iter_1.pth')
    metainfo = torch.load(saved, weights_only=False)['meta']['dataset_meta']
    assert metainfo['colors'].dtype == np.uint8
    assert tool('test.py', config, saved, *work, '--cfg-options', *options) is None
    options.append('train_cfg.max_iters=2')
    assert tool('train.py', config, *work, '--resume', '--cfg-options', *options) is None
    assert list(tmp_path.glob('*iter_2.pth'))


def test_good_checkpoints_and_those_for_other_classes_are_accepted(good, config, tool, tmp_path):
    """The control for the tests above. Fine-tuning needs heads with other classes."""
    key = 'roi_head.bbox_head.fc_cls.weight'
    whole(tmp_path / 'good.pth', good)
    whole(tmp_path / 'classes.pth', {**good, key: torch.zeros(81, good[key].shape[1])})
    assert tool('test.py', config, tmp_path / 'good.pth') is None
    option = f'load_from={tmp_path / "classes.pth"}'
    assert tool('train.py', config, '--cfg-options', option) is None
    assert 'fc_cls' in tool('test.py', config, tmp_path / 'classes.pth')
