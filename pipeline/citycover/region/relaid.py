"""A region laid out anew, in tiles of another grid or size, or in tiles for the first time or no more: what
lies there of the old layout goes once all of the new one is there.

Until then readers have the old one where the new one lacks.
"""

from __future__ import annotations

from citycover.region.folder import remove_facts
from citycover.region.made import take_away
from citycover.region.record import SceneRecord
from citycover.region.standing import Survey


def laid_otherwise(survey: Survey) -> dict[str, SceneRecord]:
    """Products of an earlier layout, by name, which go once all of this one is there."""
    laid, folder = survey.settings.map.get("mosaic"), survey.folder
    return {
        name: record
        for name, record in survey.gone.items()
        if record.map.get("mosaic") != laid
        and folder.mark(folder.map_of(name)) in ("", record.product)  # else somebody put another one there
    }


def put_others_aside(survey: Survey, keep: int) -> tuple[str, ...]:
    """Put aside what is of an earlier layout, with what was made of it; goes on where that was ended.

    Args:
        survey: of a region.
        keep: how many earlier products of a name are kept.

    Returns:
        Names of what went; none as long as a scene or a tile is to be made.

    Raises:
        MachineError: it stays.
    """
    others, folder = laid_otherwise(survey), survey.folder
    if not others or any(survey.standing(name).state != "done" for name in survey.scenes):
        return ()
    for name, record in others.items():
        take_away(folder, name, record.made, record.made)
        folder.put_aside(name, keep)
        remove_facts(folder.failure_of(name))
        remove_facts(folder.record_of(name))
    return tuple(others)
