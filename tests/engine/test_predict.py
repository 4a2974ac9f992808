"""From a run or a checkpoint and a user's images to pictures and predictions.json."""

import json
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools.coco import COCO

from demo import CONFIGS
from mmfish.engine.predict import find_model, run_predict
from mmfish.errors import CheckpointError, ConfigError, DataError, UsageError

CLASSES = ('circle', 'square', 'triangle')


def saved(path, cfg_text, state_dict=None, **meta):
    content = dict(state_dict=state_dict or dict(weight=torch.ones(1)), meta=meta)
    if cfg_text:
        content['meta']['cfg'] = cfg_text
    torch.save(content, path)
    return path


@pytest.fixture(scope='module')
def run_folder(tmp_path_factory):
    """The folder of a run of the demonstration's config, with random weights."""
    folder = tmp_path_factory.mktemp('run')
    cfg = Config.fromfile(CONFIGS / 'mask_rcnn_fishnet77_fpn_shapes.py')
    cfg.merge_from_dict(
        {
            'model.test_cfg.rcnn.score_thr': 0.0,
            'model.test_cfg.rcnn.max_per_img': 5,
            'test_dataloader.dataset.pipeline.1.scale': (64, 64),
        }
    )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        state_dict = init_detector(cfg, device='cpu').state_dict()
    meta = dict(dataset_meta=dict(classes=CLASSES))
    saved(folder / 'iter_1.pth', cfg.pretty_text, state_dict, **meta)
    (folder / 'last_checkpoint').write_text('/where/it/was/trained/iter_1.pth')
    return folder


@pytest.fixture
def photos(shapes, tmp_path):
    """A folder with images, and with files that are none."""
    folder = tmp_path / 'photos'
    first, second, *_ = sorted((shapes / 'val2017').glob('*.png'))
    for name, source in (('a/x.png', first), ('b/x.png', second)):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(source.read_bytes())
    with Image.open(first) as image:
        image.crop((0, 0, 60, 30)).save(folder / 'größe 细胞.jpg')
    (folder / 'cut.png').write_bytes(first.read_bytes()[:500])
    (folder / 'empty.jpg').touch()
    (folder / 'notes.txt').write_text('no image')
    return folder


def results(out):
    return json.loads((out / 'predictions.json').read_text())


def test_of_a_run_the_best_checkpoint_is_taken_or_the_last(tmp_path):
    text = "model = dict(type='A', parts=[dict({'x.y': 1}), dict(z=(1, None))])\n"
    for second, name in enumerate(('iter_20.pth', 'iter_10.pth')):  # the newest is not the last one
        os.utime(saved(tmp_path / name, text), (second, second))
    assert find_model(tmp_path)[1] == str(tmp_path / 'iter_10.pth')
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_20.pth')
    assert find_model(tmp_path)[1] == str(tmp_path / 'iter_20.pth')
    saved(tmp_path / 'best_coco_bbox_mAP_iter_10.pth', text)
    saved(tmp_path / 'iter_30.pth', text)
    cfg, checkpoint = find_model(str(tmp_path))
    assert checkpoint == str(tmp_path / 'best_coco_bbox_mAP_iter_10.pth')
    assert cfg.model == dict(type='A', parts=[{'x.y': 1}, dict(z=(1, None))])


def test_checkpoints_may_be_elsewhere(tmp_path):
    (tmp_path / 'run').mkdir()
    file = saved(tmp_path / 'iter_10.pth', 'model = dict()')
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(file))
    assert find_model(tmp_path / 'run')[1] == str(file)


def test_an_empty_pointer_names_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / 'of_another_run.pth', 'model = dict()')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'last_checkpoint').touch()
    with pytest.raises(CheckpointError, match='run has no checkpoint in it'):
        find_model(tmp_path / 'run')


def test_of_a_copied_run_its_own_checkpoints_are_taken(tmp_path):
    for name in ('copy', 'original'):  # the original has trained on
        (tmp_path / name).mkdir()
        file = saved(tmp_path / name / 'best_iter_10.pth', 'model = dict()')
        os.utime(file, (len(name), len(name)))
        (tmp_path / name / 'last_checkpoint').write_text(str(file))
    (tmp_path / 'copy' / 'last_checkpoint').write_text(str(file))
    assert find_model(tmp_path / 'copy')[1] == str(tmp_path / 'copy' / 'best_iter_10.pth')


def test_a_config_is_read_from_where_mmengine_keeps_it_and_from_a_file(tmp_path):
    file = saved(tmp_path / 'a.pth', 'model = dict(a=1)')
    hub = dict(runtime_info=dict(cfg='model = {2: 3}'))
    torch.save(dict(torch.load(file), message_hub=hub), file)
    assert find_model(file)[0].to_dict() == dict(model={2: 3})
    (tmp_path / 'given.py').write_text('model = dict(a=4)')
    assert find_model(file, tmp_path / 'given.py')[0].model.a == 4


@pytest.mark.parametrize(
    'text',
    [
        'model = __import__("os").system("touch {file}")',
        'import pathlib\nmodel = pathlib.Path("{file}").touch()',
        'model = dict(a=open("{file}", "w"))',
        '_base_ = "{file}"\ndef f(): pass',
        'model = (',
    ],
)
def test_nothing_in_the_config_of_a_checkpoint_is_executed(text, tmp_path):
    file = tmp_path / 'executed'
    checkpoint = saved(tmp_path / 'a.pth', text.format(file=file))
    with pytest.raises(ConfigError, match=r'a\.pth is not plain data.*--config CONFIG'):
        find_model(checkpoint)
    assert not file.exists()


def test_the_config_of_a_checkpoint_names_only_components(tmp_path):
    """MMEngine calls whatever a ``type`` names."""
    file = tmp_path / 'executed'
    for kind in ('os.system', 'mmengine.fileio.get', 'subprocess.Popen', 'torch.load'):
        part = f'dict(type={kind!r}, command="touch {file}")'
        checkpoint = saved(tmp_path / 'a.pth', f'model = dict(type="mmdet.FCOS", neck=[{part}])')
        with pytest.raises(ConfigError, match=rf'a\.pth names {kind}.*--config CONFIG'):
            find_model(checkpoint)
    names = 'mmdet.FCOS', 'mmdet.models.FCOS', 'FCOS', 'torch.nn.ReLU', 'mmfish.FishNet', 'my.Own'
    checkpoint = saved(tmp_path / 'a.pth', f'model = {[dict(type=name) for name in names]}')
    assert len(find_model(checkpoint)[0].model) == 6


@pytest.mark.parametrize('kind', ['mmpretrain.ImageClassifier', 'Unknown'])
def test_a_model_must_be_a_detector(kind, photos, tmp_path):
    backbone = "dict(type='mmfish.FishNet')"
    checkpoint = saved(tmp_path / 'a.pth', f'model = dict(type={kind!r}, backbone={backbone})')
    with pytest.raises(ConfigError, match=rf'is a {kind}, and predict draws what detectors'):
        run_predict(checkpoint, [photos], tmp_path / 'out')


@pytest.mark.parametrize('batch_size', [1, 3])
def test_what_can_be_read_is_predicted_and_the_rest_is_named(
    batch_size, run_folder, photos, tmp_path, capsys
):
    before = {file: file.stat().st_mtime_ns for file in photos.rglob('*')}
    out = tmp_path / 'out'
    summary = run_predict(run_folder, [photos], out, score_thr=0.0, batch_size=batch_size)
    assert (summary.images, summary.objects) == (3, 15)
    assert summary.others == ['notes.txt']
    assert [problem.partition(':')[0] for problem in summary.problems] == ['cut.png', 'empty.jpg']
    printed = capsys.readouterr().out
    for text in (
        'cut.png',
        'empty.jpg: it is empty',
        'notes.txt',
        '15 objects in 3 images; 3 other files',
    ):
        assert text in printed
    assert {file: file.stat().st_mtime_ns for file in photos.rglob('*')} == before
    names = ['a/x.png', 'b/x.png', 'größe 细胞.jpg']
    assert list(dict.fromkeys(one['file_name'] for one in results(out))) == names
    written = [file.relative_to(out).as_posix() for file in out.rglob('*.*')]
    assert sorted(written) == sorted([*names, 'predictions.json'])
    for name in names:
        with Image.open(photos / name) as image, Image.open(out / name) as picture:
            assert picture.size == tuple(round(640 / max(image.size)) * side for side in image.size)


def test_predictions_are_those_of_mmdetections_inferencer(run_folder, photos, tmp_path):
    picture = photos / 'größe 细胞.jpg'
    cfg, checkpoint = find_model(run_folder)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        inferencer = DetInferencer(cfg, checkpoint, device='cpu', show_progress=False)
    expected = inferencer(str(picture))['predictions'][0]
    run_predict(run_folder, [picture], tmp_path / 'out', score_thr=0.0, device='cpu')
    found = results(tmp_path / 'out')
    boxes = np.array(expected['bboxes'])
    boxes[:, 2:] -= boxes[:, :2]
    np.testing.assert_allclose([one['bbox'] for one in found], boxes, atol=1e-3)
    np.testing.assert_allclose([one['score'] for one in found], expected['scores'], atol=1e-6)
    assert [one['category_name'] for one in found] == [CLASSES[i] for i in expected['labels']]
    assert [one['segmentation'] for one in found] == expected['masks']


def test_pycocotools_reads_the_predictions(run_folder, photos, tmp_path):
    run_predict(run_folder, [photos / 'a'], tmp_path / 'out', score_thr=0.0)
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=1, width=64, height=64)],
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)],
        annotations=[],
    )
    coco.createIndex()
    found = coco.loadRes(str(tmp_path / 'out' / 'predictions.json'))
    assert len(found.anns) == 5
    assert all(found.annToMask(one).shape == (64, 64) for one in found.anns.values())


def test_frames_of_a_video_are_drawn_into_a_video(run_folder, tmp_path):
    clip = tmp_path / 'in' / 'clip.avi'
    clip.parent.mkdir()
    video = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for number in range(3):
        video.write(np.full((48, 64, 3), 80 * number, np.uint8))
    video.release()
    (clip.parent / 'bad.mp4').write_text('no video')
    summary = run_predict(run_folder, [clip.parent], tmp_path / 'out', score_thr=0.0, batch_size=2)
    assert summary.images == 3
    assert summary.problems[0].startswith('bad.mp4: it is no video')
    names = sorted({one['file_name'] for one in results(tmp_path / 'out')})
    assert names == [f'clip.avi#{number:06d}' for number in range(3)]
    drawn = cv2.VideoCapture(str(tmp_path / 'out' / 'clip.avi.mp4'))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert drawn.read()[1].shape == (480, 640, 3)


def test_without_any_readable_image_there_is_an_error_and_nothing_is_written(
    run_folder, photos, tmp_path
):
    with pytest.raises(DataError, match=r'no image could be read, of 1 \(empty\.jpg'):
        run_predict(run_folder, [photos / 'empty.jpg'], tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_checkpoint_of_other_classes_is_refused(run_folder, photos, tmp_path):
    cfg, checkpoint = find_model(run_folder)
    cfg.model.roi_head.bbox_head.num_classes = 5
    cfg.dump(tmp_path / 'five.py')
    with pytest.raises(CheckpointError, match=r'does not fit the model of the config.*bbox_head'):
        run_predict(checkpoint, [photos], tmp_path / 'out', config=tmp_path / 'five.py')


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(model='gone'), CheckpointError, 'there is no gone'),
        (dict(model='{photos}'), CheckpointError, 'photos has no checkpoint in it'),
        (
            dict(model='{photos}/notes.txt'),
            CheckpointError,
            r'notes\.txt cannot be read as a checkpoint',
        ),
        (dict(model='{bare}'), CheckpointError, r'bare\.pth has no config.*--config CONFIG'),
        (dict(model='{here}/test_predict.py'), CheckpointError, 'is a config.*as MODEL'),
        (dict(config='gone.py'), ConfigError, r'there is no config gone\.py'),
        (dict(inputs=['gone.jpg']), DataError, r'there is no gone\.jpg'),
        (dict(inputs=['gone*']), DataError, r'no file matches gone\*'),
        (dict(inputs=[]), DataError, 'there is no image'),
        (dict(score_thr=1.5), UsageError, '--score-thr must be from 0 to 1, but is 1.5'),
        (dict(score_thr=float('nan')), UsageError, '--score-thr'),
        (dict(batch_size=0), UsageError, '--batch-size must be at least 1, but is 0'),
        (dict(device='banana'), UsageError, '--device banana cannot be used'),
        (dict(device='meta'), UsageError, '--device meta cannot be used'),
        (dict(device='cuda:99'), UsageError, '--device cuda:99 cannot be used'),
        (dict(out='{photos}/notes.txt'), UsageError, '--out .* is a file'),
        (dict(out='{photos}'), UsageError, '--out .* holds inputs'),
        (dict(out='{photos}/out'), UsageError, '--out .* lies in a folder of inputs'),
        (dict(out='{photos}/..'), UsageError, '--out .* holds inputs'),
    ],
)
def test_bad_input_ends_in_one_sentence(change, error, message, run_folder, photos, tmp_path):
    places = dict(photos=photos, here=Path(__file__).parent)
    places['bare'] = saved(tmp_path / 'bare.pth', None)
    arguments = dict(model=run_folder, inputs=[photos], out=tmp_path / 'out') | change
    for name, value in arguments.items():
        if isinstance(value, str) and name != 'device':
            arguments[name] = value.format(**places)
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(error, match=message) as raised:
        run_predict(**arguments)
    assert '\n' not in str(raised.value)
    assert sorted(tmp_path.rglob('*')) == before
