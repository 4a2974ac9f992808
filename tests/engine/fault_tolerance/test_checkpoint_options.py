"""Each option of MMEngine's CheckpointHook leaves the same files with mmfish's hook."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import FileClient, LocalBackend, register_backend
from mmengine.model import BaseModel
from mmengine.runner import Runner
from slow_cases import slow_except
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROOTS = {}  # of the folders that stand for buckets, by name


@register_backend('bucket', prefixes='bucket')
class Bucket(LocalBackend):
    """A user's own storage: bucket://NAME/FILE is a file in the folder ROOTS[NAME]."""

    def _path(self, path):
        name, _, rest = str(path).removeprefix('bucket://').partition('/')
        return ROOTS[name] / rest if str(path).startswith('bucket://') else path

    def get(self, filepath):
        return super().get(self._path(filepath))

    def put(self, obj, filepath):
        super().put(obj, self._path(filepath))

    def isfile(self, filepath):
        return super().isfile(self._path(filepath))

    def isdir(self, filepath):
        return super().isdir(self._path(filepath))

    def remove(self, filepath):
        super().remove(self._path(filepath))


FileClient.register_backend('bucket', Bucket, prefixes='bucket')


class Weight(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, *inputs, mode='loss'):
        return dict(loss=self.weight.sum()) if mode == 'loss' else [self.weight.sum()]


class UpAndDown(BaseMetric):
    """Two metrics: acc is best at the third evaluation, loss at the last."""

    count = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.count += 1
        return dict(acc=[0.1, 0.2, 0.5, 0.4, 0.3][self.count - 1], loss=1 / self.count, other=0.0)


def train(kind, work_dir, epochs, options, resume=None):
    runner = Runner(
        model=Weight(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(TensorDataset(torch.zeros(2, 1))),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0, momentum=0.9)),
        param_scheduler=dict(type='MultiStepLR', milestones=[3]),
        default_hooks=dict(logger=None, checkpoint=dict(type=kind, **options)),
        val_dataloader=DataLoader(TensorDataset(torch.zeros(1, 1))),
        val_cfg=dict(),
        val_evaluator=[UpAndDown()],
        # MMEngine keeps one message hub in the process for each name.
        experiment_name=f'{work_dir}-{epochs}'.replace('/', '_'),
        load_from=resume and str(resume),
        resume=bool(resume),
    )
    runner.train()


def normalised(value, root):
    """A value of a checkpoint, with the run's folder taken out of paths."""
    if isinstance(value, dict):
        return {key: normalised(item, root) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [normalised(item, root) for item in value]
    return str(value).replace(str(root), '')


def content(path, root):
    """The content of a checkpoint without what differs in every run: seed, time, names."""
    found = torch.load(path, weights_only=False)
    if 'meta' in found:
        found['meta'] = {key: found['meta'][key] for key in ('epoch', 'iter')}
    if 'message_hub' in found:
        info = found.pop('message_hub')['runtime_info']
        found['info'] = {key: info[key] for key in info if 'ckpt' in key or 'best' in key}
    return normalised(found, root)


def left(root):
    """The checkpoints and pointers below a folder; names are without hashes."""
    found = {}
    for path in root.rglob('*'):
        name = re.sub(r'-[0-9a-f]{8}\.pth$', '-<hash>.pth', str(path.relative_to(root)))
        if path.suffix == '.pth':
            found[name] = content(path, root)
        elif path.name == 'last_checkpoint':
            found[name] = path.read_text().replace(str(root), '')
    return found


BEST = dict(save_best=['acc', 'loss'], interval=1, max_keep_ckpts=1)
OPTIONS = {
    'default': dict(),
    'interval': dict(interval=2),
    'save_last': dict(interval=2, save_last=False),
    'save_begin': dict(interval=2, save_begin=3),
    'max_keep_ckpts': dict(interval=1, max_keep_ckpts=2),
    'by_epoch': dict(interval=3, by_epoch=False, max_keep_ckpts=2),
    'by_epoch, best': dict(interval=3, by_epoch=False, save_best='acc'),
    'save_optimizer': dict(interval=1, save_optimizer=False, save_param_scheduler=False),
    'save_best': dict(interval=1, save_best='acc'),
    'save_best alone': dict(save_best='acc', save_last=False),
    'save_best between intervals': dict(interval=2, save_best='acc', max_keep_ckpts=1),
    'save_best auto': dict(interval=1, save_best='auto', max_keep_ckpts=1),
    'save_best list': BEST,
    'rule': dict(BEST, rule=['less', 'greater']),
    'keys': dict(BEST, save_best='other', greater_keys='other', less_keys=['acc']),
    'filename_tmpl': dict(interval=1, filename_tmpl='model-{}.pth', max_keep_ckpts=2),
    'published_keys': dict(BEST, published_keys=['meta', 'state_dict']),
    'published_keys, one best': dict(interval=1, save_best='acc', published_keys='state_dict'),
    'out_dir': dict(BEST, out_dir='{root}/out'),
    'backend_args': dict(BEST, backend_args=dict(backend='local')),
    'file_client_args': dict(BEST, file_client_args=dict(backend='disk')),
    'remote out_dir': dict(BEST, out_dir='bucket://{name}'),
}


# Best checkpoints, a limited number of them, and storage elsewhere: these combine the others.
FAST = [OPTIONS[name] for name in ('default', 'by_epoch, best', 'save_best list', 'remote out_dir')]


@pytest.mark.parametrize('options', slow_except(FAST, OPTIONS.values()), ids=OPTIONS)
def test_a_run_and_its_resumption_leave_the_files_of_mmengines_hook(tmp_path, options):
    files = []
    for kind in ('CheckpointHook', 'mmfish.AtomicCheckpointHook'):
        root = tmp_path / kind
        ROOTS[f'{tmp_path.name}-{kind}'] = root / 'bucket'
        given = dict(options)
        if 'out_dir' in given:
            given['out_dir'] = given['out_dir'].format(root=root, name=f'{tmp_path.name}-{kind}')
        train(kind, root / 'work', 4, given)
        first = left(root)
        last = (root / 'work' / 'last_checkpoint').read_text() if 'last' in str(first) else None
        if last and '://' not in last and 'optimizer' in torch.load(last, weights_only=False):
            train(kind, root / 'work', 5, given, resume=Path(last))
        files.append((first, left(root)))
    (stock, stock_resumed), (ours, ours_resumed) = files
    assert stock
    if 'bucket' in str(options.get('out_dir')):
        # The path of a checkpoint, which holds the name of the bucket, is part of it.
        stock, ours = stock.keys(), ours.keys()
        stock_resumed, ours_resumed = stock_resumed.keys(), ours_resumed.keys()
    assert ours == stock
    assert ours_resumed == stock_resumed
