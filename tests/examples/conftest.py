"""What tests of the demo model share."""

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Keep torch to one thread: the models are so small that more only wait for each other."""
    torch = pytest.importorskip("torch")
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(kept)
