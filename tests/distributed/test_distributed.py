"""Several ranks, two hosts and a kill, each once; the commands beside this file do more."""

import subprocess
import sys
from pathlib import Path

import pytest
import ranks

from mmfish.datasets import make_shapes


@pytest.mark.parametrize(('machines', 'images', 'epochs'), [(1, 9, 2), (2, 8, 1)])
def test_all_ranks_together_do_what_one_process_would(tmp_path, machines, images, epochs):
    data = make_shapes(tmp_path / 'shapes', train=images, val=5, size=64)
    work_dir = tmp_path / 'run'
    seen = ranks.train(data, work_dir, 2, machines, epochs)
    found = list(ranks.check(seen, data, work_dir, epochs))
    assert len(found) == 4


def test_a_killed_run_ends_as_if_it_had_been_left_alone():
    command = [sys.executable, Path(__file__).with_name('kills.py'), '--kills', '1']
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.stdout.endswith('1 of 1 identical\n'), process.stdout + process.stderr
