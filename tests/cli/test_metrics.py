"""Metrics: what Prometheus reads of a run, while it goes on and after it has ended, well or not."""

from __future__ import annotations

import errno
import socket
import sys
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import free_port

from citycover.errors import ConfigError, MachineError, SceneError
from citycover.job.watch import Watch
from citycover.machine.stages import Stages
from citycover_cli.metrics import metering


def values(text: str) -> dict[str, float]:
    """Samples by name and label."""
    return {
        sample.name + "".join(v for k, v in sample.labels.items() if k != "name"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name != "citycover_run_info"
    }


def test_a_map_in_numbers(citycover, scene: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.prom"
    assert citycover("map", scene, "-o", tmp_path / "out", "-q", "--metrics", path).code == 0
    found = values(path.read_text())
    assert found["citycover_pixels_total"] == 90 * 120 and found["citycover_blocks_total"] == 1
    assert found["citycover_windows_total"] >= 1 and found["citycover_scenesmapped"] == 1
    assert found["citycover_progress_ratio"] == 1 and found["citycover_last_run_exit_code"] == 0
    assert found["citycover_stage_seconds_totalforward"] > 0 and found["citycover_memory_bytes"] > 1 << 20
    assert 'verb="map"' in path.read_text()
    numbers = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert all(f'name="{tmp_path / "out"}"' in line for line in numbers)
    assert citycover("map", "nothing.tif", "-o", tmp_path / "other", "--metrics", path).code == 2
    assert values(path.read_text())["citycover_last_run_exit_code"] == 2


def test_no_two_regions_or_parts_on_one_host_have_the_same_numbers(citycover, tmp_path: Path) -> None:
    def named(place: str, *words: str) -> set[str]:
        path = tmp_path / "run.prom"
        citycover("run", tmp_path / place / "region.toml", "-q", "--metrics", path, *words)
        families = text_string_to_metric_families(path.read_text())
        return {sample.labels["name"] for family in families for sample in family.samples}

    for place in ("north", "south"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "region.toml").write_text(
            f'name = "{place}"\nout = "products"\n[[scenes]]\nfiles = ["nothing.tif"]\n'
        )
    assert named("north") == {"north"} and named("south") == {"south"}
    assert named("north", "--shard", "2/2") == {"north 2-of-2"}
    (tmp_path / "north/region.toml").write_text("wrong")
    assert named("north") == {str(tmp_path / "north/region.toml")}


def test_it_is_served_as_long_as_the_work_goes_on() -> None:
    address = f"127.0.0.1:{free_port()}"
    stages = Stages()
    with metering(address, "run", "north") as meter:
        meter.work(4)
        meter.scene_ended("mapped", holes=2)
        meter.scene_ended("failed", failed=True)
        watch = meter.beside(Watch())
        watch.timing(stages)
        stages.add("read", 1.5)
        stages.follow("encode", lambda: 3)
        meter.retried("a")
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            found = values(answer.read().decode())
    assert found["citycover_progress_ratio"] == 0.5 and found["citycover_eta_seconds"] >= 0
    assert found["citycover_holes_total"] == 2 and found["citycover_scene_failures_total"] == 1
    assert found["citycover_stage_seconds_totalread"] == 1.5
    assert found["citycover_queue_depthencode"] == 3 and found["citycover_retries_total"] == 1
    assert "citycover_last_run_exit_code" not in found
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}/metrics", timeout=10)


def torch_of(utilization: Any) -> Any:
    """What stands in for torch on a machine with a GPU."""
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        mem_get_info=lambda _number: (60, 100),
        utilization=utilization,
    )
    return types.SimpleNamespace(cuda=cuda)


def missing(_number: int) -> int:
    raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed or it can't be imported.")


def test_the_gpu_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.prom"
    monkeypatch.setitem(sys.modules, "torch", torch_of(lambda _number: 25))
    with metering(str(path), "run", "north"):
        pass
    found = values(path.read_text())
    assert found["citycover_gpu_memory_bytescuda:0"] == 40 and found["citycover_gpu_use_ratiocuda:0"] == 0.25
    monkeypatch.setitem(sys.modules, "torch", torch_of(missing))
    with metering(str(path), "run", "north"):
        pass
    found = values(path.read_text())
    assert found["citycover_gpu_memory_bytescuda:0"] == 40 and "citycover_gpu_use_ratiocuda:0" not in found


def test_a_failure_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.prom"
    with pytest.raises(SceneError), metering(str(path), "map", "out"):
        raise SceneError("no image")
    assert values(path.read_text())["citycover_last_run_exit_code"] == 2


@pytest.mark.parametrize("target", ["metrics.txt", "", ":port", "localhost"])
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.prom"), metering(target, "map", "out"):
        raise AssertionError


def test_what_cannot_be_served_or_written_is_said_before_the_work(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MachineError, match="choose another port"), metering(address, "map", "out"):
            raise AssertionError
    with pytest.raises(MachineError, match="choose another port"), metering(":99999", "map", "out"):
        raise AssertionError
    (tmp_path / "file").touch()
    with pytest.raises(MachineError), metering(str(tmp_path / "file" / "run.prom"), "map", "out"):
        raise AssertionError


def test_a_file_that_cannot_be_written_any_more_is_not_worth_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gone" / "run.prom"

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on the device")

    with metering(str(path), "map", "out"):
        monkeypatch.setattr("citycover.files.output.write_atomic", refuse)
    assert "--metrics" in caplog.text and "last_run" not in path.read_text()
