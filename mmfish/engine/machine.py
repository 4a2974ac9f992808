"""What a run runs on."""

import torch
from mmcv.ops import get_compiler_version, get_compiling_cuda_version
from mmengine.utils.dl_utils import collect_env

# Of `collect_env`: the versions, which callers have from `mmfish.stack`, and what takes too much
# room or changes from run to run.
LEFT_OUT = {
    *('sys.platform', 'Python', 'PyTorch', 'TorchVision', 'MMEngine'),
    *('PyTorch compiling details', 'numpy_random_seed'),
}


def describe_machine() -> dict[str, str]:
    """Compilers, devices and what the packages were built for, as MMEngine and MMCV report them."""
    found = {name: str(value) for name, value in collect_env().items() if name not in LEFT_OUT}
    return {
        **found,
        'PyTorch CUDA': torch.version.cuda or 'not available',
        'MMCV compiler': get_compiler_version(),
        'MMCV CUDA compiler': get_compiling_cuda_version(),
    }
