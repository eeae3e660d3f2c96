"""What answers for images, opened from a run or from what was exported from one: one place for all verbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.core.config import Config
from snellen.core.errors import ConfigError
from snellen.core.files import sha256_of_file
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from snellen.export.artifact import ArtifactAnswering
    from snellen.predict.answering import Answering
    from snellen.tasks.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class Opened:
    """path       of the run or the artifact
    answering  what answers
    networks   behind it, where they are in this process; none behind an artifact
    folder     of the run; None for an artifact
    notes      what should be known of the answers
    """

    path: Path
    answering: Answering
    networks: Sequence[LoadedModel]
    folder: RunFolder | None
    notes: Sequence[str] = ()

    def identity(self) -> dict[str, Any]:
        """What its answers follow from: the weights, by their content."""
        return {"run": str(self.path.absolute()), "models": [sha256_of_file(path) for path in self._files()]}

    def _files(self) -> list[Path]:
        if self.folder is not None:
            return self.folder.models()
        return [self.path] if self.path.is_file() else sorted(self.path.glob("model.*"))


def open_model(path: Path, *, device: str = "auto", tta: str | None = None, shared: bool = False) -> Opened:
    """``tta``: the views of test-time augmentation, as in ``predict.views``; ``shared``: several threads are to ask an
    exported model at once. Raises SnellenError."""
    Config.of(data="any", device=device)  # checked as in training
    if is_exported(path):
        if tta is not None:
            raise ConfigError("tta looks at an image in ways that an exported model does not: give the run instead")
        if device not in ("auto", "cpu"):
            raise ConfigError(
                f"device = '{device}' is not for an exported model, which Snellen runs on the CPU: leave it out, or "
                "give the run instead"
            )
        return Opened(path, _artifact(path, shared), (), None)
    folder = RunFolder.open(path)
    folder.models()
    prepare_process()
    from snellen.ensemble import load_run
    from snellen.predict.answering import NetworkAnswering
    from snellen.tasks.loading import LoadedModel

    model = load_run(folder, device=device)
    if not isinstance(model, LoadedModel):
        if tta is not None:
            raise ConfigError("tta is for one model, and this is several: give one of its members")
        return Opened(path, model, model.members, folder)
    plain = NetworkAnswering(model)
    if tta is None:
        return Opened(path, plain, (model,), folder)
    from snellen.predict.views import Views

    views = Views(plain, tta)
    return Opened(path, views, (model,), folder, views.warnings)


def check_is_model(path: Path) -> None:
    """Before anything long begins. Raises RunError for what is neither a run with a model nor an artifact."""
    if not is_exported(path):
        RunFolder.open(path).models()


def is_exported(path: Path) -> bool:
    """Whether it is what ``snellen export`` wrote, and no run."""
    from snellen.export.artifact import is_artifact

    return not (path / "STATUS").is_file() and is_artifact(path)


def _artifact(path: Path, shared: bool) -> ArtifactAnswering:
    from snellen.export.artifact import open_artifact

    return open_artifact(path, shared=shared)
