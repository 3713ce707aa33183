"""What all tests share: the folder of real data, and one thread for torch."""

import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from bucket import BUCKET, point_at, serving_bucket
from hypothesis import settings
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from citycover.files.remote import RemotePath
from citycover.files.store import ObjectStore, PosixStore, Store

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What one test run keeps is nothing to the next, nor to the user's own runs."""
    os.environ["CITYCOVER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


SCHEMAS = Path(__file__).parent / "schemas"

# Wall time is no property of the code: machines are shared.
settings.register_profile(
    "citycover", deadline=None, max_examples=30, print_blob=True, derandomize="CI" in os.environ
)
settings.load_profile("citycover")


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """What a power cut would leave is tested by what is asked of the disk, not by waiting for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("CITYCOVER_DATA")
    if not folder:
        pytest.skip("CITYCOVER_DATA is not set: no real imagery here")
    return Path(folder)


@pytest.fixture
def validator(monkeypatch: pytest.MonkeyPatch) -> JsonSchemaSTACValidator:
    """pystac's validator with the schemas at hand, and no way to fetch others."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the validator asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    validator = JsonSchemaSTACValidator()
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        validator.schema_cache[schema["$id"].removesuffix("#")] = schema
    return validator


STORES = ["folder", "bucket", *(["server"] if "CITYCOVER_S3" in os.environ else [])]


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store of each kind: on the disk, in the project's bucket, on another server of S3."""
    if request.param == "folder":
        yield PosixStore(tmp_path)
    elif request.param == "bucket":
        with serving_bucket() as bucket:
            point_at(bucket.url, monkeypatch)
            yield ObjectStore(RemotePath(BUCKET, "work/city"))
    else:
        url, name = os.environ["CITYCOVER_S3"], f"work-{uuid4().hex}"
        with urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT")):
            point_at(url, monkeypatch)
        yield ObjectStore(RemotePath(name, "work/city"))
