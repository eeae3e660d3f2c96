"""``python -m snellen`` and the ``snellen`` command."""

from __future__ import annotations

import sys
import time

_STARTED = time.monotonic()


def main() -> None:
    try:
        from snellen.cli import run

        code = run(sys.argv[1:], started=_STARTED)
    except KeyboardInterrupt:  # before there was anyone to catch it
        code = 130
    from snellen.core.process import leave

    leave(code)


if __name__ == "__main__":
    main()
