"""What a request for a sharpening is taken to mean, before a step."""

from __future__ import annotations

from pathlib import Path

import pytest
from rasterio.shutil import copy

from citycover.errors import CitycoverError
from citycover.evidence.request import LabelRequest
from citycover.job.request import Imagery
from citycover.scene.trust import Trust
from citycover.synth.write import write_city
from citycover_models.sharpen.request import SharpenRequest
from citycover_models.sharpen.understand import understand


@pytest.mark.parametrize("mosaic", ["image", "labels"])
def test_files_of_another_folder_are_learned_from_where_they_are_allowed(tmp_path: Path, mosaic: str) -> None:
    write_city(tmp_path / "city", 128, 3)
    (tmp_path / "given").mkdir()
    files = {"image": tmp_path / "city" / "image.tif", "labels": tmp_path / "city" / "labels_10m.tif"}
    copy(files[mosaic], tmp_path / "given" / "mosaic.vrt", driver="VRT")
    files[mosaic] = tmp_path / "given" / "mosaic.vrt"

    def request(trust: Trust) -> SharpenRequest:
        imagery = Imagery((str(files["image"]),), trust=trust)
        return SharpenRequest(imagery, LabelRequest((str(files["labels"]),), "city"), tmp_path / "out")

    with pytest.raises(CitycoverError, match="--allow-path"):
        understand(request(Trust()))
    (pair,) = understand(request(Trust(folders=(tmp_path / "city",)))).training_set.pairs
    assert str(tmp_path / "given" / "mosaic.vrt") in (pair.name, pair.labels[0].path)
