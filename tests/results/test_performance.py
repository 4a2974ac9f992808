"""The page from figures that are made up: nothing is measured here."""

import pytest

from mmfish.results.benchmark import MODES, OTHERS, Measurement, Run, save_json
from mmfish.results.performance import (
    AIMS,
    DETECTOR,
    GROWTH,
    INFERENCE,
    KEPT,
    TRAINING,
    make_page,
)

DEFAULTS = dict(kind='backbone', arch='fishnet150', batch=1, keep_memory=False)


def run(settings):
    """Every contestant takes twice the seconds and bytes of the one before it."""
    settings = DEFAULTS | settings
    ours = [f'FishNet-150, {mode}' for mode in MODES[settings['step']]]
    names = settings.pop('names', [*ours, 'pytorchcv FishNet-150', *OTHERS])
    held = settings['step'] == 'training'
    return Run(
        **settings,
        measurements=[
            Measurement(name, 2.0**i, 1.0, 10**9, 2**20 * 2**i if held else None, 0, [], {'op': i})
            for i, name in enumerate(names)
        ],
    )


@pytest.fixture
def page(tmp_path):
    data, out = tmp_path / 'data.json', tmp_path / 'page.md'
    runs = [run(settings) for settings in (INFERENCE, TRAINING, DETECTOR, *GROWTH, *KEPT)]
    save_json(data, runs, 'cpu')
    before = data.read_text()
    make_page(out, data)
    assert data.read_text() == before  # nothing was missing
    return out


def test_the_page_has_the_ratios_asked_for(page):
    text = page.read_text()
    rows = {
        line.split(' | ')[0].strip('| '): [cell.strip('| ') for cell in line.split(' | ')[-2:]]
        for line in text.splitlines()
        if line.startswith('| ')
    }
    for aim in AIMS:
        assert aim.figure in rows
    # Of the modes in inference, 'fused, channels-last' is the fourth of five, then pytorchcv; of
    # those with memory kept the first of three.
    assert rows['inference, fused, channels-last: time'] == ['0.25', '0.25']
    assert rows['inference, compiled: time'] == ['0.50', '0.50']
    assert rows['the same with `with_cp` over without: time'] == ['2.00', '2.00']


def test_the_page_has_every_run_and_both_plots(page):
    text = page.read_text()
    assert text.count('| fishnet150 |') == 7
    assert '| fishnet201 | 1 | 224x224 | 1.000 (2.000) | 1.000 (2.000) | 1 (2) |' in text
    assert 'HRNet-W32' in text
    for name in ('time', 'memory'):
        assert f'](images/{name}.png)' in text
        assert (page.parent / 'images' / f'{name}.png').stat().st_size > 1000
