"""The page from figures that are made up: nothing is measured here."""

import pytest

from benchmarks.performance import (
    AIMS,
    DETECTOR,
    GROWTH,
    INFERENCE,
    KEPT,
    TRAINING,
    make_page,
)
from benchmarks.speed import Measurement, Run, contestants, save_json
from mmfish.errors import UsageError

DEFAULTS = dict(kind='backbone', arch='fishnet150', batch=1)


def run(settings, keep_memory=False):
    """Every contestant takes twice the seconds and bytes of the one before it."""
    settings = DEFAULTS | settings | dict(keep_memory=keep_memory)
    known = contestants(settings['kind'], settings['step'], settings['arch'])
    names = settings.pop('names', known)
    held = settings['step'] == 'training'
    return Run(
        **settings,
        measurements=[
            Measurement(
                name, 2.0**i, 1.0, 10**9, 2**20 * 2**i if held else None, 0, [1.0] * 7, {'op': i}
            )
            for i, name in enumerate(name for name in known if name in names)
        ],
    )


@pytest.fixture
def data(tmp_path):
    runs = [run(settings) for settings in (INFERENCE, TRAINING, DETECTOR, *GROWTH)]
    runs += [run(settings, keep_memory=True) for settings in KEPT]
    file = tmp_path / 'data.json'
    save_json(file, runs, 'cpu')
    return file


@pytest.fixture
def page(data, tmp_path):
    out, before = tmp_path / 'page.md', data.read_text()
    make_page(out, data)
    assert data.read_text() == before  # nothing was missing
    return out


def test_figures_of_another_environment_are_neither_mixed_nor_lost(data, tmp_path):
    data.write_text(data.read_text().replace('CPU', 'another CPU'))
    before = data.read_text()
    with pytest.raises(UsageError, match=r'data\.json are of .*another CPU.*give another --json'):
        make_page(tmp_path / 'page.md', data)
    assert data.read_text() == before


def test_the_page_has_the_ratios_asked_for(page):
    text = page.read_text()
    table = text.split('## In short')[1].split('\n\n')[2].splitlines()
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table]
    assert rows[0] == ['figure', 'at most', 'aim', 'measured', 'memory kept']
    assert [row[0] for row in rows[2:]] == [aim.figure for aim in AIMS]
    # Of the modes in inference, 'fused, channels-last' is the fourth of five, then pytorchcv; of
    # those with memory kept the second of three.
    assert rows[2][1:] == ['0.60', '0.50', '0.25', '0.25']
    assert rows[3][1:] == ['0.47', '0.42', '**0.50**', '**0.50**']  # missed
    assert rows[8][3:] == ['**2.00**', '**2.00**']  # with_cp is the one after FrozenBN
    assert 'the median of 7 rounds' in text


def test_the_page_has_every_run_and_both_plots(page):
    text = page.read_text()
    assert text.count('| fishnet150 |') == 7
    assert '| fishnet201 | 1 | 224x224 | 1.000 (2.000) | 1.000 (2.000) | 1 (2) |' in text
    assert 'HRNet-W32' in text
    for name in ('time', 'memory'):
        assert f'](images/{name}.png)' in text
        assert (page.parent / 'images' / f'{name}.png').stat().st_size > 1000
