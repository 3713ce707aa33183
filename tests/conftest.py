"""What all tests share: the folder of real data, and one thread for torch."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Wall time is no property of the code: machines are shared.
settings.register_profile("citycover", deadline=None, max_examples=30, print_blob=True)
settings.load_profile("citycover")


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("CITYCOVER_DATA")
    if not folder:
        pytest.skip("CITYCOVER_DATA is not set: no real imagery here")
    return Path(folder)
