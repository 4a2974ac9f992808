"""Train on several ranks and hosts, and check that their number makes no difference.

    python tests/distributed/ranks.py 16            # one host, tools/dist_train.sh CONFIG 16
    python tests/distributed/ranks.py 2 --hosts 2   # two hosts with two ranks each

The hosts are network namespaces with an address each, connected by a virtual cable (veth). That
needs root. Without it they are two launchers on the loopback address, and the output says so.
"""

import argparse
import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from mmengine.config import Config

from demo.shapes import make_shapes
from mmfish.engine.records import RECORD
from mmfish.engine.run import load_config, run_test

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parents[1] / 'tools'
CONFIG = HERE / 'witnessed.py'
# Of the run, after --auto-scale-lr. With a higher one the detector detects nothing in the end.
LEARNING_RATE = 0.006


def free_port():
    with socket.socket() as found:
        found.bind(('', 0))
        return str(found.getsockname()[1])


def environment(**variables):
    """For the scripts in `tools`: this Python, one thread for each rank, no GPU."""
    paths = [str(HERE), *filter(None, [os.environ.get('PYTHONPATH')])]
    return {
        **os.environ,
        'PYTHON': sys.executable,
        'PYTHONPATH': os.pathsep.join(paths),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        'PORT': os.environ.get('PORT') or free_port(),
        **variables,
    }


@contextlib.contextmanager
def hosts(count):
    """Yield for each host how a command begins there, and its variables for dist_train.sh."""
    if count == 1:
        yield [([], {})]
        return
    assert count == 2, 'a cable has two ends'
    names = [f'mmfish{os.getpid()}-{number}' for number in range(count)]
    try:
        connect(names)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, 'stderr', None) or str(error)).strip()
        print(f'no network namespaces here ({reason}): two launchers on 127.0.0.1 instead')
        begins, address, others = [[], []], '127.0.0.1', {}
    else:
        begins = [['ip', 'netns', 'exec', name] for name in names]
        # The machine's own name does not resolve to an address of a namespace.
        address, others = '10.77.0.1', dict(GLOO_SOCKET_IFNAME='eth0')
    try:
        yield [
            (begin, dict(NNODES=str(count), NODE_RANK=str(number), MASTER_ADDR=address, **others))
            for number, begin in enumerate(begins)
        ]
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'delete', name], capture_output=True)


def connect(names):
    for name in names:
        ip('netns', 'add', name)
        ip('-n', name, 'link', 'set', 'lo', 'up')
    cable = [('name', 'eth0', 'netns', name) for name in names]
    ip('link', 'add', *cable[0], 'type', 'veth', 'peer', *cable[1])
    for number, name in enumerate(names):
        ip('-n', name, 'address', 'add', f'10.77.0.{number + 1}/24', 'dev', 'eth0')
        ip('-n', name, 'link', 'set', 'eth0', 'up')


def ip(*arguments):
    subprocess.run(['ip', *arguments], check=True, capture_output=True, text=True)


def train(data, work_dir, ranks, machines=1, epochs=2):
    """Train through tools/dist_train.sh on each host; returns what each rank recorded."""
    command = [TOOLS / 'dist_train.sh', CONFIG, str(ranks), '--data-root', data]
    command += ['--work-dir', work_dir, '--auto-scale-lr', '--cfg-options']
    command += [f'train_cfg.max_epochs={epochs}', f'val_evaluator.outfile_prefix={work_dir}/val']
    command += ['train_dataloader.num_workers=1']
    command += [f'optim_wrapper.optimizer.lr={LEARNING_RATE / (ranks * machines)}']
    port = free_port()
    with hosts(machines) as places, contextlib.ExitStack() as files:
        started = []
        for number, (begin, variables) in enumerate(places):
            output = files.enter_context(open(f'{work_dir}-host{number}.log', 'w'))
            process = subprocess.Popen(
                [*begin, *command],
                env=environment(PORT=port, **variables),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            started.append((process, output.name))
        for process, log in started:
            assert process.wait() == 0, Path(log).read_text()[-5000:]
    count = ranks * machines
    return [json.loads(Path(work_dir, f'rank_{rank}.json').read_text()) for rank in range(count)]


def check(seen, data, work_dir, epochs=2):
    """Check what the ranks wrote; yields a line about each check that has passed."""
    annotations = json.loads((data / 'annotations/instances_train2017.json').read_text())
    images = {image['id'] for image in annotations['images']}
    # DefaultSampler gives all ranks the same number of images; the first ones may come twice.
    padded = math.ceil(len(images) / len(seen)) * len(seen) - len(images)
    for epoch in range(1, epochs + 1):
        counts = Counter(image for rank in seen for image in rank['images'][str(epoch)])
        assert counts.keys() == images, sorted(images - counts.keys())
        assert sum(counts.values()) == len(images) + padded
        assert max(counts.values()) <= 1 + math.ceil(padded / len(images))
    twice = f' and {padded} of them twice, to give all ranks as many' if padded else ''
    yield f'every epoch had each of {len(images)} images once over all ranks{twice}'

    weights = {rank['weights'] for rank in seen}
    assert len(weights) == 1, [rank['weights'][:8] for rank in seen]
    yield f'identical weights on {len(seen)} ranks (SHA-256 {weights.pop()[:16]}...)'

    cfg = Config.fromfile(HERE / 'tiny.py')
    batch, base = len(seen) * cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size
    configured = LEARNING_RATE / len(seen)
    expected = configured * batch / base
    assert all(math.isclose(rank['lr'], expected) for rank in seen), (seen[0]['lr'], expected)
    yield f'learning rate {configured:g} for {base} images a step became {expected:g} for {batch}'

    metrics = seen[0]['metrics']
    torch.set_num_threads(1)  # as each rank had
    cfg = load_config(
        str(HERE / 'tiny.py'),
        work_dir=str(work_dir / 'test'),
        data_root=str(data),
        cfg_options={
            'test_evaluator.outfile_prefix': f'{work_dir}/single',
            'log_level': 'WARNING',
        },
    )
    found = run_test(cfg, str(work_dir / f'epoch_{epochs}.pth'))
    for name, value in found.items():
        assert metrics[name] == value or math.isnan(value), (name, metrics[name], value)
    (record,) = (json.loads(file.read_text()) for file in work_dir.glob(f'*/{RECORD}'))
    assert json.dumps(record['metrics']) == json.dumps(metrics)  # NaN is not equal to NaN
    assert len(record['ranks']) == len(seen)
    (tested,) = (json.loads(file.read_text()) for file in work_dir.glob(f'test/*/{RECORD}'))
    assert record['predictions'] == tested['predictions'], 'the records have other predictions'
    for kind in ('bbox', 'segm'):
        one, other = (Path(work_dir, f'{name}.{kind}.json') for name in ('val', 'single'))
        assert one.read_bytes() == other.read_bytes(), f'{one} and {other} differ'
    ap = metrics['coco/bbox_mAP']
    predictions = len(json.loads(Path(work_dir, 'val.bbox.json').read_text()))
    assert predictions, 'nothing was detected, so that equal predictions say nothing'
    yield f'box AP {ap} of one process, from the same {predictions} predictions to the last bit'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('ranks', type=int, help='of each host')
    parser.add_argument('--hosts', type=int, default=1)
    parser.add_argument('--images', type=int, help='to train with (four for each rank)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        count = args.ranks * args.hosts
        data = make_shapes(root / 'shapes', train=args.images or 4 * count, val=6, size=64)
        seen = train(data, root / 'run', args.ranks, args.hosts)
        print(f'{count} ranks on {args.hosts} host{"s" * (args.hosts > 1)}:')
        for line in check(seen, data, root / 'run'):
            print(f'  {line}', flush=True)


if __name__ == '__main__':
    main()
