"""The image of a scene: read early where that holds nobody up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import citycover
from citycover.job.job import Job, prepare_request
from citycover.product.image import ImageBeside
from citycover.synth.write import write_city


@pytest.fixture
def job(tmp_path: Path) -> Job:
    write_city(tmp_path, 200, 3)
    return prepare_request(citycover.MapRequest(citycover.Imagery((str(tmp_path / "image.tif"),)), tmp_path))


def test_the_image_is_read_once_whenever_it_was_begun(job: Job) -> None:
    with ThreadPoolExecutor(1) as pool:
        early, late = ImageBeside(job.scene, pool), ImageBeside(job.scene, pool)
        early.begin(job.draft)
        assert early.get(job.draft) is early.get(job.draft)
        one, other = early.get(job.draft).result(), late.get(job.draft).result()
    np.testing.assert_array_equal(one.rgb, other.rgb)
    assert one.rgb.shape == (200, 200, 3)


def test_nobody_who_stops_a_run_waits_for_files_across_the_network(job: Job) -> None:
    group = job.scene.groups[0]
    band = replace(group.bands[0], path="/vsicurl/http://localhost:9/image.tif")
    sheet = replace(group.sheets[0], bands=(band, *group.sheets[0].bands[1:]))
    far = replace(job.scene, groups=(replace(group, sheets=(sheet,)),))
    with ThreadPoolExecutor(1) as pool:
        begun: list[object] = []
        pool.submit = lambda *given: begun.append(given)  # type: ignore[method-assign,assignment]
        ImageBeside(far, pool).begin(job.draft)
        ImageBeside(job.scene, pool).begin(job.draft)
    assert len(begun) == 1
