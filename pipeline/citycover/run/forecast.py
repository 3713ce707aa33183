"""What a run would do, here or on a cluster: `citycover plan`."""

from __future__ import annotations

from dataclasses import replace

from citycover.compute.choices import in_one_process
from citycover.compute.forecast import Forecast, forecast
from citycover.job.job import Job, prepare_request
from citycover.job.request import MapRequest
from citycover.machine.device import choose_device
from citycover.model.loading import load_predictor


def plan_scene(request: MapRequest) -> Forecast:
    """Say what `map_scene` would do with a request: windows, blocks, memory, time. Nothing is written.

    Loads the network and tries it for a moment.

    Raises:
        CitycoverError: anything the user can mend.

    Examples:
        >>> import tempfile, citycover
        >>> from pathlib import Path
        >>> from citycover.synth.write import write_city
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = write_city(folder / "city", 128)
        >>> imagery = citycover.Imagery((str(folder / "city/image.tif"),))
        >>> request = citycover.MapRequest(imagery, folder / "product")
        >>> found = citycover.plan_scene(request)
        >>> found.settled.plan.shape, found.settled.plan.windows, found.seconds > 0
        ((128, 128), 1, True)
    """
    return forecast_job(prepare_request(request))


def forecast_job(job: Job) -> Forecast:
    """What `map` would do with a job: here, or on the cluster that it asks for.

    Raises:
        CitycoverError: anything the user can mend.
    """
    if job.engine.scheduler is not None:
        from citycover.compute.cluster.compute import forecast_on_cluster  # dask, for those who ask for it

        return forecast_on_cluster(job)
    device = choose_device(job.engine.device)
    predictor = load_predictor(job.model, device)
    found = forecast(in_one_process(job), predictor)
    return replace(found, workers=job.engine.workers or 1)
