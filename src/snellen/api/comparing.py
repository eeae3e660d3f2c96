"""The verb ``compare``: which of several runs is better, and whether that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snellen.api.places import check_place
from snellen.api.using import Run
from snellen.core.config import Config
from snellen.core.files import write_json

if TYPE_CHECKING:
    from snellen.compare.pairing import Comparison


def compare(
    *runs: str | Path | Run,
    versus: Sequence[str | Path | Run] = (),
    out: str | Path | None = None,
    seed: int = 0,
) -> Comparison:
    """Each of the ``runs`` against the first, on the images that both were judged on.

    versus  runs of a second arm: then ``runs`` are the first, and each arm is of runs that differ only in their seed
    out     a folder for compare.json and a report
    seed    of the bootstrap

    Test images where all have been judged on them, otherwise validation images. Raises SnellenError.
    """
    from snellen.compare.comparison import compare_arms, compare_runs

    Config.of(data="any", seed=seed)
    folders = [(run if isinstance(run, Run) else Run(run)).folder for run in (*runs, *versus)]
    if out is not None:
        check_place(out)
    first, second = folders[: len(runs)], folders[len(runs) :]
    comparison = compare_arms(first, second, seed=seed) if second else compare_runs(first, seed=seed)
    if out is not None:
        from snellen.report.compare import build_comparison_report

        write_json(Path(out) / "compare.json", comparison.to_json())
        build_comparison_report(Path(out))
    return comparison
