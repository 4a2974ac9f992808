"""FishNet for MMDetection: backbone, configs, weights and tools.

Importing mmfish makes ``type='FishNet'`` known to every OpenMMLab package;
``type='mmfish.FishNet'`` works without any import.
"""

from importlib import import_module

from mmfish.stack import check_stack, load_ops

check_stack()
load_ops()

# Makes pytorchcv:// and official:// known to MMEngine.
import mmfish.checkpoints  # noqa: E402, F401
from mmfish.config.paths import config_path  # noqa: E402
from mmfish.config.plug_in import plug_in  # noqa: E402
from mmfish.models.fusion import fuse  # noqa: E402
from mmfish.registry import publish  # noqa: E402
from mmfish.version import __version__  # noqa: E402

publish()

__all__ = ['__version__', 'config_path', 'export', 'fuse', 'own_data', 'plug_in']
# These take MMDetection's data sets and models, which take seconds to import and print notices.
LAZY = dict(own_data='mmfish.config.own_data', export='mmfish.deploy')


def __getattr__(name: str) -> object:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
