import pytest
from mmengine.config import Config

from benchmarks.necks import NECKS, Outcome, compare_necks, necks_table


def logs(work_dir):
    return sorted(work_dir.glob('*/*/vis_data/scalars.json'))


@pytest.mark.slow
def test_each_neck_is_trained_once_without_clipping_in_its_own_folder(shapes, tmp_path):
    outcomes = compare_necks(shapes, tmp_path, iterations=2, seeds=(0,))
    assert outcomes.keys() == NECKS.keys()
    for (outcome,) in outcomes.values():
        assert len(outcome.gradient_norms) == 2
        assert 0 <= outcome.box_ap <= 1
    raw, adapted = (outcome.gradient_norms[0] for (outcome,) in outcomes.values())
    assert raw != adapted

    before = logs(tmp_path)
    assert len(before) == 2
    configs = [Config.fromfile(log.with_name('config.py')) for log in before]
    assert [cfg.model.neck.type for cfg in configs] == ['FPN', 'mmfish.FishFPN']
    assert all(cfg.optim_wrapper.clip_grad.max_norm > 1e9 for cfg in configs)

    assert compare_necks(shapes, tmp_path, iterations=2, seeds=(0,)) == outcomes
    assert logs(tmp_path) == before


def test_the_table_has_median_and_range_over_the_seeds():
    runs = [Outcome(ap / 10, ap / 20, [norm, 1, 2]) for ap, norm in ((1, 9), (2, 30), (4, 8))]
    row = necks_table({'FPN': runs}).splitlines()[-1]
    assert row == (
        '| FPN | 20.0 (10.0 to 40.0) | 10.0 (5.0 to 20.0) | 9.0 (8.0 to 30.0) | 2.0 (2.0 to 2.0) '
        '| 9.0 (8.0 to 30.0) |'
    )
