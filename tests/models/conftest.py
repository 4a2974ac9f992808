import pytest
import torch


@pytest.fixture(scope='package', autouse=True)
def _one_thread():
    """On networks this small several threads cost more time than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
