"""`citycover demo`: the whole story, from a city nobody has mapped to a map and how good it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from citycover_cli import options
from citycover_cli.output import duration, print_json, say
from citycover_cli.progress import show_progress
from citycover_cli.story import draw_story, print_accuracy
from citycover_cli.verb import Talk, heavy, talking
from citycover_cli.verbs.sharpen import print_sharpened, sharpen_with_progress, sharpened_facts

if TYPE_CHECKING:
    from citycover.classes.legend import Legend
    from citycover.evaluate.confusion import Confusion
    from citycover_models.sharpen.request import Sharpened

HELP = """Draw a city, sharpen its 10 m labels to a map of 1 m, and compare labels and map with the truth.

DIR gets the city, the product as `citycover sharpen` leaves it, and story.png: image, coarse labels, map and
truth side by side. Ended at any moment, the same command goes on.

Exit codes: 0 done; 2 DIR holds another demo, or options; 4 no space, memory or device; 5 DIR holds this very
demo, finished; 130 / 143 stopped by a signal.
"""


@talking
@heavy
def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")] = Path("demo"),
    size: Annotated[int, typer.Option(min=64, help="Side of the city in pixels of 1 m.")] = 2048,
    seed: options.CitySeed = 0,
    recipe: Annotated[str, typer.Option(help="How to train; see `citycover train`.")] = "l2hnet-light",
    set_: options.RecipeChanges = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    begin = time.perf_counter()
    story = _live(folder, size, seed, recipe, set_ or [], overwrite=overwrite, silent=talk.silent)
    seconds = time.perf_counter() - begin
    if talk.as_json:
        figures = {"coarse_labels": story.coarse, "map": story.mapped}
        reports = {name: confusion.report(story.legend) for name, confusion in figures.items()}
        print_json({**reports, "seconds": round(seconds, 1), **sharpened_facts(story.sharpened)})
    elif not talk.quiet:
        _print_story(story, seconds)


@dataclass(frozen=True, slots=True)
class _Story:
    """What came out."""

    sharpened: Sharpened
    legend: Legend
    coarse: Confusion
    """The labels that were sharpened, against the truth."""
    mapped: Confusion
    """The map, against the truth."""
    picture: Path


def _live(
    folder: Path, size: int, seed: int, recipe: str, changes: list[str], *, overwrite: bool, silent: bool
) -> _Story:
    """Draw, sharpen, compare."""
    from citycover.classes.legend import read_legend
    from citycover.evaluate.rasters import compare_rasters
    from citycover.evidence.request import LabelRequest
    from citycover.job.request import Imagery, ProductOptions
    from citycover_models.sharpen.folder import reopen_sharpening
    from citycover_models.sharpen.request import SharpenRequest

    city, out, picture = folder / "city", folder / "product", folder / "story.png"
    image, labels, truth = (city / name for name in ("image.tif", "labels_10m.tif", "truth.tif"))
    _draw_city(city, size, seed, overwrite=overwrite, silent=silent)
    request = SharpenRequest(
        Imagery((str(image),)), LabelRequest((labels,), "city"), out, recipe=recipe, changes=tuple(changes),
        seed=seed, product=ProductOptions(overwrite=overwrite),
    )  # fmt: skip
    reopen_sharpening(out, unless=picture)  # a demo that was ended before its last step is none
    sharpened = sharpen_with_progress(request, silent)
    legend, mapped = read_legend("city"), out / "landcover.tif"
    coarse, fine = (compare_rasters(path, truth, legend) for path in (labels, mapped))
    draw_story(picture, (image, labels, mapped, truth), legend, coarse, fine)
    return _Story(sharpened, legend, coarse, fine, picture)


def _draw_city(folder: Path, size: int, seed: int, *, overwrite: bool, silent: bool) -> None:
    """Draw the city, but for one that an earlier demo has drawn: a training goes on with its own images."""
    from citycover.synth.there import city_there
    from citycover.synth.write import write_city

    there = city_there(folder, size, seed)
    if there == "whole":
        return
    with show_progress("drawing a city", 1.0, silent) as progress:
        write_city(folder, size, seed, progress=progress.update, overwrite=overwrite or there == "part")


def _print_story(story: _Story, seconds: float) -> None:
    coarse, mapped = story.coarse, story.mapped
    print_sharpened(story.sharpened)
    print_accuracy({"coarse labels (10 m)": coarse, "map (1 m)": mapped}, story.legend)
    gain = 100 * (mapped.miou - coarse.miou)
    say(
        f"from coarse labels and the image alone, the map's mean IoU is {100 * mapped.miou:.1f} % against "
        f"their {100 * coarse.miou:.1f} %: {gain:+.1f} points\n"
        f"look at {story.picture}; {duration(seconds)} in all"
    )
