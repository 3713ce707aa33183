"""What a command does, as spans of OpenTelemetry: run > scene > block, and the stages of a scene.

Where they go is said as for every program: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and the others; no
package of OpenTelemetry is imported unless `--otel` is given.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from citycover.errors import ConfigError
from citycover.version import __version__

if TYPE_CHECKING:
    from citycover.job.watch import Watch
    from citycover.machine.stages import Stages
    from citycover.plan.plan import Block


class Spans:
    """Spans of one command.

    Args:
        tracer: of OpenTelemetry; None: there are none.
    """

    def __init__(self, tracer: Any = None) -> None:
        self._tracer = tracer
        self._scene: Any = None
        self._begin = 0
        self._stages: list[Stages] = []

    @contextmanager
    def run(self, verb: str, name: str) -> Iterator[None]:
        """The span of all that the body does."""
        if self._tracer is None:
            yield
            return
        facts = {"citycover.name": name}
        with self._tracer.start_as_current_span(f"citycover {verb}", attributes=facts):
            try:
                yield
            finally:  # a scene that was stopped in
                self.scene_ended("stopped")

    def scene(self, name: str, watch: Watch) -> Watch:
        """Begin the span of a scene; gives a watch of its map that makes the spans of blocks."""
        if self._tracer is None:
            return watch
        from opentelemetry.trace import set_span_in_context

        self.scene_ended("tried")  # and is tried again
        self._begin, self._stages = time.time_ns(), []
        self._scene = self._tracer.start_span(
            "scene", start_time=self._begin, attributes={"citycover.scene": name}
        )
        within, last = set_span_in_context(self._scene), self._begin

        def advanced(block: Block) -> None:
            nonlocal last
            now = time.time_ns()
            facts = {"citycover.block": list(block.index), "citycover.pixels": block.window.pixels}
            self._tracer.start_span("block", within, start_time=last, attributes=facts).end(now)
            last = now
            watch.advanced(block)

        def timing(stages: Stages) -> None:
            self._stages.append(stages)
            watch.timing(stages)

        return replace(watch, advanced=advanced, timing=timing)

    def scene_ended(self, what: str, message: str = "") -> None:
        """End the span of the scene, if one was begun.

        Args:
            what: became of it.
            message: why it failed; empty: it did not.
        """
        if self._scene is None:
            return
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        within = set_span_in_context(self._scene)
        for stages in self._stages:
            for stage, seconds in stages.seconds().items():
                # Seconds are a sum over threads and blocks: the span is as long, and begins with the scene.
                facts = {"citycover.seconds": seconds}
                span = self._tracer.start_span(stage, within, start_time=self._begin, attributes=facts)
                span.end(self._begin + int(seconds * 1e9))
        self._scene.set_attribute("citycover.what", what)
        if message:
            self._scene.set_status(Status(StatusCode.ERROR, message))
        self._scene.end()
        self._scene = None


@contextmanager
def tracing(verb: str, name: str, *, asked: bool) -> Iterator[Spans]:
    """Spans of what the body does, sent by OTLP until it ends.

    Args:
        verb: of the command line.
        name: of what is made.
        asked: whether there are to be any.

    Raises:
        ConfigError: the extra is not installed.
    """
    if not asked:
        yield Spans()
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError("--otel needs the extra: pip install 'citycover[otel]'") from None
    about = Resource.create({"service.name": "citycover", "service.version": __version__})
    provider = TracerProvider(resource=about)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    spans = Spans(provider.get_tracer("citycover", __version__))
    try:
        with spans.run(verb, name):
            yield spans
    finally:
        provider.shutdown()
