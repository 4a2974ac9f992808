"""Predictions of a trained model for images, folders and videos of one's own."""

import ast
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from mmfish.checkpoints.loading import read_content
from mmfish.config.paths import read_config
from mmfish.engine.fault_tolerance.saving import POINTER
from mmfish.errors import CheckpointError, ConfigError


def find_model(
    model: str | os.PathLike, config: str | os.PathLike | None = None
) -> tuple[Config, str]:
    """Find the config and the checkpoint of a trained model.

    Args:
        model: the work directory of a run, or the path or URL of a checkpoint. Of a work directory
            the newest ``best_*.pth`` is taken, or else the checkpoint that was written last.
        config: path of the config, or ``package::path``. Defaults to the config in the checkpoint,
            where MMEngine's runner keeps it. That is read as plain data: no code in it is executed,
            but the modules that its ``custom_imports`` names are imported.

    Returns:
        The config, and the path or URL of the checkpoint.

    Raises:
        CheckpointError: there is no such file or folder, no checkpoint in the folder, or no config
            in the checkpoint; or the file is no checkpoint.
        ConfigError: ``config`` is not there or is no config, or the one in the checkpoint cannot
            be used.
    """
    checkpoint = _find_checkpoint(os.fspath(model))
    cfg = read_config(config) if config else _config_in(read_content(checkpoint), checkpoint)
    if 'model' not in cfg:
        raise ConfigError(f'{config or checkpoint} has a config without a model: give another one')
    return cfg, checkpoint


def _find_checkpoint(model: str) -> str:
    path = Path(model).expanduser()
    if '://' in model or path.is_file():
        if path.suffix in ('.py', '.json', '.yaml', '.yml'):
            raise CheckpointError(
                f'{model} is a config: give the checkpoint or the folder of the run as MODEL, and '
                f'the config with --config {model}'
            )
        return model
    if not path.is_dir():
        raise CheckpointError(
            f'there is no {model}: expected the folder of a run, or the file of a checkpoint'
        )
    folders = [path]
    pointer = path / POINTER
    # MMEngine writes the path of the newest checkpoint there; runs may have moved since then.
    newest = Path(pointer.read_text(errors='replace').strip('\0 \n')) if pointer.is_file() else None
    if newest and newest.parent.is_dir():
        folders.append(newest.parent)
    files = [file for folder in folders for file in folder.glob('*.pth')]
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    best = [file for file in files if file.name.startswith('best_')]
    last = [file for file in files if newest and file.name == newest.name]
    candidates = [*best, *last, *files]
    if not candidates:
        raise CheckpointError(
            f'{model} has no checkpoint in it: expected the folder of a run that has saved one '
            '(best_*.pth, epoch_*.pth, iter_*.pth), or the file of a checkpoint'
        )
    return str(candidates[0])


def _config_in(content: Any, source: str) -> Config:
    """The config that MMEngine's runner has written into a checkpoint.

    Args:
        content: of the checkpoint.
        source: its name, for messages.

    Raises:
        CheckpointError: there is none.
        ConfigError: it is more than names and plain values.
    """
    text = None
    for keys in (('message_hub', 'runtime_info', 'cfg'), ('meta', 'cfg')):
        found = content
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        text = text or found
    if not isinstance(text, str):
        raise CheckpointError(
            f'{source} has no config in it: give the one it was trained with, with --config CONFIG'
        )
    try:
        cfg = Config(_plain_settings(text))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f'the config in {source} is not plain data ({error}): give the one it was trained '
            'with, with --config CONFIG'
        ) from error
    if cfg.get('custom_imports'):
        try:
            import_modules_from_strings(**cfg.custom_imports)
        except (ImportError, TypeError) as error:
            raise ConfigError(
                f'the config in {source} needs a module that cannot be imported ({error}): install '
                'it, or add its folder to PYTHONPATH'
            ) from error
    return cfg


def _plain_settings(text: str) -> dict[str, Any]:
    """The settings in the text of a config, without executing it.

    Args:
        text: what MMEngine's ``Config.pretty_text`` gives: assignments of literals and of
            ``dict(...)``.

    Raises:
        SyntaxError: the text is not Python.
        ValueError: it is more than such assignments.
    """
    settings = {}
    for statement in ast.parse(text).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            raise ValueError(f'line {statement.lineno} does something else than set a value')
        value = _DictCallsAsDisplays().visit(statement.value)
        settings[statement.targets[0].id] = ast.literal_eval(value)
    return settings


class _DictCallsAsDisplays(ast.NodeTransformer):
    """Turns ``dict(a=1)`` and ``dict({'a': 1})`` into ``{'a': 1}``, as `ast.literal_eval` wants."""

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802
        """Turn one call; others stay, and `ast.literal_eval` refuses them."""
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if ast.unparse(node.func) != 'dict' or None in names:
            return node
        if node.args:
            return node.args[0] if len(node.args) == 1 and not names else node
        return ast.Dict([ast.Constant(name) for name in names], [k.value for k in node.keywords])
