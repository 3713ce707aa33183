"""Map one scene with one peer, in the environment of the peers; never imports citycover.

    .bench-venv/bin/python tests/benchmarks/peer_runs.py monai-50 scene.tif model.pt folder

Every peer gets the same TorchScript file as it comes from `torch.jit.load`, and is timed from the load of
the model to the finished class GeoTIFF (classes from 0, nodata 255); importing it is not timed. A peer that
neither reads nor writes rasters gets rasterio before and after. The last line printed is JSON.

Each function below imports its peer and returns what maps the scene. Windows of 512 with half of it
overlapping unless the name says otherwise: what most of them document.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CLASSES = 7
BATCH = 8
NODATA = 255


class Timed(nn.Module):
    """A network that notes how long it computes and how many pixels it is given."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seconds = 0.0
        self.pixels = 0
        self._since = 0.0
        self._running = 0
        self._lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        """Time in which at least one thread computes: calls that overlap count once."""
        with self._lock:
            self.pixels += x.shape[0] * x.shape[-2] * x.shape[-1]
            if self._running == 0:
                self._since = time.perf_counter()
            self._running += 1
        try:
            return self.network(x)
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self.seconds += time.perf_counter() - self._since


@dataclass
class Job:
    """What a peer is asked to do, and the network that it used."""

    scene: Path
    model: Path
    folder: Path
    network: Timed = field(init=False)

    @property
    def out(self) -> Path:
        return self.folder / "classes.tif"

    def load(self) -> Timed:
        self.network = Timed(torch.jit.load(self.model, map_location="cpu").eval())
        return self.network

    def read(self) -> NDArray[np.uint8]:
        """(band, y, x)."""
        import rasterio

        with rasterio.open(self.scene) as source:
            return source.read()

    def write(self, classes: NDArray[np.uint8]) -> Path:
        """(y, x) as a tiled, compressed GeoTIFF on the grid of the scene."""
        import rasterio

        with rasterio.open(self.scene) as source:
            profile = {
                "driver": "GTiff", "height": source.height, "width": source.width, "count": 1,
                "dtype": "uint8", "nodata": NODATA, "crs": source.crs, "transform": source.transform,
                "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
            }  # fmt: skip
        with rasterio.open(self.out, "w", **profile) as target:
            target.write(classes, 1)
        return self.out


Run = Callable[[Job], Path]


def best_class(scores: Tensor) -> NDArray[np.uint8]:
    """(class, y, x) to (y, x)."""
    return scores.argmax(0).to(torch.uint8).numpy()


def monai(window: int, overlap: float) -> Run:
    from monai.inferers import sliding_window_inference

    def run(job: Job) -> Path:
        image = torch.from_numpy(job.read())[None].float()
        with torch.inference_mode():
            scores = sliding_window_inference(
                image, (window, window), BATCH, job.load(), overlap=overlap, mode="gaussian", progress=False
            )
        return job.write(best_class(scores[0]))

    return run


def geo_inference(window: int) -> Run:
    from geo_inference.geo_inference import GeoInference

    def run(job: Job) -> Path:
        peer = GeoInference(model=str(job.model), work_dir=str(job.folder), device="cpu", num_classes=CLASSES)
        job.network = peer.model = Timed(peer.model)
        name = peer(
            inference_input=str(job.scene), bands_requested=[], patch_size=window, workers=2, bbox=None
        )
        return job.folder / name

    return run


def toolbelt(window: int, step: int) -> Run:
    without_init("pytorch_toolbelt", "pytorch_toolbelt.inference")
    tiles = importlib.import_module("pytorch_toolbelt.inference.tiles")

    def run(job: Job) -> Path:
        image = np.ascontiguousarray(np.moveaxis(job.read(), 0, -1))  # (y, x, band)
        network = job.load()
        slicer = tiles.ImageSlicer(image.shape, (window, window), (step, step), weight="pyramid")
        merger = tiles.TileMerger(slicer.target_shape, CLASSES, slicer.weight, device="cpu")
        cut = slicer.split(image)
        with torch.inference_mode():
            for first in range(0, len(cut), BATCH):
                batch = torch.from_numpy(np.stack(cut[first : first + BATCH])).permute(0, 3, 1, 2).float()
                merger.integrate_batch(network(batch), slicer.crops[first : first + BATCH])
        scores = np.moveaxis(merger.merge().numpy(), 0, -1)
        # Its own name for it, with its own spelling.
        return job.write(slicer.crop_to_orignal_size(scores).argmax(-1).astype(np.uint8))

    return run


def terratorch(window: int, step: int, delta: int, batch: int = BATCH) -> Run:
    folder = without_init("terratorch", "terratorch.models", "terratorch.tasks")
    # Its module of helpers imports torchvision and all backbones; this one function is what tiling needs.
    helpers = one_function(folder / "models" / "utils.py", "pad_images")
    sys.modules["terratorch.models.utils"] = helpers
    tiled = importlib.import_module("terratorch.tasks.tiled_inference")

    def run(job: Job) -> Path:
        image = torch.from_numpy(job.read())[None].float()
        with torch.inference_mode():
            scores = tiled.tiled_inference(
                job.load(), image, crop=window, stride=step, delta=delta, batch_size=batch, padding="reflect"
            )
        return job.write(best_class(scores[0]))

    return run


def geoai(blend: str) -> Run:
    folder = without_init("geoai")
    # The same: with the device given, this function is only imported, by the call itself.
    sys.modules["geoai.utils"] = one_function(folder / "utils" / "device.py", "get_device")
    from geoai.inference import predict_geotiff

    def run(job: Job) -> Path:
        predict_geotiff(
            job.load(), str(job.scene), str(job.out), tile_size=512, overlap=256, batch_size=BATCH,
            num_classes=CLASSES, output_dtype="uint8", output_nodata=NODATA, blend_mode=blend,
            preprocess_fn=lambda tile: tile, postprocess_fn=lambda a: a.argmax(0).astype("uint8"),
            device="cpu", verbose=False,
        )  # fmt: skip
        return job.out

    return run


def rastervision() -> Run:
    from rastervision.core.data import RasterioSource, SemanticSegmentationSmoothLabels

    def run(job: Job) -> Path:
        network = job.load()
        source = RasterioSource(str(job.scene), channel_order=[0, 1, 2, 3])  # else three bands
        labels = SemanticSegmentationSmoothLabels(source.extent, CLASSES)
        windows = source.extent.get_windows(512, stride=256)
        with torch.inference_mode():
            for first in range(0, len(windows), BATCH):
                some = windows[first : first + BATCH]
                chips = np.stack([source.get_chip(window) for window in some])  # (n, y, x, band)
                scores = network(torch.from_numpy(chips).permute(0, 3, 1, 2).float()).softmax(1)
                for window, one in zip(some, scores.numpy(), strict=True):
                    labels[window] = one
        return job.write(labels.get_label_arr(source.extent).astype(np.uint8))

    return run


@dataclass(frozen=True)
class Peer:
    """One peer at one setting."""

    package: str
    """The distribution, as pip names it."""
    setting: str
    prepare: Callable[[], Run]


PEERS = {
    "geo-inference": Peer("geo-inference", "512, Hann 50 %", partial(geo_inference, 512)),
    "geo-inference-1024": Peer(
        "geo-inference", "1024 (its default), Hann 50 %", partial(geo_inference, 1024)
    ),
    "monai-25": Peer("monai", "512, gaussian, overlap 0.25", partial(monai, 512, 0.25)),
    "monai-50": Peer("monai", "512, gaussian, overlap 0.5", partial(monai, 512, 0.5)),
    "toolbelt": Peer("pytorch-toolbelt", "512, step 256, pyramid", partial(toolbelt, 512, 256)),
    "terratorch": Peer("terratorch", "512, stride 256, delta 8", partial(terratorch, 512, 256, 8)),
    "terratorch-wide": Peer(
        "terratorch", "1136, stride 1024, delta 48", partial(terratorch, 1136, 1024, 48, 1)
    ),
    "geoai": Peer("geoai-py", "512, overlap 256, spline", partial(geoai, "spline")),
    "geoai-cosine": Peer("geoai-py", "512, overlap 256, cosine", partial(geoai, "cosine")),
    "raster-vision": Peer("rastervision_core", "512, stride 256, mean", rastervision),
}


def without_init(*packages: str) -> Path:
    """Make packages importable without running their `__init__`, which asks for too much; the first's folder.

    Theirs import torchvision, which from the package index is built for another torch than that of a CPU.
    """
    spec = importlib.util.find_spec(packages[0])
    assert spec is not None and spec.origin is not None, f"{packages[0]} is not installed"
    root = Path(spec.origin).parent
    for name in packages:
        module = ModuleType(name)
        module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module
    return root


def one_function(path: Path, name: str) -> ModuleType:
    """A module with one function of a file alone, and what that function needs: torch."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    module = ModuleType(path.stem)
    module.__dict__.update(torch=torch, nn=nn)
    exec(compile(tree, str(path), "exec"), module.__dict__)
    return module


def main() -> None:
    name, scene, model, folder = sys.argv[1:]
    peer = PEERS[name]
    job = Job(Path(scene), Path(model), Path(folder))
    run = peer.prepare()
    begin, before = time.perf_counter(), time.process_time()
    out = run(job)
    wall, processor = time.perf_counter() - begin, time.process_time() - before
    result = {
        "wall_s": wall,
        "cpu_s": processor,
        "forward_s": job.network.seconds,
        "pushed": job.network.pixels,
        "out": str(out),
        "first_class": 0,
        "nodata": NODATA,
        "version": version(peer.package),
    }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
