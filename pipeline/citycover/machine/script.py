"""Scripts that ask for worker processes: each of these reads the script from the top before it works."""

from __future__ import annotations

import multiprocessing

from citycover.errors import ConfigError

GUARD = 'put what asks for workers below `if __name__ == "__main__":`'


def check_not_reread() -> None:
    """Refuse to ask for workers in a worker that only reads the script, or each would ask for more.

    Raises:
        ConfigError: this is such a process.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # by which `spawn` itself knows it
        raise ConfigError(
            "a worker process reads the script that started it, and got to a line there that asks for "
            f"workers; only the first process may: {GUARD}"
        )
