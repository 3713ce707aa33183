"""What fuzzing found once is run for ever, and the targets themselves take their seeds."""

import json
from pathlib import Path

import pytest
from targets import run_record, targets

from citycover.product.record import RunRecord

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return dict(targets(tmp_path_factory.mktemp("seeds")))


# rasterio hears what GDAL quotes of a broken file, and cannot always decode it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("path", FOUND, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_what_was_found_once_ends_in_an_answer(path: Path, known: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / f"input{path.suffix}"
    file.write_bytes(path.read_bytes())
    known[path.parent.name].run(file)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name", ["card", "legend", "recipe", "aoi", "vrt", "archive", "ledger", "item", "list"]
)
def test_targets_tell_an_answer_from_a_fault(name: str, known: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / f"input{known[name].ending}"  # type: ignore[attr-defined]
    file.write_bytes(b"neither this nor that \x00\xff")
    known[name].run(file)  # type: ignore[attr-defined]


def test_the_seed_of_a_record_is_one_that_is_read() -> None:
    assert RunRecord.from_json(json.dumps(run_record())).to_json()
