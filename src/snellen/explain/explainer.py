"""Images in, explanations out: one after another, broken ones named and passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from snellen.core.errors import DataError, ImageError
from snellen.core.geometry import Size
from snellen.data.store import frame_of
from snellen.explain.asked import check_class
from snellen.explain.explanation import Explanation
from snellen.explain.occlusion import Patch, num_places, occlusion_of
from snellen.explain.scene import Pixels
from snellen.predict.answering import Answering
from snellen.predict.images import SourceImage
from snellen.tasks.loading import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class Explainer:
    """One way of explaining what a model says of images.

    how       'grad-cam', 'occlusion' or 'features'
    min_side  as in ``Answering``
    explain   pixels, the size on disk, and a name -> explanations
    places    of an image of some size, how many answers its map takes beside its check; None: next to none
    """

    how: str
    min_side: int | None
    explain: Callable[[Pixels, Size, str], list[Explanation]]
    places: Callable[[Size], int] | None = None

    @classmethod
    def by_grad_cam(cls, members: Sequence[LoadedModel], answering: Answering, of: str | None = None) -> Explainer:
        """``members``: the model, or those of an ensemble. Raises ConfigError for an unknown class; for a network
        without maps when it is used."""
        from snellen.explain.grad_cam import grad_cam_of

        check_class(answering.task, of)

        def explain(pixels: Pixels, size: Size, name: str) -> list[Explanation]:
            return grad_cam_of(members, pixels, size=size, of=of, path=name, answering=answering)

        return cls("grad-cam", answering.min_side, explain)

    @classmethod
    def by_occlusion(cls, answering: Answering, of: str | None = None, patch: Patch | None = None) -> Explainer:
        """Raises ConfigError for an unknown class."""
        check_class(answering.task, of)
        chosen = patch or Patch()

        def explain(pixels: Pixels, size: Size, name: str) -> list[Explanation]:
            return occlusion_of(answering, pixels, size=size, of=of, patch=chosen, path=name)

        def places(size: Size) -> int:
            return num_places(frame_of(size, answering.preprocessing), chosen)

        return cls("occlusion", answering.min_side, explain, places)

    @classmethod
    def by_features(cls, model: LoadedModel) -> Explainer:
        from snellen.explain.channels import channels_of

        def explain(pixels: Pixels, size: Size, name: str) -> list[Explanation]:
            return [channels_of(model, pixels, size=size, path=name)]

        return cls("features", model.plan.preprocessing.decode_min_side, explain)

    def explanations(self, images: Iterable[SourceImage]) -> Iterator[tuple[SourceImage, list[Explanation]]]:
        """Of one image after another; one that cannot be read, or shows nothing of what was asked, has an ``error``.

        Raises ConfigError where the model cannot be explained in this way.
        """
        for image in images:
            try:
                size, pixels = image.read(self.min_side)
                yield image, self.explain(pixels, size, image.name)
            except DataError as error:
                yield image, [Explanation(path=image.name, how=self.how, error=str(error))]

    def cost(self, images: Iterable[SourceImage]) -> int:
        """Answers that ``explanations`` will ask for, beside checks; files that cannot be read cost nothing."""
        if self.places is None:
            return 0
        total = 0
        for image in images:
            try:
                total += self.places(image.size())
            except ImageError:
                continue
        return total
