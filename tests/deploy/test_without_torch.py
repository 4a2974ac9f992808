"""Exported files on a machine that has a runtime and none of torch and the OpenMMLab packages.

Its Python uses a folder of links to a few installed packages in the place of its site-packages.
"""

import json
import os
import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import mmfish
from mmfish.deploy.predict import predict_exported
from mmfish.stack import MODULES

ROOT = Path(__file__).resolve().parents[2]
FILE, PICTURE = ROOT / 'demo' / 'shapes_detector.onnx', ROOT / 'demo' / 'shapes_picture.png'
COMMAND = 'import sys; sys.argv[0] = "mmfish"; from mmfish_command import main; main()'
SENTENCE = f'mmfish needs {", ".join(MODULES)}, which {sys.executable} does not have: run `pip '
# What is imported without torch. Everything else is in the rooms that need it.
FREE = ('__main__', 'atomic', 'cli', 'deploy', 'errors', 'inference', 'stack', 'version')
NEEDS_TORCH = ('mmfish.deploy.exporter', 'mmfish.deploy.graphs')

pytest.importorskip('onnxruntime')


@pytest.fixture
def machine(tmp_path):
    """Links packages into a folder; runs Python with them and no others, in a folder beside."""
    site, work = tmp_path / 'site', tmp_path / 'work'
    site.mkdir()
    work.mkdir()

    def run(*arguments, packages=('numpy', 'cv2', 'PIL', 'onnxruntime')):
        for package in packages:
            (site / package).symlink_to(Path(find_spec(package).origin).parent)
        # The libraries of these packages lie in folders beside them.
        for folder in Path(find_spec('numpy').origin).parents[1].glob('*.libs'):
            (site / folder.name).symlink_to(folder)
        for name in ('mmfish', 'mmfish_command.py'):
            (site / name).symlink_to(ROOT / name)
        return subprocess.run(
            [sys.executable, '-S', *map(str, arguments)],
            cwd=work,
            env={**os.environ, 'PYTHONPATH': str(site)},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope='module')
def expected(tmp_path_factory):
    """What is written where everything is installed."""
    out = tmp_path_factory.mktemp('expected')
    return json.loads(predict_exported(FILE, PICTURE, out).results.read_text())


@pytest.mark.parametrize('how', [['-c', COMMAND], ['-m', 'mmfish']], ids=['mmfish', 'python -m'])
def test_the_command_writes_what_it_writes_beside_torch(how, machine, expected, tmp_path):
    run = machine(*how, 'predict', FILE, PICTURE, '--out', 'out')
    assert (run.returncode, run.stderr) == (0, '')
    assert f'Found: {len(expected)} objects in 1 images' in run.stdout
    out = tmp_path / 'work' / 'out'
    assert json.loads((out / 'predictions.json').read_text()) == expected
    assert (out / PICTURE.name).stat().st_size > PICTURE.stat().st_size


@pytest.mark.parametrize(
    ('reader', 'runtime'), [('cv2', 'onnxruntime'), ('PIL', 'onnxruntime'), ('cv2', 'openvino')]
)
def test_the_detector_takes_either_runtime_and_either_package_for_images(
    reader, runtime, machine, expected
):
    pytest.importorskip(runtime)
    program = (
        'import json, sys\n'
        'import mmfish\n'
        f'found = mmfish.deploy.Detector({str(FILE)!r})({str(PICTURE)!r})\n'
        'print(json.dumps([found["boxes"].tolist(), found["scores"].tolist()]))\n'
        f'print({{"torch", "mmcv", "mmengine", "mmdet", "mmpretrain"}} & set(sys.modules))\n'
    )
    run = machine('-c', program, packages=('numpy', reader, runtime))
    assert run.returncode == 0, run.stderr
    found, loaded = run.stdout.splitlines()
    assert loaded == 'set()'
    boxes, scores = map(np.array, json.loads(found))
    corners = [[x, y, x + w, y + h] for x, y, w, h in (one['bbox'] for one in expected)]
    np.testing.assert_allclose(boxes[: len(expected)], corners, atol=0.01)
    np.testing.assert_allclose(scores[: len(expected)], [e['score'] for e in expected], atol=1e-4)


@pytest.mark.parametrize('missing', ['cv2', 'PIL'])
def test_pictures_need_opencv_and_pillow(missing, machine):
    packages = {'numpy', 'cv2', 'PIL', 'onnxruntime'} - {missing}
    run = machine(
        '-c', COMMAND, 'predict', FILE, PICTURE, '--out', 'out', packages=sorted(packages)
    )
    assert run.returncode == 1
    assert run.stderr == (
        'mmfish: drawing pictures needs the packages opencv-python and pillow (No module named '
        f"'{missing}'): `pip install opencv-python-headless pillow`\n"
    )


def test_all_else_says_what_it_needs_when_it_is_used(machine):
    uses = [f'mmfish.{name}' for name in mmfish.__all__ if name != '__version__']
    for module in pkgutil.walk_packages(mmfish.__path__, 'mmfish.'):
        if module.name.split('.')[1] not in FREE:
            uses += [f'__import__({module.name!r})']
            uses += [module.name] if module.name.count('.') == 1 else []
    assert {'mmfish.plug_in', 'mmfish.export', 'mmfish.models'} < set(uses)
    program = (
        'import mmfish\n'
        f'for use in {uses!r}:\n'
        '    try: eval(use)\n'
        '    except Exception as error: print(use, type(error).__name__, str(error), sep="\\t")\n'
    )
    run = machine('-c', program)
    said = [line.split('\t') for line in run.stdout.splitlines()]
    assert [(use, kind) for use, kind, _ in said] == [(use, 'StackError') for use in uses]
    assert all(sentence.startswith(SENTENCE) for *_, sentence in said)


def test_what_runs_files_is_imported_without_torch(machine):
    modules = [
        module.name
        for module in pkgutil.walk_packages(mmfish.__path__, 'mmfish.')
        if module.name.split('.')[1] in FREE and module.name not in NEEDS_TORCH
    ]
    assert 'mmfish.deploy.predict' in modules
    run = machine('-c', f'import mmfish, {", ".join(modules)}; mmfish.no_such_thing')
    assert "AttributeError: module 'mmfish' has no attribute 'no_such_thing'" in run.stderr


@pytest.mark.parametrize(
    'arguments',
    [
        ['train', 'config.py'],
        ['predict', 'work_dirs/run', PICTURE, '--out', 'out'],
        ['export', 'work_dirs/run', 'there.onnx'],
        ['check'],
    ],
    ids=lambda arguments: arguments[0],
)
def test_verbs_that_need_torch_end_with_the_sentence(arguments, machine):
    run = machine('-c', COMMAND, *arguments)
    assert run.returncode == 1
    assert run.stderr.startswith(f'mmfish: {SENTENCE}')
    assert run.stderr.count('\n') == 1
