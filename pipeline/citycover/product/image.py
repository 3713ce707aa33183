"""The image of what is mapped, small, as preview and page show it."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.draw.colours import stretch
from citycover.files.remote import is_remote
from citycover.geometry.window import Window
from citycover.plan.plan import Plan
from citycover.read.picture import Picture, read_picture
from citycover.scene.scene import Scene

_SIDE = 1000
"""Most pixels of the longer side."""


@dataclass(frozen=True, slots=True)
class SceneImage:
    """What was mapped; its middle where it is too large to be decoded."""

    picture: Picture
    rgb: NDArray[np.uint8]
    """(y, x, 3), stretched to be seen."""

    @classmethod
    def read(cls, scene: Scene, plan: Plan) -> SceneImage:
        """What cannot be read is shown as nodata."""
        picture = read_picture(scene, mapped_part(plan), _SIDE)
        return cls(picture, stretch(picture.values, picture.valid))


def mapped_part(plan: Plan) -> Window:
    """Pixels of the scene that are mapped."""
    return Window(*plan.origin, plan.y.size, plan.x.size)


class ImageBeside:
    """The image of a scene, read beside the sweep, so that no publishing waits for it.

    Files across the network are read when the image is asked for: who stops a run need not wait for them.
    """

    def __init__(self, scene: Scene, pool: Executor):
        self._scene = scene
        self._pool = pool
        self._begun: Future[SceneImage] | None = None
        self._far = any(is_remote(path) for group in scene.groups for path in group.paths)

    def begin(self, plan: Plan) -> None:
        """Blocks begin to be computed."""
        if not self._far:
            self._begun = self._pool.submit(SceneImage.read, self._scene, plan)

    def get(self, plan: Plan) -> Future[SceneImage]:
        """The image; read from now on if that has not begun."""
        return self._begun or self._pool.submit(SceneImage.read, self._scene, plan)
