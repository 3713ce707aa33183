"""Spans of OpenTelemetry: what a run did, as its own SDK sees it. `make test-otel` installs it."""

from __future__ import annotations

import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from bucket import serving
from conftest import write_scene

from citycover.errors import ConfigError
from citycover.job.watch import Watch
from citycover_cli.spans import Spans, tracing


def test_nothing_of_it_is_imported_unless_it_is_asked_for(scene: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from citycover_cli.app import main\n"
        "try: main()\n"
        "finally: print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"
    )
    command = [sys.executable, "-c", code, "map", str(scene), "-o", str(tmp_path / "out"), "-q"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"citycover\[otel\]"), tracing("map", "out", asked=True):
        pass


@pytest.fixture
def told() -> tuple[Spans, Any]:
    """Spans, and what exports them into memory."""
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(provider.get_tracer("test")), exporter


def test_a_run_has_scenes_these_have_blocks_and_stages(told: tuple[Spans, Any], tmp_path: Path) -> None:
    from citycover.job.request import EngineOptions, Imagery, MapRequest
    from citycover.run.map import map_scene

    spans, exporter = told
    scene = write_scene(tmp_path / "scene.tif", (600, 700))
    engine = EngineOptions(precision="fp32", threads=1, window=256, block=(512, 512))
    with spans.run("run", "north"):
        watch = spans.scene("a", Watch())
        map_scene(MapRequest(Imagery((str(scene),)), tmp_path / "out", "spectral-rgbn", engine=engine), watch)
        spans.scene_ended("mapped")
        spans.scene("b", Watch())
        spans.scene_ended("failed", "no such file")
    found = exporter.get_finished_spans()
    run, *none = [span for span in found if span.name == "citycover run"]
    scenes = {span.attributes["citycover.scene"]: span for span in found if span.name == "scene"}
    blocks = [span for span in found if span.name == "block"]
    assert not none and set(scenes) == {"a", "b"}
    assert all(scene.parent.span_id == run.context.span_id for scene in scenes.values())
    first, second = scenes["a"], scenes["b"]
    assert (first.attributes["citycover.what"], first.status.is_ok) == ("mapped", True)
    assert (second.status.description, second.status.is_ok) == ("no such file", False)
    assert len(blocks) == 4 and sum(span.attributes["citycover.pixels"] for span in blocks) == 600 * 700
    stages = {span.name: span for span in found if span.name not in ("citycover run", "scene", "block")}
    assert {"read", "forward", "blend", "encode"} <= set(stages)
    assert all(span.parent.span_id == first.context.span_id for span in (*blocks, *stages.values()))
    assert all(first.start_time <= span.start_time <= span.end_time <= first.end_time for span in blocks)
    forward = stages["forward"]
    lasted = (forward.end_time - forward.start_time) / 1e9
    assert lasted == pytest.approx(forward.attributes["citycover.seconds"], abs=1e-6)


def test_a_scene_that_was_stopped_in_ends_with_the_run(told: tuple[Spans, Any]) -> None:
    spans, exporter = told

    def work() -> None:
        with spans.run("run", "north"):
            spans.scene("a", Watch())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    scene, run = exporter.get_finished_spans()
    assert scene.attributes["citycover.what"] == "stopped" and scene.end_time <= run.end_time


def test_the_command_line_sends_them_where_the_environment_says(
    citycover, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    sent: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Collector) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        assert citycover("map", scene, "-o", tmp_path / "out", "-q", "--otel").code == 0
    spans = [
        span for batch in sent for part in batch.resource_spans for s in part.scope_spans for span in s.spans
    ]
    assert {"citycover map", "scene", "block", "forward"} <= {span.name for span in spans}
    assert len({span.trace_id for span in spans}) == 1
