"""``python -m snellen`` and the ``snellen`` command."""

from __future__ import annotations

import sys
import time

_STARTED = time.monotonic()


def main() -> None:
    from snellen.cli import run

    sys.exit(run(sys.argv[1:], started=_STARTED))


if __name__ == "__main__":
    main()
