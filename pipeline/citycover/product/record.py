"""run.json: what was asked for, what happened, and on what.

`RunRecord` alone knows how the file looks: figures of all its parts lie side by side in one flat object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from citycover.classes.legend import Legend
from citycover.engine.agreement import Seams
from citycover.errors import ConfigError
from citycover.evidence.catalogue import Credit
from citycover.evidence.noise import Belief, LabelNoise, evidence_words
from citycover.evidence.offset import NO_OFFSET, LabelOffset
from citycover.evidence.slopes import Odds
from citycover.files.identity import FileMark, FileStamp
from citycover.files.plain import parse_json, to_json
from citycover.files.remote import RemotePath
from citycover.model.card import ModelCard
from citycover.read.reader import Hole
from citycover.store.ledger import hole_facts, hole_of

FORMAT = 1
"""Version of run.json; files without one came before it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunMember:
    """One network of several that were averaged."""

    name: str
    path: str
    sha256: str
    weight: float


@dataclass(frozen=True, slots=True)
class RunModel:
    """What mapped."""

    name: str
    version: str
    sha256: str
    """Of the model file; of several, or of one whose windows were turned, of all that decides the map."""
    members: tuple[RunMember, ...] = ()
    """Networks that were averaged; empty: one model file is all."""
    turns: str = "none"


@dataclass(frozen=True, slots=True)
class RunInput:
    """A file of the scene, as it was when the run began."""

    path: str
    bytes: int
    mtime_ns: int
    ctime_ns: int = 0
    compared: int = 0
    """Bytes of content that the digest is of, see `FileMark`."""
    digest: str = ""
    """Empty: it lies across the network, or the record is of a version that kept none."""

    @classmethod
    def of(cls, mark: FileMark) -> RunInput:
        """A file that was marked."""
        stamp = mark.stamp or FileStamp(0, 0, 0)
        return cls(mark.path, stamp.size, stamp.mtime_ns, stamp.ctime_ns, mark.budget, mark.digest)

    def holds(self) -> bool:
        """Whether the file is still what it was, by content where its times alone differ."""
        stamp = FileStamp(self.bytes, self.mtime_ns, self.ctime_ns)
        if self.digest:
            return FileMark(self.path, stamp, self.compared, self.digest).holds()
        now = FileStamp.of(self.path) or FileStamp(0, 0, 0)
        return (now.size, now.mtime_ns) == (self.bytes, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class Given:
    """What the run was given, and what decides every pixel."""

    request: Mapping[str, Any]
    """Options, by name: see `MapRequest`."""
    model: RunModel
    card: Mapping[str, Any]
    """The model card, as plain values."""
    inputs: tuple[RunInput, ...]
    gsd: float
    """Metres on the ground, of the finest band group."""
    time: str | None
    """When the imagery was taken, ISO 8601."""
    plan: Mapping[str, Any]
    """Windows and blocks: see `Plan.facts`."""
    identity: Mapping[str, str]
    """Hashes by what they are of; a run of the same ones gives the same pixels."""
    versions: Mapping[str, str]
    """Of software, by name; `machine`: system and processor."""
    command: tuple[str, ...] = ()
    """The words of the command line."""
    start: str | None = None
    """When the first of it was taken, ISO 8601, where that was not all at once."""
    composite: str | None = None
    """What became of several dates: latest, median, best, mean-probability; None: there was one."""
    dates: tuple[str, ...] = ()
    """Days that it is of, the latest first."""
    filled: tuple[str, ...] = ()
    """Band groups that the imagery does not have, and the numbers in their place; empty: it has all."""
    conversions: tuple[str, ...] = ()
    """How numbers of the files became those of the network, band by band; empty: as they stood there."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When, and how long; seconds of workers are added up."""

    wall_s: float
    """From the beginning of the last attempt to its end."""
    sweep_s: float
    """The network and what it waits for."""
    stages: Mapping[str, float]
    """Seconds of the start and of the sweep's parts."""
    beside: Mapping[str, float]
    """Seconds of what other threads do meanwhile."""
    forward_share: float
    """Share of the network itself in the sweep, 0..1."""
    started: datetime | None = None
    """When the first attempt took the folder, UTC."""
    finished: datetime | None = None
    """When everything but the last files was written, UTC."""


@dataclass(frozen=True, slots=True)
class Machinery:
    """What computed."""

    device: str
    precision: str
    workers: int
    """Processes."""
    peak_rss_bytes: int
    """Bytes that the process which held most held at most."""
    form: str = "torchscript"
    """What ran the network; torch did before it was said."""
    host: str = ""
    """Name of the machine that published."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much was computed."""

    pixels: int
    """Pixels of output."""
    windows: Mapping[str, int]
    """`run`, `skipped`, and `slots` of batches that went through the network, in all attempts."""
    redundancy: float
    """Pixels pushed through the network per pixel of output, in input pixels."""


@dataclass(frozen=True, slots=True)
class RunLabels:
    """Labels of the place that were evidence beside the network."""

    files: tuple[RunInput, ...]
    legend: str
    """What their numbers mean."""
    shares: Mapping[str, float]
    """Of the labels over the map, by class."""
    trust: float
    """Share of them that was reckoned right, 0..1."""
    contradicted: float
    """Share that the network contradicts where it is surest, or 1 - the trust that was asked for."""
    cells: float
    """Labelled cells that this rests on."""
    noise_from: Literal["asked", "model", "scene"]
    """Who said so: the user, the model's training, or the scene that was mapped."""
    credits: tuple[Credit, ...] = ()
    """Of products that were asked for by name."""
    offset: LabelOffset = NO_OFFSET
    """How far they lie beside the image; corrected where that is sure."""
    slopes: tuple[float, ...] = ()
    """(channel,) how far the network's word on a class counts beside them, 0..1; empty: fully."""
    prior: tuple[float, ...] = ()
    """(channel,) mean probability of the network on what was mapped; empty: its own, of this place."""
    odds: tuple[Odds, ...] = ()
    """(channel,) slope and base of what the network's word on a class is worth as a chance."""
    changed: float | None = None
    """Share of the pixels with a label that have changed since, see `change.tif`; None: nobody looked."""

    @property
    def belief(self) -> Belief:
        """How far they were believed, and where they were read."""
        noise = LabelNoise(self.contradicted, self.cells)
        return Belief(noise, self.noise_from, self.offset, self.slopes, self.prior, self.odds)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of a run that is finished."""

    given: Given
    timing: Timing
    machine: Machinery
    amount: Amount
    holes: tuple[Hole, ...]
    """What could not be read; nodata in the product."""
    shares: Mapping[str, float]
    """Share of each class in the valid pixels, by name."""
    seams: Seams | None = None
    """None: not asked for."""
    labels: RunLabels | None = None
    """None: the network mapped alone."""
    warnings: tuple[str, ...] = ()
    """What the last attempt warned of."""
    attempts: int = 1
    """How often the run was begun or gone on with."""
    refined: tuple[Mapping[str, Any], ...] = ()
    """What was done to the map afterwards, the first time first: `from`, `steps`, `legend`, ..."""

    @property
    def resumed(self) -> bool:
        """Whether it was ever interrupted."""
        return self.attempts > 1

    @property
    def evidence(self) -> str:
        """What the map rests on, in words."""
        return evidence_words(self.labels is not None)

    @property
    def standing(self) -> Literal["random weights", "built-in colour rules", "trained model"]:
        """What kind of model made the map."""
        if self.card.untrained:
            return "random weights"
        return "built-in colour rules" if self.card.name.startswith("spectral-") else "trained model"

    @property
    def legend(self) -> Legend:
        """Of the map."""
        return Legend.model_validate((self.refined[-1] if self.refined else self.given.card)["legend"])

    @property
    def card(self) -> ModelCard:
        """Of the network."""
        return ModelCard.model_validate(dict(self.given.card))

    def facts(self) -> dict[str, Any]:
        """As plain values, the way they stand in run.json."""
        timing = asdict(self.timing) | {
            name: None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")
            for name, time in (("started", self.timing.started), ("finished", self.timing.finished))
        }
        return {
            "format": FORMAT,
            **asdict(self.given),
            **timing,
            **asdict(self.machine),
            **asdict(self.amount),
            "holes": [hole_facts(hole) for hole in self.holes],
            "shares": dict(self.shares),
            "seams": None if self.seams is None else asdict(self.seams),
            "labels": None if self.labels is None else asdict(self.labels),
            "evidence": self.evidence,
            "warnings": list(self.warnings),
            "attempts": self.attempts,
            "resumed": self.resumed,
            **({"refined": [dict(done) for done in self.refined]} if self.refined else {}),
        }

    def to_json(self) -> str:
        """Content of run.json."""
        return to_json(self.facts())

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """Read a record back; what an earlier version did not write is empty.

        Raises:
            ConfigError: the text is no record, or of a later version.
        """
        try:
            data = parse_json(text)
            version = int(data.get("format", 0))
            if version > FORMAT:
                raise ConfigError(
                    f"it has format {version}, this citycover reads up to {FORMAT}; install a later citycover"
                )
            record = cls(
                _part(Given, data),
                _part(Timing, data),
                _part(Machinery, data),
                _part(Amount, data),
                tuple(hole_of(hole) for hole in data["holes"]),
                {str(name): float(share) for name, share in data["shares"].items()},
                None if data["seams"] is None else _part(Seams, data["seams"]),
                _part(RunLabels, data["labels"]) if data.get("labels") else None,
                tuple(map(str, data.get("warnings", ()))),
                int(data.get("attempts", 1)),
                tuple(dict(done) for done in data.get("refined", ())),
            )
            for holder in (record.given.card, *record.refined):
                Legend.model_validate(holder["legend"])
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise ConfigError(f"it has no usable {where or 'content'}; map again") from None
        except KeyError as error:
            raise ConfigError(f"it lacks {error.args[0]}; map again") from None
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise ConfigError(f"it is no record of a run ({error}); map again") from None
        return record


def _part(kind: type[T], data: Mapping[str, Any]) -> T:
    """Those of the values that are this part's."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return TypeAdapter(kind).validate_python({name: data[name] for name in names if name in data})


def read_record(path: Path | RemotePath) -> RunRecord:
    """Read a run.json.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        return RunRecord.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; give a folder that `citycover map` wrote"
        ) from None
    except ConfigError as error:
        raise ConfigError(f"{path} cannot be used: {error}") from None
