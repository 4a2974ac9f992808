import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn

from mmfish.checkpoints import from_official, from_pytorchcv, load_backbone, to_official
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


@pytest.mark.parametrize('arch', ['fishnet99', 'fishnet150'])
def test_pytorchcv_gives_the_same_logits(arch):
    torch.manual_seed(0)
    theirs = getattr(fishnet, arch)(pretrained=False).double().eval()
    ours = nn.ModuleDict(dict(backbone=FishNet(arch), head=FishNetClsHead())).double().eval()
    ours.load_state_dict(from_pytorchcv(theirs.state_dict()))
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        expected, found = theirs(x), ours['head'](ours['backbone'](x))
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_to_the_released_names_and_back_changes_nothing(state_dict):
    back = from_official(to_official(state_dict))
    assert back.keys() == state_dict.keys()
    assert all(torch.equal(back[key], state_dict[key]) for key in back)


@pytest.mark.parametrize('kind', ['official', 'pytorchcv', 'classifier', 'detector', 'backbone'])
def test_pretrained_takes_every_kind_of_file_whole(kind, theirs, state_dict, tmp_path):
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
    )[kind]
    torch.save(content, tmp_path / 'weights.pth')
    loaded = pretrained(tmp_path / 'weights.pth').state_dict()
    expected = backbone_of(state_dict)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_a_network_with_fewer_levels_takes_its_part(state_dict, tmp_path):
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
    with pytest.raises(CheckpointError, match='pytorchcv could not provide the weights of trout'):
        CheckpointLoader.load_checkpoint('pytorchcv://trout')
