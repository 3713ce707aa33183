from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import citycover
from citycover.errors import ConfigError
from citycover.evidence.request import LabelRequest
from citycover.files.plain import to_json
from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions, Where
from citycover.machine.cores import most_processes, most_threads


@pytest.mark.parametrize(
    ("group", "options", "said"),
    [
        (Where, {"aoi": Path("a.geojson"), "bbox": (0.0, 0.0, 1.0, 1.0)}, "both --aoi and --bbox"),
        (EngineOptions, {"workers": 2, "scheduler": "tcp://x:1"}, "give one of them"),
        (EngineOptions, {"precision": "fp8"}, "--precision takes auto, fp32, tf32, bf16, fp16; got 'fp8'"),
        (
            EngineOptions,
            {"form": "onnx"},
            "--form takes auto, .*, aotinductor, tensorrt; got 'onnx'",
        ),
        (EngineOptions, {"batch": 0}, "--batch must be at least 1, got 0"),
        (EngineOptions, {"threads": -1}, "--threads must be at least 1"),
        (EngineOptions, {"work": "work"}, "--work takes a prefix of a bucket, .*; got 'work'"),
        (EngineOptions, {"work": "s3://maps"}, "--work takes a prefix of a bucket, .*; got 's3://maps'"),
        (EngineOptions, {"work": "gs://maps/work"}, "--work takes .*; got 'gs://maps/work'"),
        (EngineOptions, {"memory": float("inf")}, "--memory takes GiB, more than 0, got inf"),
        (EngineOptions, {"memory": float("nan")}, "--memory takes GiB, .* got nan"),
        (EngineOptions, {"memory": 0.0}, "--memory takes GiB, .* got 0"),
        *(
            (EngineOptions, {"scheduler": address}, "--scheduler takes the address .*tcp://HOST:8786")
            for address in ("foo", "http://x:8786", "tcp://x", "tcp://:8786", "::1:8786", "", "tcp://x:8786/")
        ),
        (ProductOptions, {"compress": "lzw"}, "--compress takes zstd, deflate; got 'lzw'"),
    ],
)
def test_a_group_of_options_checks_itself(group: type[Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        group(**options)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:8786", "node-1:8786", "tls://a.b.c:1", "ws://[::1]:8786", "ucx://10.0.0.1:9"]
)
def test_whatever_dask_takes_is_an_address(address: str) -> None:
    assert EngineOptions(scheduler=address).scheduler == address


def test_far_more_than_a_machine_has_is_refused_where_it_is_used() -> None:
    EngineOptions(threads=100_000, workers=100_000)  # as a file of another machine may say
    for name, most in (("threads", most_threads()), ("workers", most_processes())):
        EngineOptions(**{name: most}).check_here()
        with pytest.raises(ConfigError, match=f"got --{name} {most + 1}; this machine takes 1 to {most};"):
            EngineOptions(**{name: most + 1}).check_here()


@pytest.mark.parametrize("work", ["s3://maps/city", "s3://maps/city/", "s3://maps/city/work"])
def test_blocks_are_not_kept_within_the_product(work: str) -> None:
    out: Any = "s3://maps/city"
    with pytest.raises(ConfigError, match=f"--work {work} lies in --out s3://maps/city, .*beside it"):
        MapRequest(Imagery(("a.tif",)), out, engine=EngineOptions(work=work))


@pytest.mark.parametrize("work", ["s3://maps/city-work", "s3://maps/work", "s3://other/city/work"])
def test_blocks_may_be_kept_beside_the_product(work: str) -> None:
    out: Any = "s3://maps/city"
    assert MapRequest(Imagery(("a.tif",)), out, engine=EngineOptions(work=work)).engine.work == work


def test_a_request_is_written_down_as_plain_values() -> None:
    where = Where(bbox=(1.0, 2.0, 3.0, 4.0))
    request = MapRequest(Imagery(("a.tif", "b.tif")), Path("out"), where=where)
    facts = request.facts()
    assert json.loads(to_json(facts)) == facts, "no path, no tuple"
    assert facts["imagery"]["files"] == ["a.tif", "b.tif"] and facts["out"] == "out"
    assert facts["where"]["bbox"] == [1, 2, 3, 4] and facts["engine"]["precision"] == "auto"


def test_the_public_door_has_every_name_that_it_says() -> None:
    assert {"MapRequest", "Imagery", "map_scene", "__version__"} <= set(citycover.__all__)
    for name in set(citycover.__all__) - {"predict_array", "open_product"}:  # those load xarray
        assert getattr(citycover, name) is not None


def test_a_file_or_a_folder_may_be_given_as_text_or_as_a_path() -> None:
    text: Any = "city.tif"
    folder: Any = "product"
    request = MapRequest(Imagery(text), folder, where=Where(aoi=text))
    assert request == MapRequest(Imagery(("city.tif",)), Path("product"), where=Where(Path("city.tif")))
    assert LabelRequest(text).files == ("city.tif",)


@pytest.mark.parametrize("name", ["s3://maps/a.tif", "https://example.org/a.tif", "/vsicurl/https://a.org/a"])
def test_labels_lie_on_this_machine(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--labels .* is an address"):
        LabelRequest(("city.tif", name))
    assert LabelRequest("file:///data/a%20b.tif").files == ("/data/a b.tif",)
