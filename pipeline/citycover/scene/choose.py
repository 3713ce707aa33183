"""Which bands of a scene a model is given."""

from __future__ import annotations

from collections.abc import Sequence

from citycover.errors import SceneError
from citycover.model.card import BandGroup, ModelCard
from citycover.scene.bands import NUMBERED, SceneBand, fold


def match_bands(
    card: ModelCard, wanted: Sequence[tuple[str, ...]], scene: Sequence[SceneBand]
) -> tuple[int, ...]:
    """Find by name the band of the scene that serves each band of a card.

    Args:
        card: of the model, for messages.
        wanted: the names that each of the card's bands answers to, the canonical one first.
        scene: bands of all files in order.

    Returns:
        Positions in `scene`, in the order of `wanted`.

    Raises:
        SceneError: bands are missing, or more than one answers to the same name.
    """
    if len(wanted) == len(scene) == 1 and not scene[0].names:
        return (0,)  # one is needed and one is there, and nothing says that it is another
    found: list[int | None] = []
    for entry in wanted:
        ranked = sorted(
            (rank, i) for i, band in enumerate(scene) if (rank := rank_of(entry, band)) is not None
        )
        best = [i for rank, i in ranked if rank == ranked[0][0]]
        if len(best) > 1:
            places = " and ".join(f"band {scene[i].index} of {scene[i].file} (number {i + 1})" for i in best)
            sheets = len({scene[i].file for i in best}) > 1
            raise SceneError(
                f"{places} both answer to '{entry[0]}', which {card.called} needs once; "
                f"choose with --bands, one name or number for each of {_list(wanted)}"
                + ("; if the files show the place at different times, say with --overlap which" * sheets)
                + (" counts, or with --composite what becomes of all" * sheets)
            )
        found.append(best[0] if best else None)
    if None in found:
        raise SceneError(_missing(card, wanted, scene, found))
    return tuple(i for i in found if i is not None)


def groups_there(
    card: ModelCard, scene: Sequence[SceneBand], chosen: Sequence[str] | None
) -> tuple[BandGroup, ...]:
    """Groups of a card that a scene has, or must have: all but those that may be missing, and of which it has
    no band.

    Args:
        card: of the model.
        scene: all bands.
        chosen: by the user, for all groups, or for all but those that may be missing.
    """
    needed = tuple(group for group in card.groups if group.missing == "refuse")
    if chosen is not None:
        return needed if len(chosen) == sum(len(group.bands) for group in needed) else card.groups
    return tuple(
        group
        for group in card.groups
        if group in needed or any(rank_of(entry, band) is not None for entry in group.bands for band in scene)
    )


def rank_of(entry: tuple[str, ...], band: SceneBand) -> int | None:
    """How well a band serves an entry: position of the name in the entry, substitutes last."""
    folded = [fold(n) for n in entry]
    plain = [name for name in band.literals if not NUMBERED.fullmatch(name)]  # a bare B4 may be anything
    exact = [k for k, name in enumerate(folded) if name in band.names or (not band.names and name in plain)]
    if exact:
        return exact[0]
    if not band.names and f"band{band.index}" in folded:
        return folded.index(f"band{band.index}")  # a card that learned from numbers
    spare = [k for k, name in enumerate(folded) if name in band.substitutes]
    return len(folded) + spare[0] if spare else None


def _missing(
    card: ModelCard,
    wanted: Sequence[tuple[str, ...]],
    scene: Sequence[SceneBand],
    found: Sequence[int | None],
) -> str:
    lacking = [entry[0] for entry, i in zip(wanted, found, strict=True) if i is None]
    unnamed = [i for i, b in enumerate(scene) if not (b.alpha or b.names or i in found)]
    if len(unnamed) < len(lacking):
        unnamed += [i for i, b in enumerate(scene) if b.alpha and i not in found]
    have = f"scene has {len(scene)} band{'s' * (len(scene) > 1)} ({', '.join(_words(scene))})"
    need = f"{card.called} needs {_list(wanted)} and nothing answers to {', '.join(lacking)}"
    if any(_is_told(scene[i]) for i in unnamed) or len({b.file for b in scene}) > 1:
        remedy = (
            f"say which is which: pass --bands with one name or number for each of {_list(wanted)}, "
            f"in that order; they are {', '.join(f'{i + 1} {b.written}' for i, b in enumerate(scene[:16]))}"
            if len(unnamed) >= len(lacking)
            else f"give the files that hold them, or {card.instead}"
        )
    elif len(unnamed) >= len(lacking):
        spare = iter(unnamed)
        guess = ",".join(str((next(spare) if i is None else i) + 1) for i in found)
        remedy = (
            f"if the bands do lie in the order {_list(wanted)}, pass --bands {guess}; "
            f"else the numbers that are right (names come from descriptions, colours or file names)"
        )
    else:
        remedy = f"give the files that hold them, or {card.instead}"
    return f"{have}; {need}; {remedy}"


def _is_told(band: SceneBand) -> bool:
    """True where something is written on a band, though its meaning is not known: an order is no guess."""
    return bool(band.title or any(NUMBERED.search(name) for name in band.literals))


def _words(scene: Sequence[SceneBand]) -> list[str]:
    words = ["alpha" if b.alpha else "unnamed" if not (b.names or b.title) else b.label for b in scene]
    return words if len(words) <= 16 else [*words[:15], "..."]


def _list(wanted: Sequence[tuple[str, ...]]) -> str:
    return ", ".join(entry[0] for entry in wanted)


def pick_bands(
    chosen: Sequence[str], wanted: Sequence[tuple[str, ...]], scene: Sequence[SceneBand], called: str
) -> tuple[int, ...]:
    """Follow `--bands`: one name or number (from 1, over all files in order) for each band of a card.

    The first entry serves the card's first band, whatever it is called; a band may be named twice.

    Args:
        chosen: names and numbers.
        wanted: bands of the card; none where there is no card, and any number may be chosen.
        scene: all bands.
        called: the model in words, see `ModelCard.called`.

    Returns:
        Positions in `scene`.

    Raises:
        SceneError: another count than the card's, an unknown name, a name that means several bands.
    """
    if wanted:
        check_count(chosen, wanted, called)
    return tuple(_pick(word.strip(), scene) for word in chosen)


def check_count(chosen: Sequence[str], wanted: Sequence[tuple[str, ...]], called: str) -> None:
    """Raise SceneError unless as many bands are named as a card has."""
    if len(chosen) != len(wanted):
        got = f"--bands names {len(chosen)} band{'s' * (len(chosen) != 1)} ({','.join(chosen)})"
        raise SceneError(
            f"{got}; {called} needs {len(wanted)}: {_list(wanted)}; give one for each, in that order"
        )


def _pick(word: str, scene: Sequence[SceneBand]) -> int:
    if word.isdecimal():
        if not 1 <= int(word) <= len(scene):
            raise SceneError(
                f"--bands asks for band {word}; the scene has {len(scene)}, numbered from 1 over all files "
                f"in the order given: {', '.join(_words(scene))}"
            )
        return int(word) - 1
    name = fold(word)
    for known in (
        lambda b: word.lower() == b.title.lower(),
        lambda b: name in b.literals,
        lambda b: name in b.names,
        lambda b: name in b.substitutes,
    ):
        hits = [i for i, band in enumerate(scene) if known(band)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            numbers = ", ".join(str(i + 1) for i in hits)
            raise SceneError(
                f"--bands {word}: bands number {numbers} of the scene all answer to it; "
                f"use the number of the one you mean"
            )
    raise SceneError(
        f"--bands {word}: no band of the scene answers to it; it has {', '.join(_words(scene))}; "
        f"use one of these names, or numbers from 1 to {len(scene)}"
    )
