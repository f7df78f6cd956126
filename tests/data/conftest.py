import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """These tensors are small: on a busy machine torch's threads cost several times what they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
