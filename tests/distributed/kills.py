"""Kill a training with SIGKILL at random moments, resume it, and compare its end.

    python tests/distributed/kills.py [--kills 10] [--seed 0]

Each killed run is resumed with --resume. It has to end with the weights, the optimiser and the
predictions of a run that was not killed, bit by bit. The moments are in turn a random iteration of
epoch 3, any time of the run, and the writing of a checkpoint. Each run is tools/train.py in a
process that is forked from this one, which saves the imports: they take longer than the run.
"""

import argparse
import itertools
import os
import random
import runpy
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import mmdet.datasets
import mmdet.evaluation
import mmdet.models
import mmdet.visualization  # noqa: F401
import torch

from demo.shapes import make_shapes
from mmfish.engine.fault_tolerance.saving import PART, POINTER

HERE = Path(__file__).resolve().parent
EPOCHS, ITERATIONS = 4, 8
MOMENTS = ('in epoch 3', 'at any time', 'while writing')


class Run:
    """A training in a process of its own."""

    def __init__(self, work_dir, data, *arguments, kill_at=None):
        self.work_dir = work_dir
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            if kill_at:
                kill_while_writing(*kill_at)
            self._train(data, arguments)

    def _train(self, data, arguments):
        status = 1
        try:
            self.work_dir.mkdir(exist_ok=True)
            output = os.open(self.work_dir / 'output', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            tool = str(HERE.parents[1] / 'tools' / 'train.py')
            sys.argv = [tool, str(HERE / 'tiny.py'), '--data-root', str(data)]
            sys.argv += ['--work-dir', str(self.work_dir), *arguments, '--cfg-options']
            sys.argv += [f'val_evaluator.outfile_prefix={self.work_dir}/val', 'randomness.seed=0']
            runpy.run_path(tool, run_name='__main__')
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def iterations(self):
        return sum(
            line.count('"data_time"') and '"loss"' in line
            for log in self.work_dir.glob('*/vis_data/scalars.json')
            for line in log.read_text().splitlines()
        )

    def wait(self, status=0):
        found = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert found == status, (found, (self.work_dir / 'output').read_text()[-3000:])

    def kill(self):
        os.killpg(self.pid, signal.SIGKILL)
        self.wait(-signal.SIGKILL)


def kill_while_writing(number, delay):
    """End this process and its workers some seconds after it has opened the nth file to write.

    Only checkpoints, which have another name while they are written, and last_checkpoint count.
    """
    opened = itertools.count(1)

    def watch(event, arguments):
        if event != 'open':
            return
        path, mode = str(arguments[0]), arguments[1]
        checkpoint = path.endswith(PART) or (path.endswith(POINTER) and mode == 'w')
        if checkpoint and next(opened) == number:
            threading.Timer(delay, os.killpg, (os.getpid(), signal.SIGKILL)).start()

    sys.addaudithook(watch)


def kill_in_moment(work_dir, data, moment, chance):
    """Train and kill; says when that was."""
    if moment == 'while writing':
        # Each epoch writes the checkpoint and last_checkpoint, and if it is the best, both again.
        number, delay = chance.randint(1, 2 * EPOCHS), chance.uniform(0, 0.02)
        Run(work_dir, data, kill_at=(number, delay)).wait(-signal.SIGKILL)
        return f'{1000 * delay:.0f} ms into write {number}'
    run = Run(work_dir, data)
    first, last = (2 * ITERATIONS + 1, 3 * ITERATIONS - 1)
    if moment == 'at any time':
        first, last = 0, EPOCHS * ITERATIONS - 1
    target = chance.randint(first, last)
    while run.iterations() < target:
        time.sleep(0.005)
    if moment == 'at any time':
        time.sleep(chance.uniform(0, 1))  # starting, evaluating, saving
    done = f'after {run.iterations()} iterations'
    run.kill()
    return done


def differences(work_dir, reference):
    """Names of what is not the same at the end of two runs."""
    name = f'epoch_{EPOCHS}.pth'
    one, other = (torch.load(d / name, weights_only=False) for d in (work_dir, reference))
    found = [
        key
        for key in ('state_dict', 'optimizer', 'param_schedulers')
        if not same(one[key], other[key])
    ]
    for predictions in ('val.bbox.json', 'val.segm.json'):
        if (work_dir / predictions).read_bytes() != (reference / predictions).read_bytes():
            found.append(predictions)
    return found


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def average_precision(work_dir):
    lines = (work_dir / 'output').read_text().splitlines()
    last = [line for line in lines if 'coco/bbox_mAP: ' in line][-1]
    return last.split('coco/bbox_mAP: ')[1].split()[0]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--kills', type=int, default=10)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = make_shapes(root / 'shapes', train=2 * ITERATIONS, val=8, size=64)
        reference = root / 'reference'
        Run(reference, data).wait()
        ap = average_precision(reference)
        assert float(ap) > 0, 'nothing was learned, so that equal APs say nothing'
        print(f'left alone: box AP {ap}', flush=True)
        identical = 0
        for number in range(args.kills):
            work_dir = root / f'killed_{number}'
            moment = MOMENTS[number % len(MOMENTS)]
            moment = kill_in_moment(work_dir, data, moment, chance)
            left = [path.name for path in work_dir.glob(f'*{PART}')]
            pointer = work_dir / POINTER
            resumed = Path(pointer.read_text()).name if pointer.exists() else 'the beginning'
            Run(work_dir, data, '--resume').wait()
            found = differences(work_dir, reference)
            parts = [path.name for path in work_dir.glob(f'*{PART}')]
            same_ap = average_precision(work_dir) == ap
            identical += not found and not parts and same_ap
            print(
                f'{number + 1:>3}  killed {moment:<22} left {", ".join(left) or "-":<18} resumed '
                f'from {resumed:<15} box AP {average_precision(work_dir)}  '
                + (f'DIFFERENT: {", ".join(found + parts)}' if found or parts else 'identical'),
                flush=True,
            )
    print(f'{identical} of {args.kills} identical')
    sys.exit(identical != args.kills)


if __name__ == '__main__':
    main()
