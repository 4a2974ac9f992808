import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mmfish.engine import ChannelsLastRunner, CheckWeightsHook, FuseHook, StopGradClipHook
from mmfish.errors import CheckpointError
from mmfish.models import FishNet


class Steep(BaseModel):
    """A model whose gradient has a norm of 1000."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, *inputs, mode='loss'):
        return dict(loss=1000 * self.weight.sum())


class StepSizes(Hook):
    def __init__(self):
        self.sizes = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before = runner.model.weight.item()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.sizes.append(self.before - runner.model.weight.item())


def run(work_dir, epochs, **kwargs):
    sizes = StepSizes()
    runner = Runner(
        model=Steep(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(TensorDataset(torch.zeros(2, 1))),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0), clip_grad=dict(max_norm=5.0)),
        default_hooks=dict(logger=None),
        custom_hooks=[StopGradClipHook(epoch=2), sizes],
        experiment_name=f'{work_dir.name}-{epochs}-{len(kwargs)}',
        **kwargs,
    )
    runner.train()
    return sizes.sizes


def test_gradients_are_clipped_in_the_first_two_epochs_only(tmp_path):
    assert run(tmp_path, epochs=4) == pytest.approx([5] * 4 + [1000] * 4)


def test_a_run_resumed_after_the_second_epoch_does_not_clip(tmp_path):
    run(tmp_path, epochs=2)
    sizes = run(tmp_path, epochs=3, resume=True, load_from=str(tmp_path / 'epoch_2.pth'))
    assert sizes == pytest.approx([1000] * 2)


class Layers(BaseModel):
    """A convolution with BatchNorm that predicts the sums of its outputs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, images, mode='tensor'):
        self.features = self.bn(self.conv(images))
        return [self.features.sum()]


class Sum(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(data_samples[0].item())

    def compute_metrics(self, results):
        return dict(sum=sum(results))


class Models(Hook):
    """Record the model that is run."""

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.model = runner.model
        self.features = runner.model.features


def run_test(work_dir, model, *hooks, kind=Runner):
    runner = kind(
        model=model,
        work_dir=str(work_dir),
        test_dataloader=DataLoader(TensorDataset(torch.arange(2 * 64.0).view(2, 1, 8, 8))),
        test_cfg=dict(),
        test_evaluator=Sum(),
        default_hooks=dict(logger=None),
        custom_hooks=list(hooks),
        experiment_name=f'{work_dir.name}-{len(hooks)}',
    )
    return runner.test()['sum'], runner.model


def test_channels_last_and_fuse_change_the_model_and_not_its_predictions(tmp_path):
    model = Layers()
    model.bn.running_var.fill_(3)
    plain, fast = Models(), Models()
    expected, _ = run_test(tmp_path, model, plain)
    found, after = run_test(tmp_path, model, fast, FuseHook(), kind=ChannelsLastRunner)

    assert plain.features.is_contiguous()
    assert fast.features.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(plain.model.bn, nn.BatchNorm2d)
    assert isinstance(fast.model.bn, nn.Identity)
    assert found == pytest.approx(expected, rel=1e-5)
    assert after is model


class Detector(BaseModel):
    """A backbone and a head."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(2, 2)

    def forward(self, *inputs, mode='tensor'):
        return inputs


class TeacherAndStudent(BaseModel):
    def __init__(self):
        super().__init__()
        self.student, self.teacher = Detector(fishnet()), Detector(fishnet())

    def forward(self, *inputs, mode='tensor'):
        return inputs


def fishnet():
    return FishNet('fishnet55', out_indices=(0, 1, 2))


def without(state_dict, name):
    return {key: tensor for key, tensor in state_dict.items() if key != name}


def load(work_dir, model, state_dict, *, whole):
    torch.save(dict(state_dict=state_dict), work_dir / 'weights.pth')
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        default_hooks=dict(logger=None),
        custom_hooks=[CheckWeightsHook(whole=whole)],
        experiment_name=f'{work_dir.name}-{whole}',
    )
    runner.load_checkpoint(str(work_dir / 'weights.pth'))


@pytest.mark.parametrize('whole', [True, False])
def test_a_model_without_fishnet_loads_the_weights_that_fit(tmp_path, whole):
    model = Detector(nn.Conv2d(3, 3, 3))
    before = model.head.bias.clone()
    weights = dict(torch.nn.Module.state_dict(Detector(nn.Conv2d(3, 3, 3))), other=torch.ones(1))
    load(tmp_path, model, without(weights, 'head.bias'), whole=whole)
    assert torch.equal(model.backbone.weight, weights['backbone.weight'])
    assert torch.equal(model.head.bias, before)


def test_a_training_from_a_detector_needs_only_fishnet_to_fit(tmp_path):
    model = Detector(fishnet())
    weights = model.state_dict()
    load(tmp_path, model, without(weights, 'head.bias'), whole=False)
    with pytest.raises(CheckpointError, match=r'lacks head\.bias'):
        load(tmp_path, model, without(weights, 'head.bias'), whole=True)
    with pytest.raises(CheckpointError, match=r'lacks stem\.0\.weight'):
        load(tmp_path, model, without(weights, 'backbone.stem.0.weight'), whole=False)


def test_teacher_and_student_may_start_from_a_single_detector(tmp_path):
    weights = Detector(fishnet()).state_dict()
    load(tmp_path, TeacherAndStudent(), weights, whole=False)
    with pytest.raises(CheckpointError, match=r'lacks stem\.0\.weight'):
        load(
            tmp_path,
            TeacherAndStudent(),
            without(weights, 'backbone.stem.0.weight'),
            whole=False,
        )


@pytest.mark.parametrize(('classes', 'warned'), [(('dog', 'cat'), True), (('cat', 'dog'), False)])
def test_classes_in_another_order_than_the_checkpoint_has_learned_are_a_warning(
    tmp_path, caplog, classes, warned
):
    class Data(Dataset):
        def __init__(self):
            self.metainfo = dict(classes=classes)

        def __len__(self):
            return 1

    model = Detector(nn.Linear(1, 1))
    meta = dict(dataset_meta=dict(classes=('cat', 'dog')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'weights.pth')
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        default_hooks=dict(logger=None),
        custom_hooks=[CheckWeightsHook(whole=True)],
        test_dataloader=DataLoader(Data()),
        test_evaluator=Evaluator([]),
        test_cfg=dict(),
        experiment_name=f'{tmp_path.name}-{warned}',
    )
    runner.logger.addHandler(caplog.handler)
    runner.load_checkpoint(str(tmp_path / 'weights.pth'))
    assert ('learned the classes cat, dog in this order' in caplog.text) == warned
