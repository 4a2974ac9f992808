"""Stop trainings of two ranks in each way that happens on a cluster, and check how they end.

python tests/distributed/stops.py [undisturbed | killed | restarted | preempted | diverged ...]
"""

import argparse
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from ranks import CONFIG, TOOLS, environment

from demo.shapes import make_shapes

EPOCHS, ITERATIONS = 3, 8
LIMIT = 600


class Job:
    """tools/dist_train.sh with two ranks."""

    started = []  # noqa: RUF012

    def __init__(self, root, name, *arguments, options=(), **variables):
        self.work_dir = root / name
        self.output = root / f'{name}.log'
        command = [TOOLS / 'dist_train.sh', CONFIG, '2', '--data-root', root / 'shapes']
        command += ['--work-dir', self.work_dir, *arguments, '--cfg-options', 'randomness.seed=0']
        command += [f'train_cfg.max_epochs={EPOCHS}', 'train_dataloader.num_workers=1', *options]
        with open(self.output, 'a') as file:
            self.process = subprocess.Popen(
                command, env=environment(**variables), stdout=file, stderr=subprocess.STDOUT
            )

        self.started.append(self.process)

    def rank(self, number):
        """The process of a rank."""
        for child in Path(f'/proc/{self.process.pid}/task').glob('*/children'):
            for pid in child.read_text().split():
                variables = Path(f'/proc/{pid}/environ').read_bytes().split(b'\0')
                if f'RANK={number}'.encode() in variables:
                    return int(pid)
        raise AssertionError(f'no rank {number}: {self.text()[-2000:]}')

    def wait_for_iteration(self, epoch, iteration):
        line = re.compile(rf'Epoch\(train\) +\[{epoch}\]\[ *{iteration}/')
        self.wait_for(lambda: line.search(self.text()))

    def wait_for(self, condition):
        start = time.perf_counter()
        while not condition():
            assert self.process.poll() is None, f'ended: {self.text()[-5000:]}'
            assert time.perf_counter() - start < LIMIT, self.text()[-2000:]
            time.sleep(0.05)

    def end(self):
        """Wait for the end of the job; returns its exit status and how many seconds that took."""
        start = time.perf_counter()
        return self.process.wait(timeout=LIMIT), time.perf_counter() - start

    def text(self):
        return self.output.read_text()

    def weights(self):
        checkpoint = torch.load(self.work_dir / f'epoch_{EPOCHS}.pth', weights_only=False)
        return checkpoint['state_dict']


def same_weights(one, other, statistics=True):
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key])
        for key in one
        if statistics or not key.endswith(('running_mean', 'running_var'))
    )


def undisturbed(root):
    """Train to the end."""
    job = Job(root, 'undisturbed')
    status, _ = job.end()
    assert status == 0, job.text()[-5000:]
    return f'{EPOCHS} epochs of {ITERATIONS} iterations'


def killed(root):
    """Kill a rank with SIGKILL."""
    job = Job(root, 'killed')
    job.wait_for_iteration(2, 3)
    os.kill(job.rank(1), signal.SIGKILL)
    status, seconds = job.end()
    named = re.search(r'rank +: 1 \(local_rank: 1\)\s+exitcode +: -9 .*', job.text())
    assert status, job.text()[-5000:]
    assert named, job.text()[-5000:]
    reason = re.search(r'Signal 9 \(SIGKILL\) received by PID \d+', job.text())
    return f'over after {seconds:.1f} s: "{" ".join(named[0].split())}", "{reason[0]}"'


def restarted(root):
    """Kill a rank of a job that may restart."""
    job = Job(root, 'restarted', MAX_RESTARTS='2')
    job.wait_for_iteration(3, 2)
    os.kill(job.rank(1), signal.SIGKILL)
    status, seconds = job.end()
    assert status == 0, job.text()[-5000:]
    resumed = re.search(r'resumed epoch: \d+, iter: \d+', job.text())
    reference = torch.load(root / f'undisturbed/epoch_{EPOCHS}.pth', weights_only=False)
    assert same_weights(job.weights(), reference['state_dict']), 'the weights differ'
    return f'"{resumed[0]}", finished after {seconds:.1f} s with the weights of the undisturbed run'


def preempted(root):
    """End a job with SIGTERM to the launcher in mid-epoch, and resume it."""
    job = Job(root, 'preempted')
    job.wait_for_iteration(2, 3)
    job.process.send_signal(signal.SIGTERM)
    status, seconds = job.end()
    said = re.search(r'Stopping: .*', job.text())
    assert status, job.text()[-5000:]
    assert said, job.text()[-5000:]
    assert (job.work_dir / 'last_checkpoint').read_text().endswith('preempted.pth')
    again = Job(root, 'preempted', '--resume')
    status, _ = again.end()
    assert status == 0, again.text()[-5000:]
    going_on = re.search(r'Going on after .*', again.text())
    reference = torch.load(root / f'undisturbed/epoch_{EPOCHS}.pth', weights_only=False)
    # Within an epoch each rank has BatchNorm statistics of its own, and rank 0's alone are saved.
    assert same_weights(again.weights(), reference['state_dict'], statistics=False), 'differ'
    return (
        f'over after {seconds:.1f} s: "{said[0]}" Resumed: "{going_on[0]}"; ended with the '
        'parameters of the undisturbed run'
    )


def diverged(root):
    """Train with an absurd learning rate."""
    job = Job(root, 'diverged', options=['optim_wrapper.optimizer.lr=1e12'])
    status, _ = job.end()
    said = re.findall(r'train\.py: Rank .*', job.text())
    assert status, job.text()[-5000:]
    assert said, job.text()[-5000:]
    return f'"{said[0]}"'


SCENARIOS = (undisturbed, killed, restarted, preempted, diverged)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [scenario.__name__ for scenario in SCENARIOS]
    parser.add_argument('scenarios', nargs='*', default=names, metavar='scenario')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_shapes(root / 'shapes', train=4 * ITERATIONS, val=4, size=64)
        try:
            for scenario in SCENARIOS:
                if scenario.__name__ in args.scenarios:
                    print(f'{scenario.__name__}: {scenario(root)}', flush=True)
        finally:
            for process in Job.started:
                process.terminate()


if __name__ == '__main__':
    main()
