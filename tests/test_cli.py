"""The command ``mmfish``, and what the tools share."""

import argparse
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import DictAction

from demo import CONFIGS
from mmfish.cli import VERBS, main, make_parser
from mmfish.stack import MODULES
from mmfish.version import __version__

ROOT = Path(__file__).resolve().parents[1]
DEMO = str(CONFIGS / 'mask_rcnn_fishnet77_fpn_shapes.py')
NOTICES = ('Could not import OneDL', 'faster_coco_eval is not installed')
COMMAND = 'import sys; sys.argv[0] = "mmfish"; from mmfish_command import main; main()'


def call(*arguments, **options):
    """Run Python in a process of its own."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def output_of(*arguments):
    process = call(*arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout + process.stderr


@pytest.fixture
def mmfish(monkeypatch, capsys):
    """Run the command in this process; returns its exit status, output and errors."""

    def run(*arguments):
        monkeypatch.setattr('sys.argv', ['mmfish', *map(str, arguments)])
        monkeypatch.setenv('COLUMNS', '80')
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code
        if isinstance(status, str):  # Python prints it and exits with 1
            return 1, '', status
        captured = capsys.readouterr()
        return status or 0, captured.out, captured.err

    return run


@pytest.fixture
def site(tmp_path):
    """A folder of links to the packages, one of which a test takes away."""
    for module in MODULES:
        (tmp_path / module).symlink_to(Path(find_spec(module).origin).parent)
    for name in ('mmfish', 'mmfish_command.py'):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def command_in(site, *arguments, beside=()):
    """Run the command with the packages in ``site``, and those in other folders after them."""
    path = os.pathsep.join(map(str, [site, *beside]))
    return call('-S', '-c', COMMAND, *arguments, env={**os.environ, 'PYTHONPATH': path}, cwd=site)


def test_the_help_fits_one_screen(mmfish):
    status, out, _ = mmfish('--help')
    assert status == 0
    assert all(verb in out for verb in VERBS)
    assert len(out.splitlines()) <= 24
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize('verb', VERBS)
def test_the_help_of_each_verb_shows_an_example_that_can_be_read(verb, mmfish):
    status, out, _ = mmfish(verb, '--help')
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    examples = re.findall(rf'^  .*\bmmfish ({verb} .*?)(?: +#.*)?$', out, re.MULTILINE)
    assert examples
    for example in examples:
        make_parser().parse_args(example.split())


def test_help_and_wrong_usage_import_none_of_the_packages():
    for arguments, status in ((['train', '--help'], 0), (['train', '--nonsense'], 2)):
        imported = call('-X', 'importtime', '-c', COMMAND, *arguments)
        assert imported.returncode == status
        modules = {line.rpartition('|')[2].strip() for line in imported.stderr.splitlines()}
        assert 'argparse' in modules
        assert not {'mmfish', *MODULES, 'numpy'} & modules


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['fly'],
        ['train'],
        ['train', 'config.py', '--launcher', 'rocket'],
        ['train', 'config.py', '--cfg-options', 'no_value'],
        ['train', 'config.py', '--val-fraction', 'some'],
        ['convert-data', 'here', 'there', '--val-fraction', 'some'],
        ['test', 'config.py'],
        ['predict', 'run', '--out', 'there'],
        ['predict', 'run', 'picture.jpg'],
        ['export', 'run'],
        ['check', 'a.py', 'b.py'],
    ],
)
def test_wrong_usage_is_status_2(arguments, mmfish):
    status, out, err = mmfish(*arguments)
    assert (status, out) == (2, '')
    assert err.startswith('usage: mmfish')
    assert re.search(r'^mmfish.*: error: ', err, re.MULTILINE)


def test_cfg_options_are_those_of_mmengine(mmfish):
    theirs = argparse.ArgumentParser()
    theirs.add_argument('--cfg-options', nargs='+', action=DictAction)
    words = ['--cfg-options', 'a.b=[1,(2,3)]', 'c=text', 'd=None', 'e="x=y"']
    expected = theirs.parse_args(words).cfg_options
    assert make_parser().parse_args(['print-config', 'x.py', *words]).cfg_options == expected
    assert expected['a.b'] == [1, (2, 3)]


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (['train', 'nowhere.py'], 'nowhere.py'),
        (['test', 'nowhere.py', 'a.pth'], 'nowhere.py'),
        (['print-config', 'nowhere.py'], 'nowhere.py'),
        (['check', 'nowhere.py'], 'nowhere.py'),
        (['train', DEMO, '--data-root', 'nowhere'], 'nowhere'),
        (['predict', 'nowhere', 'a.jpg', '--out', 'there'], 'a.jpg'),
        (['export', 'nowhere', 'there.onnx'], 'nowhere'),
        (['convert-data', 'nowhere', 'there'], 'nowhere'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_an_error_of_the_user_is_status_1_and_one_sentence(
    arguments, named, mmfish, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    status, _, err = mmfish(*arguments)
    assert status == 1
    assert err.startswith('mmfish: ')
    assert named in err
    assert '\n' not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('module', ['mmcv', 'torch', 'mmengine'])
def test_without_a_package_a_verb_ends_with_the_sentence_of_the_import(module, site):
    (site / module).unlink()
    process = command_in(site, 'train', DEMO, '--cfg-options', 'a=1')
    assert process.returncode == 1
    assert process.stderr.startswith(f'mmfish: mmfish needs {module}, which {sys.executable} does ')
    assert process.stderr.count('\n') == 1


def test_check_prints_the_versions_although_mmfish_cannot_be_imported(site):
    mmcv = (site / 'mmcv').resolve()
    (site / 'mmcv').unlink()
    (site / 'mmcv').mkdir()
    for file in mmcv.iterdir():
        if not file.name.startswith('_ext'):
            (site / 'mmcv' / file.name).symlink_to(file)
    (site / 'mmdet').unlink()
    (site / 'mmdet').mkdir()
    process = command_in(site, 'check')
    assert process.returncode == 1
    lines = process.stdout.splitlines()
    assert any(line.startswith(f'python: {sys.version.split()[0]} (') for line in lines)
    assert f'mmfish: {__version__} ({site / "mmfish"})' in lines
    assert any(re.fullmatch(r'torch: \d+\.\d+\.\d+.* \(.*\)', line) for line in lines)
    assert 'mmdet: not installed' in lines
    assert process.stderr.startswith('mmfish: mmfish needs mmdet, which ')
    assert 'Traceback' not in process.stderr


@pytest.mark.slow
def test_check_explains_an_import_that_fails_for_a_reason_it_does_not_know(site):
    version = (site / 'torchvision' / 'version.py').read_text()
    (site / 'torchvision').unlink()
    (site / 'torchvision').mkdir()
    (site / 'torchvision' / 'version.py').write_text(version)
    (site / 'torchvision' / '__init__.py').write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")'
    )
    packages = Path(find_spec('mmcv').origin).parents[1]
    process = command_in(site, 'check', beside=[packages])
    assert process.returncode == 1
    assert re.search(r'^torchvision: \d.*\)$', process.stdout, re.MULTILINE)
    assert 'Traceback' in process.stderr
    assert process.stderr.splitlines()[-1].startswith(
        'mmfish: mmfish cannot be imported (RuntimeError: operator torchvision::nms does not exist)'
    )


def test_check_says_that_the_stack_and_a_model_work(mmfish):
    status, out, err = mmfish('check', DEMO)
    assert status == 0, err
    for module in ('mmfish', *MODULES, 'numpy', 'pycocotools'):
        assert re.search(rf'^{module}: \d+\.\d+\S*( of \S+)? \(/.*\)$', out, re.MULTILINE)
    assert 'compiled ops of mmcv on cpu: work\n' in out
    assert re.search(r'shapes\.py on \w+: [\d,]+ parameters; .*, the loss is [\d.]+\n', out)


def test_check_names_the_part_of_a_model_that_does_not_work(mmfish):
    status, _, err = mmfish('check', DEMO, '--cfg-options', 'model.rpn_head.loss_cls.type=Nope')
    assert status == 1
    assert re.match(r'mmfish: the model of .* does not work on \w+ \(KeyError: .*Nope', err)


@pytest.mark.slow
def test_ctrl_c_ends_a_training_without_a_traceback(shapes, tmp_path):
    training = subprocess.Popen(
        [
            *(sys.executable, '-u', '-m', 'mmfish', 'train', DEMO, '--data-root', str(shapes)),
            *('--work-dir', str(tmp_path), '--cfg-options', 'train_dataloader.batch_size=4'),
            *('default_hooks.logger.interval=1', 'train_dataloader.num_workers=1'),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        # A shell lets processes in the background ignore it, and they pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        output = []
        for line in training.stdout:
            output.append(line)
            if 'Iter(train)' in line:
                break
        os.killpg(training.pid, signal.SIGINT)  # as a terminal does: workers get it too
        output.append(training.communicate(timeout=120)[0])
    finally:
        training.kill()
    text = ''.join(output)
    assert training.returncode == 130, text[-3000:]
    assert text.rstrip().endswith('mmfish: interrupted')
    assert 'Traceback' not in text


@pytest.mark.slow
@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'get_flops.py'])
def test_a_tool_prints_no_notices_of_other_packages(tool):
    output = output_of(ROOT / 'tools' / tool, '--help')
    assert output.startswith('usage: ')
    assert not any(notice in output for notice in NOTICES)


@pytest.mark.slow
def test_importing_mmfish_silences_no_other_package():
    program = 'import mmdet.datasets, mmdet.evaluation, mmpretrain.datasets'
    assert output_of('-c', f'import mmfish, {program[7:]}') == output_of('-c', program)


@pytest.mark.slow
def test_other_output_and_warnings_are_kept(tmp_path):
    (tmp_path / 'talkative.py').write_text(
        'import warnings\n'
        "print('Could not import OneDL.')\n"
        "print('kept')\n"
        "warnings.warn('faster_coco_eval is not installed')\n"
        "warnings.warn('kept')\n"
    )
    output = output_of(
        '-c',
        f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n'
        'import mmfish.notices; mmfish.notices.import_without_notices(["talkative"])',
    )
    assert 'kept\n' in output
    assert 'UserWarning: kept' in output
    assert not any(notice in output for notice in NOTICES)
