"""A finished run, and what its model says: of labelled data, in numbers; of new images, one by one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.api.places import cache_of, check_place
from snellen.api.results import Evaluation
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError
from snellen.core.estimate import Estimate
from snellen.core.files import write_json
from snellen.core.finding import Finding
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from snellen.predict.prediction import Prediction


class Run:
    """A finished (or stopped) training run, or a cross-validation. A notebook shows it with its numbers."""

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder.open(Path(path))

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def status(self) -> str:
        return self.folder.status

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def verdict(self) -> str:
        return str(self.folder.read_json("results.json")["verdict"])

    @property
    def findings(self) -> list[Finding]:
        return self.folder.findings

    @property
    def metrics(self) -> dict[str, dict[str, Estimate]]:
        """By split, then by metric."""
        splits = self.folder.read_json("results.json")["splits"]
        return {split: {name: Estimate.from_json(e) for name, e in sides.items()} for split, sides in splits.items()}

    def predict(
        self,
        images: str | Path | Iterable[str | Path],
        *,
        tile: int | str | tuple[int, int] | None = None,
        tile_overlap: float | None = None,
        tile_merge: str | None = None,
        every: int = 1,
    ) -> list[Prediction]:
        """As ``snellen.predict``, which also writes files of them."""
        from snellen.api.predicting import predict

        return predict(self.path, images, every=every, tile=tile, tile_overlap=tile_overlap, tile_merge=tile_merge)

    def to_json(self) -> dict[str, Any]:
        results = self.folder.read_json("results.json", missing={})
        keys = ("headline", "verdict", "shipped", "best_epoch", "ended", "seconds", "splits", "baselines", "folds")
        return {
            "run": str(self.path),
            "status": self.status,
            "report": str(self.report),
            **{key: results[key] for key in keys if key in results},
            "findings": [finding.to_json() for finding in self.findings],
        }

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status})"

    def _repr_html_(self) -> str:
        from snellen.report.notebook import run_as_html

        return run_as_html(self.path)


def evaluate(
    run: str | Path | Run,
    data: str | Path | None = None,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    console: Console | None = None,
) -> Evaluation:
    """Numbers with intervals for a run: on its own validation and test images, or on other labelled ``data``.

    A cross-validation answers with the ensemble of its fold models. ``out`` is a folder for evaluation.json; ``seed``
    is of the bootstrap. Raises SnellenError.
    """
    from snellen.ensemble import load_run
    from snellen.evaluate import evaluate_run

    if images is not None and data is None:
        raise ConfigError("images says where the images of other labelled data are: name that data as well")
    folder = _ready(run, device, seed, out)
    labelled = None if data is None else Config.of(data=str(data), images=None if images is None else str(images))
    cache = cache_of(labelled or folder.config)
    model = load_run(folder, device=device)
    numbers = evaluate_run(folder, labelled, model=model, seed=seed, cache=cache, console=console or Console())
    evaluation = Evaluation(str(folder.path), numbers)
    if out is not None:
        write_json(Path(out) / "evaluation.json", evaluation.to_json())
    return evaluation


def _ready(run: str | Path | Run, device: str, seed: int, out: str | Path | None) -> RunFolder:
    """The folder of a run that has a model. Raises SnellenError for it and for the other three, before any work."""
    Config.of(data="any", device=device, seed=seed)  # what is shared with training is checked as there
    folder = (run if isinstance(run, Run) else Run(run)).folder
    folder.models()
    if out is not None:
        check_place(out)
    prepare_process()
    return folder
