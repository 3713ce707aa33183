"""A mosaic that was laid out anew: what lies there of another grid, of tiles of another size, or of scenes by
themselves goes once all of the new one is there. Until then readers have the old one where the new one lacks.
"""

from __future__ import annotations

from citycover.region.folder import remove_facts
from citycover.region.made import take_away
from citycover.region.standing import Survey


def put_others_aside(survey: Survey, keep: int) -> tuple[str, ...]:
    """Put aside what is no part of the mosaic, with what was made of it; goes on where that was ended.

    Args:
        survey: of a region; of one that is no mosaic nothing goes.
        keep: how many earlier products of a name are kept.

    Returns:
        Names of what went; none as long as a tile is to be made.

    Raises:
        MachineError: it stays.
    """
    folder = survey.folder
    if (laid := survey.settings.map.get("mosaic")) is None:
        return ()
    others = {name: record for name, record in survey.gone.items() if record.map.get("mosaic") != laid}
    if not others or any(survey.standing(name).state != "done" for name in survey.scenes):
        return ()
    gone = []
    for name, record in others.items():
        if folder.mark(folder.map_of(name)) not in ("", record.product):  # somebody put another one there
            continue
        take_away(folder, name, record.made, record.made)
        folder.put_aside(name, keep)
        remove_facts(folder.failure_of(name))
        remove_facts(folder.record_of(name))
        gone.append(name)
    return tuple(gone)
