"""A hook that records what each rank trained on and the weights it ended with."""

import hashlib
import json
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Witness(Hook):
    """Write ``rank_<n>.json`` into the work directory when a training ends."""

    priority = 'LOWEST'

    def before_train(self, runner):
        # The last group of parameters is a head's, whose learning rate has no factor of its own.
        optimizer = runner.optim_wrapper.optimizer
        self.seen = dict(images={}, metrics={}, lr=optimizer.param_groups[-1]['initial_lr'])

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        images = self.seen['images'].setdefault(runner.epoch + 1, [])
        images += [sample.img_id for sample in data_batch['data_samples']]

    def after_val_epoch(self, runner, metrics=None):
        self.seen['metrics'] = metrics

    def after_train(self, runner):
        digest = hashlib.sha256()
        model = getattr(runner.model, 'module', runner.model)
        for tensor in model.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
        self.seen['weights'] = digest.hexdigest()
        file = Path(runner.work_dir, f'rank_{get_rank()}.json')
        file.write_text(json.dumps(self.seen))
