from demo.demonstration import COLUMNS, ap_table


def test_the_table_has_every_metric_in_its_place():
    metrics = {
        f'coco/{kind}_{key}': start + i / 100
        for start, kind in ((0.5, 'bbox'), (0.7, 'segm'))
        for i, key in enumerate(COLUMNS.values())
    }
    header, _, boxes, masks = ap_table(metrics).splitlines()
    assert header == f'|  | {" | ".join(COLUMNS)} |'
    assert boxes == '| boxes | 0.500 | 0.510 | 0.520 | 0.530 | 0.540 |'
    assert masks == '| masks | 0.700 | 0.710 | 0.720 | 0.730 | 0.740 |'
