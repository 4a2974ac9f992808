import pytest
import torch


@pytest.fixture(scope='package', autouse=True)
def _one_thread():
    """Several cost more than they bring on networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
