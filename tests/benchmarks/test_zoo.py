import json
import os

import pytest

from benchmarks.zoo import by_family, read_results, run_zoo, zoo_page

ATSS = ['atss/atss_r101.py', 'atss/atss_r50.py', 'atss/atss_r50_ms.py']
CONFIGS = [*ATSS, 'dcn/x101.py', 'rfp/rfp.py']
OK = dict(control='passed', fishnet='passed')
NO_OP = 'RuntimeError: no such op on a CPU'


@pytest.fixture
def results(tmp_path):
    """Outcomes of an earlier run, so that nothing has to be tried."""
    outcomes = {name: OK for name in CONFIGS} | {
        'atss/atss_r50.py': dict(control=NO_OP, fishnet=NO_OP),
        'dcn/x101.py': dict(control='passed', fishnet='a | b'),
        'rfp/rfp.py': dict(control='passed', fishnet='refused, because it cannot be'),
    }
    file = tmp_path / 'zoo.jsonl'
    file.write_text(
        ''.join(
            json.dumps(dict(arch='fishnet77', config=name, **row)) + '\n'
            for name, row in outcomes.items()
        )
    )
    return file


def test_families_begin_with_their_plainest_config():
    assert by_family(CONFIGS) == {
        'atss': ['atss/atss_r50.py', 'atss/atss_r50_ms.py', 'atss/atss_r101.py'],
        'dcn': ['dcn/x101.py'],
        'rfp': ['rfp/rfp.py'],
    }


def test_what_was_tried_is_not_tried_again(results):
    before = results.read_text()
    assert list(dict(run_zoo(CONFIGS, results))) == CONFIGS
    assert results.read_text() == before


def test_where_a_control_fails_another_config_stands_for_the_family(results):
    assert list(dict(run_zoo(CONFIGS, results, one_per_family=True))) == [
        'atss/atss_r50_ms.py',
        'dcn/x101.py',
        'rfp/rfp.py',
    ]


def test_of_another_arch_nothing_is_known(results):
    assert read_results(results, 'fishnet99') == {}


def test_a_death_with_fishnet_is_none_of_the_control(tmp_path, monkeypatch):
    def die(config, arch):
        yield 'control', 'passed'
        os._exit(139)

    monkeypatch.setattr('benchmarks.zoo.try_config', die)
    outcomes = dict(run_zoo(['atss/atss_r50_fpn_1x_coco.py'], tmp_path / 'zoo.jsonl'))
    assert outcomes['atss/atss_r50_fpn_1x_coco.py'] == dict(
        control='passed', fishnet='the process died (exit code 139)'
    )


def test_a_config_that_takes_too_long_has_failed_and_is_kept(tmp_path):
    results = tmp_path / 'new' / 'zoo.jsonl'
    outcomes = dict(run_zoo(['atss/atss_r50_fpn_1x_coco.py'], results, limit=0))
    assert outcomes['atss/atss_r50_fpn_1x_coco.py']['control'] == 'took more than 0 s'
    assert json.loads(results.read_text())['fishnet'] == 'took more than 0 s'


def test_the_page_counts_and_gives_reasons(results):
    families = dict(run_zoo(CONFIGS, results, one_per_family=True))
    page = zoo_page(families, read_results(results, 'fishnet77'), (5, 600), 'fishnet77')
    outcome = 'controls passed, and of these {} pass with FishNet and 1 are refused.'
    assert f'3 of 5 families tried: 3 {outcome.format(1)}' in page
    assert f'5 of 600 configs tried: 4 {outcome.format(2)}' in page
    assert '| atss | atss_r50_ms | passed | passed |  |' in page
    assert '| dcn | x101 | passed | failed | FishNet: a \\| b |' in page
    because = 'FishNet: refused, because it cannot be |'
    assert f'| rfp | rfp | passed | refused | {because}' in page
    assert page.splitlines()[-3:] == [
        f'| both: {NO_OP} | 1 | atss/atss_r50 |',
        '| FishNet: a \\| b | 1 | dcn/x101 |',
        f'| {because} 1 | rfp/rfp |',
    ]
