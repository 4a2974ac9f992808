"""The command ``mmfish``: for each verb a function that adds its arguments and one that runs it.

To import this module takes nothing but Python, so that help and wrong usage are answered at once
and ``mmfish check`` works where mmfish itself cannot be imported. For that reason the functions
that run a verb import what does the work.
"""

import argparse
import contextlib
import importlib
import platform
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

CONFIG_HELP = 'path of a config; mmdet::PATH or mmfish::PATH for one that the package ships'
MODEL_HELP = 'the folder of a run, or a checkpoint'
# The errors of which users read the message alone. They are known by name, because the import of
# the module that they are in may be what has failed.
SENTENCES = {'mmfish.errors.UsageError', 'mmfish.stack.StackError'}
# What a shell reports of a command that Ctrl-C has ended: 128 and the number of SIGINT.
INTERRUPTED_STATUS = 130


def main(verb: str | None = None) -> None:
    """Run the command with the arguments of this process.

    Args:
        verb: of the command, for a tool that does nothing else. Defaults to the first argument.
    """
    if verb:
        parser = argparse.ArgumentParser()
        add_verb(parser, verb)
    else:
        parser = make_parser()

    def run() -> None:
        args = parser.parse_args()
        # `check` first prints what may be the reason if this fails, and an exported file needs none
        # of these packages.
        if args.run is not check and not (args.run is predict and _is_exported(args.model)):
            importlib.import_module('mmfish.notices')
        args.run(args)

    run_tool(run, parser.prog)


def run_tool(main: Callable[[], object], name: str | None = None) -> None:
    """Run a command-line tool.

    An error that the user can correct is printed as one sentence, and ends the process with status
    1. Ctrl-C ends it with status 130. Neither prints a traceback.

    Args:
        main: of the tool.
        name: goes before the sentence. Defaults to the name of the script.
    """
    name = name or Path(sys.argv[0]).name
    try:
        main()
    except KeyboardInterrupt:
        print(f'{name}: interrupted', file=sys.stderr)
        sys.exit(INTERRUPTED_STATUS)
    except Exception as error:
        if not is_sentence(error):
            raise
        sys.exit(f'{name}: {_sentence(error)}')


def is_sentence(error: Exception) -> bool:
    """Whether the message of an error says all that a user has to know."""
    kinds = {f'{kind.__module__}.{kind.__name__}' for kind in type(error).__mro__}
    return not kinds.isdisjoint(SENTENCES)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command, also for tools that write shell completions."""
    parser = argparse.ArgumentParser(
        prog='mmfish',
        description='FishNet for MMDetection. `mmfish VERB --help` has the arguments and examples.',
    )
    verbs = parser.add_subparsers(metavar='VERB', required=True)
    for name, verb in VERBS.items():
        add_verb(verbs.add_parser(name, help=_summary(verb)), name)
    return parser


def add_verb(parser: argparse.ArgumentParser, name: str) -> None:
    """Add what a verb takes.

    Args:
        parser: of that verb alone; changed in place.
        name: of the verb.
    """
    verb = VERBS[name]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f'{_summary(verb)}.'
    parser.epilog = verb.examples
    parser.set_defaults(run=verb.run)
    verb.add_arguments(parser)


class CfgOptions(argparse.Action):
    """MMEngine's ``DictAction``, which is imported when the option is used."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: list[str],
        option_string: str | None = None,
    ) -> None:
        """Add settings to the dict of this option.

        Raises:
            argparse.ArgumentError: a value is not of the form KEY=VALUE.
        """
        for value in values:
            if '=' not in value:
                raise argparse.ArgumentError(self, f'expected KEY=VALUE, got {value!r}')
        importlib.import_module('mmfish.notices')  # its sentence if MMEngine is missing
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that change a config: data set, backbone and single settings.

    Args:
        parser: changed in place.
    """
    parser.add_argument(
        '--data-root',
        metavar='FOLDER',
        help='the folder of your data set: its classes are read from its annotations',
    )
    parser.add_argument(
        '--val-fraction',
        type=float,
        metavar='SHARE',
        help='with --data-root: how much of one annotation file is kept for validation, e.g. 0.2',
    )
    parser.add_argument(
        '--backbone',
        metavar='ARCH',
        help="put FishNet in the place of the config's ResNet, e.g. fishnet150 (fixed norm layers: "
        '--cfg-options model.backbone.norm_cfg.type=mmfish.FrozenBN)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=2 key="[a,b]"',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share: MMDetection's own and ours.

    Args:
        parser: changed in place.
    """
    parser.add_argument('--work-dir', help='for logs and checkpoints (work_dirs/<config name>)')
    add_config_arguments(parser)
    parser.add_argument(
        '--channels-last',
        action='store_true',
        help='keep weights and features in NHWC memory format: faster convolutions',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it, torchrun does not.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mmfish train``.

    Args:
        parser: changed in place.
    """
    parser.add_argument('config', help=CONFIG_HELP)
    add_run_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate to the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, by default the latest one of the work directory',
    )


def train(args: argparse.Namespace) -> None:
    """Train a model as a config says."""
    from mmfish.engine.run import run_train

    run_train(
        _load_config(args),
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        channels_last=args.channels_last,
        resume=args.resume,
    )


def add_test_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mmfish test``.

    Args:
        parser: changed in place.
    """
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('checkpoint', help='path of the checkpoint')
    add_run_arguments(parser)
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write pictures of the predictions to a folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds for --show (2)')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--fuse-conv-bn', action='store_true', help='fold normalisation into the convolutions'
    )


def test(args: argparse.Namespace) -> None:
    """Evaluate a checkpoint as a config says."""
    from mmfish.engine.run import run_test

    run_test(
        _load_config(args, training=False),
        args.checkpoint,
        out=args.out,
        show=args.show,
        show_dir=args.show_dir,
        wait_time=args.wait_time,
        tta=args.tta,
        fuse_conv_bn=args.fuse_conv_bn,
        channels_last=args.channels_last,
    )


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mmfish predict``.

    Args:
        parser: changed in place.
    """
    help_text = f'{MODEL_HELP}, or an exported .onnx file'
    parser.add_argument('model', metavar='MODEL', help=help_text)
    parser.add_argument('inputs', metavar='INPUT', nargs='+', help='images, folders, globs, videos')
    parser.add_argument('--out', required=True, metavar='DIR', help='for pictures and predictions')
    parser.add_argument('--config', help='of a checkpoint that does not hold its own')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='draw and keep from this score on (0.3)'
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1 (the first GPU, if there is one)')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time (1)')


def predict(args: argparse.Namespace) -> None:
    """Detect objects in images and videos, draw them and list them."""
    if _is_exported(args.model):
        from mmfish.deploy.predict import predict_exported as run_predict
    else:
        from mmfish.engine.predict import run_predict

    run_predict(
        args.model,
        args.inputs,
        args.out,
        config=args.config,
        score_thr=args.score_thr,
        device=args.device,
        batch_size=args.batch_size,
    )


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mmfish export``.

    Args:
        parser: changed in place.
    """
    parser.add_argument('model', metavar='MODEL', help=MODEL_HELP)
    parser.add_argument('file', metavar='FILE.onnx', help='the file to write')
    parser.add_argument(
        '--half', action='store_true', help='keep the weights as float16, for half the size'
    )
    parser.add_argument(
        '--int8',
        nargs='+',
        metavar='IMAGES',
        help='compute in 8-bit integers, in ranges measured on these images; needs nncf',
    )


def export(args: argparse.Namespace) -> None:
    """Write a model as an ONNX file, for machines without PyTorch."""
    from mmfish.deploy import export

    export(args.model, args.file, half=args.half, int8=args.int8)


def add_convert_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mmfish convert-data``.

    Args:
        parser: changed in place.
    """
    parser.add_argument('source', metavar='SRC', help='the folder of the data set')
    parser.add_argument('destination', metavar='DST', help='the folder to write')
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=0.2,
        metavar='SHARE',
        help='of the images for validation, where SRC is not divided already (%(default)s)',
    )


def convert_data(args: argparse.Namespace) -> None:
    """Convert Pascal VOC, YOLO, or images with masks to COCO's layout."""
    from mmfish.datasets.convert import convert_data

    convert_data(args.source, args.destination, val_fraction=args.val_fraction)


def add_print_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mmfish print-config``.

    Args:
        parser: changed in place.
    """
    parser.add_argument('config', help=CONFIG_HELP)
    add_config_arguments(parser)


def print_config(args: argparse.Namespace) -> None:
    """Print a config as train would run it, and what the options changed."""
    from mmfish.config.paths import read_config
    from mmfish.config.plug_in import config_diff

    before, after = read_config(args.config), _load_config(args)
    texts = before.pretty_text, after.pretty_text  # to format them takes seconds
    print(texts[1])
    print(config_diff(*texts, args.config))


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mmfish check``.

    Args:
        parser: changed in place.
    """
    parser.add_argument(
        'config', nargs='?', help='also try its model, with random weights and a made-up image'
    )
    add_config_arguments(parser)


def check(args: argparse.Namespace) -> None:
    """Print versions and devices, and say what is wrong with the installation."""
    _print_versions()
    with _explained('mmfish cannot be imported'):
        importlib.import_module('mmfish.notices')
        import torch
        from mmengine.logging import MMLogger

        from mmfish.config.validation import validate_config
        from mmfish.engine.machine import describe_machine
        from mmfish.engine.trial import try_model, try_ops
    for name, value in describe_machine().items():
        print(f'{name}: {value}')
    devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    for device in devices:
        try_ops(device)
        print(f'compiled ops of mmcv on {device}: work')
    if not args.config:
        return
    # MMEngine logs of every parameter how it was initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    cfg = _load_config(args)
    validate_config(cfg)
    with _explained(f'the model of {args.config} does not work on {devices[-1]}'):
        trial = try_model(cfg, device=devices[-1])
    print(
        f'{args.config} on {devices[-1]}: {trial.parameters:,} parameters; a prediction and a '
        f'training step with random weights work, the loss is {trial.loss:.5g}'
    )


class Verb(NamedTuple):
    """A verb of the command.

    Attributes:
        add_arguments: adds what it takes to a parser.
        run: does it; the first line of its docstring is its help.
        examples: the end of its help.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    examples: str


VERBS = {
    'train': Verb(
        add_train_arguments,
        train,
        """\
examples:
  mmfish train mmdet::atss/atss_r50_fpn_1x_coco.py --backbone fishnet150
  mmfish train CONFIG --data-root FOLDER       # your own images and classes
on 8 GPUs:
  torchrun --nproc-per-node 8 -m mmfish train CONFIG --launcher pytorch
""",
    ),
    'test': Verb(
        add_test_arguments,
        test,
        """\
example:
  mmfish test CONFIG work_dirs/RUN/epoch_12.pth
on 8 GPUs:
  torchrun --nproc-per-node 8 -m mmfish test CONFIG FILE.pth --launcher pytorch
""",
    ),
    'predict': Verb(
        add_predict_arguments,
        predict,
        """\
examples:
  mmfish predict work_dirs/RUN picture.jpg --out predictions
  mmfish predict epoch_12.pth pictures/ video.mp4 --out predictions
  mmfish predict detector.onnx pictures/ --out predictions
""",
    ),
    'export': Verb(
        add_export_arguments,
        export,
        """\
example:
  mmfish export work_dirs/RUN detector.onnx
""",
    ),
    'convert-data': Verb(
        add_convert_data_arguments,
        convert_data,
        """\
examples:
  mmfish convert-data labelled_with_yolo data/mine --val-fraction 0.2
  mmfish train CONFIG --data-root data/mine
""",
    ),
    'print-config': Verb(
        add_print_config_arguments,
        print_config,
        """\
example:
  mmfish print-config mmdet::atss/atss_r50_fpn_1x_coco.py --backbone fishnet150
""",
    ),
    'check': Verb(
        add_check_arguments,
        check,
        """\
examples:
  mmfish check
  mmfish check mmdet::atss/atss_r50_fpn_1x_coco.py --backbone fishnet150
""",
    ),
}


def _summary(verb: Verb) -> str:
    return verb.run.__doc__.partition('\n')[0].removesuffix('.')


def _print_versions() -> None:
    """Print the versions of all packages without importing any: one of them may end the process."""
    # By its path, because `import mmfish.stack` would import them.
    stack = runpy.run_path(str(Path(__file__).with_name('stack.py')))
    print(f'system: {platform.platform()}')
    print(f'python: {platform.python_version()} ({sys.executable})')
    # OneDL's modules ask for their version there, and have none in their files.
    distributions = metadata.packages_distributions()
    for module in ('mmfish', *stack['MODULES'], 'numpy', 'pycocotools'):
        folder = stack['folder'](module)
        if folder is None:
            print(f'{module}: not installed')
            continue
        version = stack['version'](module)
        if not version:
            names = sorted(set(distributions.get(module, [module])))
            with contextlib.suppress(metadata.PackageNotFoundError):
                version = ', '.join(f'{metadata.version(name)} of {name}' for name in names)
        print(f'{module}: {version or "unknown version"} ({folder})')
    sys.stdout.flush()


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Print the traceback of an unforeseen error, and end with one sentence; an issue needs both.

    Args:
        what: the beginning of the sentence.
    """
    try:
        yield
    except Exception as error:
        if is_sentence(error):
            raise
        traceback.print_exc()
        reason = str(error).strip().partition('\n')[0]
        sys.exit(f'mmfish: {what} ({type(error).__name__}: {reason}); see the traceback above')


def _is_exported(model: str) -> bool:
    return model.endswith('.onnx')


def _load_config(args: argparse.Namespace, *, training: bool = True) -> Any:
    # print-config and check have no runs, so they lack the arguments for one.
    from mmfish.engine.run import load_config

    return load_config(
        args.config,
        backbone=args.backbone,
        work_dir=getattr(args, 'work_dir', None),
        data_root=args.data_root,
        val_fraction=args.val_fraction,
        training=training,
        cfg_options=args.cfg_options,
        launcher=getattr(args, 'launcher', 'none'),
    )


def _sentence(error: Exception) -> str:
    # DataLoader turns an error in a worker process into one whose message is the traceback; the
    # last line of that is the name of the class and our sentence.
    last_line = str(error).strip().rpartition('\n')[-1]
    return re.sub(rf'^[\w.]*{type(error).__name__}: ', '', last_line)
