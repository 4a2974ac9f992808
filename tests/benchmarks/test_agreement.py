import pytest

from benchmarks.agreement import DETECTORS, agreement_table

pytest.importorskip('onnx')
pytest.importorskip('openvino')


@pytest.mark.slow
def test_the_table_has_a_row_for_each_runtime_and_picture():
    table = agreement_table({'RetinaNet': DETECTORS['RetinaNet']}, ('fishnet77',))
    rows = [line.strip('| ').split(' | ') for line in table.splitlines()[2:]]
    assert [row[2:4] for row in rows] == [
        [runtime, picture]
        for runtime in ('onnxruntime', 'openvino')
        for picture in ('300x300', '320x240', '250x375')
    ]
    for _, _, _, picture, both, alone, boxes, scores, *_ in rows:
        assert (int(both) > 0) == (picture != '300x300')
        assert int(alone) == 0
        assert float(boxes) <= 0.01
        assert float(scores) <= 1e-4
