"""Names of devices, told without torch."""

from __future__ import annotations

import re

from citycover.errors import ConfigError

_DEVICE = re.compile(r"auto|(cpu|cuda|mps)(:\d+)?")


def check_device_name(name: str) -> None:
    """Refuse what can be no device on any machine.

    Raises:
        ConfigError: the name means nothing.
    """
    if not _DEVICE.fullmatch(name):
        raise ConfigError(f"--device takes auto, cpu, cuda, cuda:1 or mps; got {name!r}")
