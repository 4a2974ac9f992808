"""The page is made from the CSV of the measurements; nothing is measured here."""

import shutil
from pathlib import Path

import pytest

from benchmarks.performance import EXPORTED, INFERENCE, _exported, page_runs, update_page
from benchmarks.speed import Measurement, add_to_csv, network_names, read_csv
from demo.markdown import fill_page, markdown_table
from mmfish.errors import UsageError

DOCS = Path(__file__).resolve().parents[2] / 'docs'


@pytest.fixture
def page(tmp_path):
    return Path(shutil.copy(DOCS / 'performance.md', tmp_path))


@pytest.fixture
def figures(tmp_path):
    return Path(shutil.copy(DOCS / 'performance.csv', tmp_path))


def test_the_page_has_the_tables_of_the_csv_and_both_plots(page, figures):
    update_page(page, figures)
    assert page.read_text() == (DOCS / 'performance.md').read_text()
    assert figures.read_text() == (DOCS / 'performance.csv').read_text()  # nothing was missing
    for name in ('time', 'memory'):
        assert f'](images/{name}.png)' in page.read_text()
        assert (page.parent / 'images' / f'{name}.png').stat().st_size > 1000


@pytest.mark.parametrize(
    'row',
    [
        '| FishNet-150, fused, channels-last | 134.7 | 1.881 | 0.65 | 1.36 | 318 |',
        '| FishNet-150, FrozenBN | 134.7 | 7.644 | 1.18 | 1.49 | 1392 | 0.47 | 1611 |',
        '| ResNet-50, FrozenBN, channels-last | 205.5 | 7.668 | 0.90 | 1.29 | 807 | 0.63 | 1006 |',
        '| Mask R-CNN, training step, over that with ResNet-50: time | 1.25 | 1.17 |',
        '| `mkldnn::_convolution_pointwise` |  |  | 973 |',
        '| fishnet150 | 1 | 1344x1344 | 4.405 (1.834) | 13.494 (6.029) | 2339 (1423) |',
    ],
)
def test_the_page_has_the_measured_figures(row):
    assert row in (DOCS / 'performance.md').read_text().splitlines()


def test_exported_files_are_in_columns_by_setting():
    large, alone, *small = EXPORTED['backbone']
    in_streams = 'FishNet-150, OpenVINO, 2 streams'
    runs = {
        setting: {name: Measurement(2.0, 1.0, 10**9, 2**20) for name in network_names(setting)}
        for setting in (large, alone, *small)
    }
    runs[alone]['FishNet-150, OpenVINO'].seconds = 1.0
    head, _, *rows = _exported(EXPORTED['backbone'], runs).splitlines()
    assert head.startswith('|  | 800x1344, 2 threads: s (ratio) | 800x1344, 1 thread: s (ratio) |')
    assert '| pytorchcv FishNet-150 | 2.000 (1.00) | 2.000 (1.00) ' in '\n'.join(rows)
    cells = '| 2.000 (1.00) | 1.000 (0.50) | 2.000 (1.00) | 2.000 (1.00) | 2.00 | 1 |'
    assert f'| FishNet-150, OpenVINO {cells}' in rows
    assert f'| {in_streams} | 2.000 (1.00) |  | 2.000 (1.00) |  | 2.00 | 1 |' in rows


def test_figures_of_another_environment_are_kept_and_not_mixed(page, figures):
    lines = figures.read_text().replace('x86_64 CPU', 'another CPU').splitlines(keepends=True)
    figures.write_text(''.join(lines[:-4]))  # the last run is missing
    before = figures.read_text()
    with pytest.raises(UsageError, match=r'performance\.csv .*another CPU.*give another --csv'):
        update_page(page, figures)
    assert figures.read_text() == before


def test_a_page_that_lacks_the_marks_of_a_table_is_not_changed(page):
    before = page.read_text()
    with pytest.raises(UsageError, match=r"no place for the table 'other'.*<!-- table: other -->"):
        fill_page(page, {'growth': 'new', 'other': 'new'})
    assert page.read_text() == before


def test_only_the_text_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        'one\n<!-- table: a -->\nold\n<!-- end -->\ntwo\n<!-- table: b -->\n<!-- end -->'
    )
    fill_page(page, {'a': markdown_table(['x', 'y'], [['1', r'\1']], numbers=1)})
    table = '| x | y |\n|---|--:|\n| 1 | \\1 |'
    assert page.read_text() == (
        f'one\n<!-- table: a -->\n\n{table}\n\n<!-- end -->\ntwo\n<!-- table: b -->\n<!-- end -->'
    )


def test_the_csv_is_read_as_it_was_written(tmp_path):
    file = tmp_path / 'new' / 'figures.csv'
    run = {'FishNet-150, BN': Measurement(1.5, 0.25, 7, 8, 9, {'aten::add': 0.5, 'a b=c': 0.125})}
    settings = [setting for setting, _ in page_runs()]
    for setting in settings:
        add_to_csv(file, setting, run, 'a CPU; torch 2')
    environments, runs = read_csv(file)
    assert environments == {setting: {'a CPU; torch 2'} for setting in settings}
    assert runs == dict.fromkeys(settings, run)
    assert INFERENCE in settings
