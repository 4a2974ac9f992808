import hashlib
import runpy
from pathlib import Path

import pytest
import torch

from mmfish.checkpoints import convert_checkpoint, from_official, to_official
from mmfish.errors import CheckpointError, UsageError
from mmfish.models import FishNet, FishNetClsHead

TOOL = Path(__file__).parents[2] / 'tools' / 'convert_checkpoint.py'


@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    parts = dict(backbone=FishNet('fishnet99'), head=FishNetClsHead(num_classes=10))
    return torch.nn.ModuleDict(parts).state_dict()


@pytest.fixture(scope='module')
def released(classifier, tmp_path_factory):
    """A file in the form of the authors' release."""
    file = tmp_path_factory.mktemp('released') / 'fishnet99.tar'
    state_dict = {f'module.{key}': value for key, value in to_official(classifier).items()}
    torch.save(dict(epoch=100, state_dict=state_dict, optimizer=dict(state={})), file)
    return file


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_tool_writes_weights_and_where_they_come_from(
    released, classifier, tmp_path, monkeypatch, capsys
):
    target = tmp_path / 'ours.pth'
    monkeypatch.setattr('sys.argv', [str(TOOL), str(released), str(target)])
    runpy.run_path(str(TOOL), run_name='__main__')
    assert f'{target}: fishnet99 from {released}' in capsys.readouterr().out
    content = torch.load(target, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert content['meta'] == dict(
        source=str(released),
        names='official',
        arch='fishnet99',
        sha256=hashlib.sha256(released.read_bytes()).hexdigest(),
    )
    assert_equal(content['state_dict'], classifier)


def test_a_backbone_loads_the_weights_of_the_backbone_alone(released, tmp_path):
    target = tmp_path / 'backbone.pth'
    convert_checkpoint(str(released), target, backbone_only=True)
    FishNet('fishnet99').load_state_dict(torch.load(target)['state_dict'], strict=True)


def test_official_to_ours_and_back_is_bit_exact(released, tmp_path):
    ours, back = tmp_path / 'ours.pth', tmp_path / 'back.pth'
    convert_checkpoint(str(released), ours)
    meta = convert_checkpoint(str(ours), back, released_names=True)
    assert meta['names'] == 'mmfish'
    expected = torch.load(released, weights_only=True)['state_dict']
    found = torch.load(back, weights_only=True)['state_dict']
    assert_equal({f'module.{key}': value for key, value in found.items()}, expected)
    assert_equal(from_official(found), from_official(expected))


def test_an_incomplete_classifier_is_refused_and_no_file_written(tmp_path):
    torch.save(dict(state_dict={'backbone.stem.0.weight': torch.zeros(1)}), tmp_path / 'part.pth')
    with pytest.raises(CheckpointError, match='does not fit fishnet99'):
        convert_checkpoint(str(tmp_path / 'part.pth'), tmp_path / 'ours.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['part.pth']


def test_a_released_backbone_alone_is_refused(released, tmp_path):
    options = dict(backbone_only=True, released_names=True)
    with pytest.raises(UsageError, match='--backbone-only and --released-names'):
        convert_checkpoint(str(released), tmp_path / 'x.pth', **options)
    assert not list(tmp_path.iterdir())
