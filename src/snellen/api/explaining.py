"""Why a model says what it says of images, as far as that can be shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.api.opening import Opened, open_model
from snellen.api.places import cache_of, check_place
from snellen.api.using import Run
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError, DataError, did_you_mean
from snellen.core.files import write_bytes, write_json
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from snellen.explain.explainer import Explainer
    from snellen.explain.explanation import Explanation
    from snellen.predict.images import SourceImage
    from snellen.predict.sources import Images
    from snellen.tasks.loading import LoadedModel

WAYS = ("grad-cam", "occlusion", "features", "filters")

_PATCHES_FROM = 200  # of a run's own images: enough for eight that excite a channel


def explain(  # noqa: PLR0913  (each of them is a setting)
    run: str | Path | Run,
    images: str | Path | Iterable[str | Path] = (),
    *,
    how: str = "grad-cam",
    of: str | None = None,
    patch: int | None = None,
    stride: int | None = None,
    fill: str | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    console: Console | None = None,
) -> list[Explanation]:
    """What the answers for some images hang on, as maps over them; or what the network's channels answer to.

    run     a run, or (for 'occlusion') what was exported from one
    images  as for ``snellen.predict``; for 'filters' the images that patches are taken from, by default the run's own
            validation images
    how     'grad-cam'   the places of the last feature map that the answer hangs on, by its slope
            'occlusion'  how far the answer falls while a patch hides one place after another: slower, and asks nothing
                         but answers
            'features'   the channels that answer most to an image, at a few depths
            'filters'    the first layer's filters, and the patches of photographs that excite some channels most
    of      the class, or the number, to explain; by default what the model says
    patch, stride, fill  of 'occlusion': the square's side and step in pixels of the image on disk, and whether it shows
            a 'blur' of the image or 'grey'
    out     a folder for a picture of each and explanations.json

    Each map holds its pixels: some 5 MB for an image. An image that cannot be read, or shows nothing of what was asked,
    has an ``error``. A map shows where a change would move the answer, not why the model answers so; its ``deletion``
    says whether it shows more than chance. Raises SnellenError.
    """
    asked = _checked(how, of, {"patch": patch, "stride": stride, "fill": fill})
    Config.of(data="any", device=device, seed=seed)
    if out is not None:
        check_place(out)
    found = _images(images, needed=how != "filters")
    console = console or Console()
    opened = open_model(Path(run.path if isinstance(run, Run) else run), device=device)
    shelf = None if out is None else _Shelf(Path(out), console)
    if how == "filters":
        return _filters(opened, found, shelf, console)
    assert found is not None
    return _maps(_explainer(opened, how, of, asked), found, shelf, console)


def _maps(explainer: Explainer, images: Images, shelf: _Shelf | None, console: Console) -> list[Explanation]:
    cost = explainer.cost(images)
    if cost:
        console.say(f"A patch hides {cost:,} places in all: as many answers, and 30 more for the check of each map.")
    made: list[Explanation] = []
    with console.progress("Explaining", images.total) as advance:
        for number, (image, explanations) in enumerate(explainer.explanations(images), start=1):
            made += explanations
            if shelf is not None:
                shelf.put(image.place, explanations)
            advance(number, images.total or 0)
    if shelf is not None:
        shelf.close()
    return made


def _filters(opened: Opened, images: Images | None, shelf: _Shelf | None, console: Console) -> list[Explanation]:
    from snellen.explain.filters import filters_of, patches_of

    [model, *_] = _networks(opened, "filters")
    shown = _own_images(opened, console) if images is None else images
    first = filters_of(model)
    made = [*([] if first is None else [first]), *patches_of(model, shown)]
    if shelf is not None:
        shelf.put("", made)
        shelf.close()
    return made


def _networks(opened: Opened, how: str) -> Sequence[LoadedModel]:
    """Raises ConfigError where there are answers alone."""
    if not opened.networks:
        raise ConfigError(
            f"how = '{how}' looks into a network, and an exported model gives answers alone: use "
            "how = 'occlusion', or the run that it was exported from"
        )
    return opened.networks


def _explainer(opened: Opened, how: str, of: str | None, settings: dict[str, Any]) -> Explainer:
    from snellen.explain.explainer import Explainer
    from snellen.explain.occlusion import Patch

    if how == "occlusion":
        return Explainer.by_occlusion(opened.answering, of, Patch(**settings))
    if how == "features":
        return Explainer.by_features(_networks(opened, how)[0])
    return Explainer.by_grad_cam(_networks(opened, how), opened.answering, of)


def _own_images(opened: Opened, console: Console) -> list[SourceImage]:
    """Validation images of the run, spread over all of them."""
    from snellen.evaluate import own_sides
    from snellen.predict.images import ImageFile

    assert opened.folder is not None
    runs = [RunFolder(path.parents[1]) for path in opened.folder.models()]  # of a cross-validation, the first fold
    sides = own_sides(runs[0], cache_of(runs[0].config), console, ("val",))
    records = next(iter(sides.values()), [])
    if not records:
        raise DataError(f"{opened.path} has no validation images: name images to take patches from")
    step = max(1, -(-len(records) // _PATCHES_FROM))
    return [ImageFile(record.path, record.id) for record in records[::step]]


class _Shelf:
    """A folder of pictures, one of each explanation, and explanations.json, which is written at the end."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder, self._console = folder, console
        self._told: list[dict[str, Any]] = []
        self._names: set[str] = set()

    def put(self, place: str, explanations: Sequence[Explanation]) -> None:
        """``place``: what the pictures are called, before what they are of; unique."""
        from snellen.explain.explanation import png

        for each in explanations:
            fields = each.to_json()
            if each.error is None:
                name = self._free(f"{place}-{each.how}-{_as_name(each.of)}".lstrip("-"))
                (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(self._folder / name, png(each.picture()))
                fields["picture"] = name
            self._told.append(fields)

    def close(self) -> None:
        from snellen.explain.explanation import MEANING

        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / "explanations.json", {"meaning": MEANING, "explanations": self._told})

    def _free(self, stem: str) -> str:
        names = (f"{stem}.png" if number == 1 else f"{stem}-{number}.png" for number in count(1))
        name = next(name for name in names if name.casefold() not in self._names)
        self._names.add(name.casefold())
        return name


def _as_name(of: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in of)[:60]


def _checked(how: str, of: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of an occlusion that were given. Raises ConfigError for what does not fit ``how``."""
    if how not in WAYS:
        raise ConfigError(f"how = '{how}' is not known{did_you_mean(how, WAYS)}")
    given = {name: value for name, value in settings.items() if value is not None}
    if given and how != "occlusion":
        raise ConfigError(f"{next(iter(given))} is a setting of how = 'occlusion' alone: leave it out")
    if of is not None and how in ("features", "filters"):
        raise ConfigError(f"of names a class, and how = '{how}' is about none: leave it out")
    if "patch" in given:
        given["side"] = given.pop("patch")
    if "fill" in given:
        from snellen.explain.scene import check_fill

        check_fill(given["fill"])
    return given


def _images(images: str | Path | Iterable[str | Path], *, needed: bool) -> Images | None:
    from snellen.predict.sources import Images

    given = [images] if isinstance(images, str | Path) else list(images)
    return Images(given) if given or needed else None
