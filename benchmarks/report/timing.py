"""The CPU time of a training, which other work on the machine does not lengthen."""

import time
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfish.registry import HOOKS


@HOOKS.register_module()
class CPUTimeHook(Hook):
    """Log ``cpu_time``: the seconds that the process computed for an iteration, on all cores."""

    def __init__(self) -> None:
        self.last = time.process_time()

    def before_train_epoch(self, runner: Runner) -> None:
        """Leave out what came between the epochs."""
        self.last = time.process_time()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log the time since the last iteration, with the loading of the batch."""
        now = time.process_time()
        runner.message_hub.update_scalar('train/cpu_time', now - self.last)
        self.last = now
