"""What the doctor finds, on this machine and on broken ones."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from citycover.machine.cores import usable_cores
from citycover.run import doctor
from citycover.run.doctor import Finding, examine


def found(what: str, folder: Path, **given: bool) -> list[Finding]:
    return [finding for finding in examine(folder, **given).findings if finding.what == what]


def test_this_machine_can_map(tmp_path: Path) -> None:
    examined = examine(tmp_path)
    assert examined.fit, examined
    names = [finding.what for finding in examined.findings]
    assert {"citycover", "torch", "gdal", "disk", "disk speed", "network"} <= set(names)
    assert list(tmp_path.iterdir()) == []  # the trial leaves nothing


def test_a_look_without_trials_writes_nothing_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_written", None)
    monkeypatch.setattr(doctor, "_network", None)
    assert examine(tmp_path / "not" / "there", trials=False).fit


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert not examine(tmp_path, trials=False).fit
    assert found("disk", tmp_path, trials=False)[-1].verdict == "bad"


def test_a_full_disk_and_little_memory_are_slow_not_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(1 << 40, 1 << 40, 1 << 20))
    monkeypatch.setattr(doctor, "free_memory", lambda: 1 << 29)
    examined = examine(tmp_path, trials=False)
    assert examined.fit
    assert {f.what for f in examined.findings if f.verdict == "slow"} >= {"disk", "memory"}
    assert all(f.advice for f in examined.findings if f.verdict != "good")


def test_a_gdal_without_the_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasterio.env.Env.drivers", lambda _: {"GTiff": "", "VRT": "", "PNG": ""})
    (slow,) = found("gdal", tmp_path, trials=False)
    assert slow.verdict == "slow" and "JP2OpenJPEG" in slow.found
    monkeypatch.setattr("rasterio.env.Env.drivers", lambda _: {"VRT": "", "PNG": ""})
    (bad,) = found("gdal", tmp_path, trials=False)
    assert bad.verdict == "bad" and "GTiff" in bad.advice


def test_a_proj_that_finds_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost:
        def transform(self, *_: float) -> tuple[float, float]:
            return float("inf"), float("inf")

    monkeypatch.setattr("pyproj.Transformer.from_crs", lambda *_, **__: Lost())
    (bad,) = found("proj", tmp_path, trials=False)
    assert bad.verdict == "bad" and "PROJ_DATA" in bad.advice


def test_what_cannot_even_be_looked_at_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr("torch.get_num_threads", broken)
    examined = examine(tmp_path, trials=False)
    assert not examined.fit
    assert any("libcudart" in finding.found for finding in examined.findings)


@pytest.mark.parametrize(
    ("text", "cores"), [("200000 100000", 2.0), ("50000 100000", 0.5), ("max 100000", 64)]
)
def test_the_quota_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, text: str, cores: float) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert usable_cores() == cores


def test_extras_of_runtimes_are_there_where_all_of_them_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module of ONNX Runtime for processors has the name of the one that brings TensorRT."""
    versions = {"onnx": "1", "onnxscript": "2", "onnxruntime": "3", "tensorrt": "11"}
    monkeypatch.setattr("citycover.model.form._version", versions.get)
    monkeypatch.setattr(doctor, "find_spec", lambda _name: True)
    (extras,) = found("extras", tmp_path, trials=False)
    assert "vector" in extras.found and "tensorrt" not in extras.found and "openvino" not in extras.found
    versions |= {"onnxruntime-gpu": "3", "openvino": "2026.1"}
    (extras,) = found("extras", tmp_path, trials=False)
    assert extras.found.endswith("openvino, tensorrt")
