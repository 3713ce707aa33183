"""The files that a run reads, and whether they stay what they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from citycover.errors import ChangedError, ProductError
from citycover.files.identity import FileMark, FileStamp
from citycover.job.job import Job

_BUDGET = 1 << 26
"""Bytes of content that are looked at, in all files together: half a second from a slow drive."""

_LEAST = 1 << 18
"""Bytes that are looked at in each, however many there are."""


@dataclass
class Inputs:
    """All files that decide the pixels of a run, as they were when it began: scene, labels and model."""

    marks: tuple[FileMark, ...]
    _seen: dict[str, FileStamp | None] = field(default_factory=dict)
    """Stamps under which a file was found to be the same; spares looking at its content again."""

    @classmethod
    def of(cls, job: Job) -> Inputs:
        """Mark the files of a job as they are now.

        Raises:
            ChangedError: a file of the scene is another one than was described.
            OSError: one cannot be read.
        """
        files = job.scene.fingerprints
        budget = max(_LEAST, _BUDGET // max(len(files), 1))
        marks = [FileMark.of(path, budget) for path, _, _ in files]
        for mark, (_, size, mtime_ns) in zip(marks, files, strict=True):
            if mark.stamp is not None and (mark.stamp.size, mark.stamp.mtime_ns) != (size, mtime_ns):
                raise _changed(mark.path)
        labels = [str(sheet.path.absolute()) for sheet in job.labels.sheets] if job.labels else []
        labels += job.labels.beside if job.labels else ()
        marks += [FileMark.of(path, budget) for path in labels]
        for member in job.model.members:
            path = str(member.path.absolute())
            stamp = FileStamp.of(path)
            marks.append(FileMark(path, stamp, 0 if stamp is None else stamp.size, member.sha256))
        return cls(tuple(marks))

    def check(self) -> None:
        """Raise if a file is not what it was; asks the file system alone as long as nothing was touched.

        Raises:
            ChangedError: a file was changed or removed, or one that was missing has come.
        """
        for mark in self.marks:
            now = FileStamp.of(mark.path)
            if now in (mark.stamp, self._seen.get(mark.path, mark.stamp)):
                continue
            if not mark.holds():
                raise _changed(mark.path)
            self._seen[mark.path] = now

    def facts(self) -> list[dict[str, Any]]:
        """As plain values."""
        return [asdict(mark) for mark in self.marks]

    @classmethod
    def from_facts(cls, facts: Sequence[Mapping[str, Any]]) -> Inputs:
        """Back from plain values.

        Raises:
            ProductError: they are none.
        """
        try:
            marks = [
                FileMark(
                    str(fact["path"]),
                    None if fact["stamp"] is None else FileStamp(**fact["stamp"]),
                    int(fact["budget"]),
                    str(fact["digest"]),
                )
                for fact in facts
            ]
        except (KeyError, TypeError, ValueError):
            raise ProductError(
                "the unfinished run does not say which files it read; give --restart to begin anew"
            ) from None
        return cls(tuple(marks))


def _changed(path: str) -> ChangedError:
    return ChangedError(
        f"{path} was changed or removed after the run began; a map of two images would be none; nothing was "
        "published, and blocks that were finished before are kept; bring the file back and run the same "
        "command again, or give --restart to map what is there now"
    )
