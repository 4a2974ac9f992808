import pytest

from benchmarks.agreement import DETECTORS, agreement_table

pytest.importorskip('onnx')
pytest.importorskip('openvino')


@pytest.mark.slow
def test_the_table_has_a_row_for_each_runtime():
    table = agreement_table({'RetinaNet': DETECTORS['RetinaNet']}, ('fishnet77',))
    rows = [line.strip('| ').split(' | ') for line in table.splitlines()[2:]]
    assert [row[:3] for row in rows] == [
        ['RetinaNet', 'fishnet77', runtime] for runtime in ('onnxruntime', 'openvino')
    ]
    for _, _, _, both, alone, boxes, scores, *_ in rows:
        assert int(both) > 0
        assert int(alone) == 0
        assert float(boxes) <= 0.01
        assert float(scores) <= 1e-4
