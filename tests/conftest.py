import resource
from contextlib import contextmanager

import pytest
import torch

torch.set_num_threads(1)  # more only spin on small tensors, and stall where other programs want the cores


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def small_disk():
    """A context in which no file grows beyond so many bytes, as on a full disk; what it gives changes their number.

    It ends inside the test: pytest's own report may go to a file too.
    """

    @contextmanager
    def limited(size=resource.RLIM_INFINITY):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

        limit(size)
        try:
            yield limit
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited
