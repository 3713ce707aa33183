"""The networks of a map, loaded once a process."""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import replace

import torch

from citycover.model.converted import Stop
from citycover.model.ensemble import TURNS, JointPredictor
from citycover.model.joint import MapModel
from citycover.model.predictor import ModelPredictor, Predictor

logger = logging.getLogger(__name__)

_last: dict[tuple[MapModel, torch.device], tuple[ModelPredictor, ...]] = {}
"""The networks of the map before, with what was made of them: torch takes as long to make ready anew as a
small scene takes to map."""

_loading = threading.Lock()


def load_predictor(model: MapModel, device: torch.device, stop: Stop = None) -> Predictor:
    """All networks of a map on a device, in fp32 and as torch runs them.

    Those of the last map are kept in the process, whoever asks, and no others: devices are small.

    Args:
        model: what maps.
        device: that it is loaded onto.
        stop: ends what takes long for who asks, if it is set: each call of a network raises StoppedError, and
            so does compiling it, which some forms do at the first.

    Raises:
        ModelError: a file is no model any more, or another one.
        MachineError: they do not fit into the memory of the device.
    """
    with _loading:
        if (model, device) not in _last:
            _last.clear()  # before others take their place
            _last[model, device] = tuple(
                ModelPredictor.load(member.path, device, sha256=member.sha256) for member in model.members
            )
            logger.info("loaded the network in process %d on %s", os.getpid(), socket.gethostname())
        loaded = [replace(one, stop=stop) for one in _last[model, device]]
    if model.alone:
        return loaded[0]
    parts = tuple(
        (predictor, member.weight, torch.tensor(member.ranks, device=device))
        for predictor, member in zip(loaded, model.members, strict=True)
    )
    return JointPredictor(model.card, device, parts, TURNS[model.turns])
