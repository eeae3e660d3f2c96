"""A backbone seen as stages, from the input to the output: what is frozen, what learns slower, whose features are read.

A stage begins with each part that mixes channels (it holds a weight matrix or a convolution); norms, activations and
pooling belong to the stage before them. Parts are the backbone's children; while these are fewer than four, the
longest ``nn.Sequential`` among them is opened, or else the longest module that holds but a list of layers, as those of
transformers do. That finds the layers of a ResNet, the blocks of an EfficientNet or of a ViT, and the convolutions of a
VGG, without knowing any of them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_ENOUGH = 4  # stages: fewer say too little of where in the network something happens
Part = tuple[str, nn.Module]


def parameter_stages(backbone: nn.Module) -> dict[str, int]:
    """The stage of every parameter by its name, 0 at the input. Order is that of definition.

    That is the order of execution but for a few nets that keep their patch embeddings together (Twins, CoaT).

    Parameters beside all parts (class tokens, position embeddings) belong to stage 0: they enter at the input.
    """
    owner = {part: stage for stage, parts in enumerate(_stages(backbone)) for part, _ in parts}
    stages = {}
    for parameter, _ in backbone.named_parameters():
        names = parameter.split(".")
        prefixes = (".".join(names[:length]) for length in range(len(names) - 1, 0, -1))
        stages[parameter] = next((owner[prefix] for prefix in prefixes if prefix in owner), 0)
    return stages


def num_stages(backbone: nn.Module) -> int:
    """At least 1, also for a backbone without parameters."""
    return len(_stages(backbone))


def stage_modules(backbone: nn.Module) -> list[list[nn.Module]]:
    """The parts of each stage, in the order of execution, for those who look at what comes out of them."""
    return [[module for _, module in parts] for parts in _stages(backbone)]


def stage_features(backbone: nn.Module, x: Tensor, stages: Sequence[int] | None = None) -> dict[int, Tensor]:
    """Outputs of ``stages`` (default: all), averaged over positions or tokens, float [n, c], from a forward pass.

    The last stage's are what the backbone returns. Where the last is not asked for, the pass ends as soon as the
    others are known. A stage whose parts the backbone never calls as modules has the output of the stage before,
    and costs a second pass.
    """
    parts = _stages(backbone)
    wanted = range(len(parts)) if stages is None else [stage % len(parts) for stage in stages]
    found = _outputs(backbone, x, parts, set(wanted))
    if not found.keys() >= set(wanted):
        found = _outputs(backbone, x, parts, set(range(max(wanted) + 1)))
    return {stage: found[max(there for there in found if there <= stage)] for stage in wanted}


def _outputs(backbone: nn.Module, x: Tensor, parts: list[list[Part]], wanted: set[int]) -> dict[int, Tensor]:
    """Pooled outputs of the ``wanted`` stages; those that are never called as modules are missing."""
    last = len(parts) - 1
    found: dict[int, Tensor] = {}
    handles = []
    layout = str(getattr(backbone, "output_fmt", "NCHW")).upper().rpartition(".")[2]
    for stage in wanted - {last}:
        for _, module in parts[stage]:
            handles.append(module.register_forward_hook(_keep(found, stage, layout)))
    beyond = max(wanted) + 1
    if beyond <= last and not torch.compiler.is_compiling():  # a graph being recorded drops by itself what is not used
        handles.append(parts[beyond][0][1].register_forward_pre_hook(_stop))
    try:
        found[last] = _pooled(backbone(x), layout)
    except _EnoughSeen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found


def stage_width(backbone: nn.Module, stage: int, input_size: tuple[int, int]) -> int:
    """How many features the stage gives an image of ``input_size`` (width, height): found by one forward pass."""
    training = {module: module.training for module in backbone.modules()}
    backbone.eval()
    like = next(backbone.parameters())
    with torch.no_grad():
        width, height = input_size
        features = stage_features(backbone, like.new_zeros(1, 3, height, width), [stage])
    for module, mode in training.items():
        module.training = mode
    return next(iter(features.values())).shape[1]


class _EnoughSeen(Exception):
    """Ends a forward pass whose rest nobody asked for."""


def _stop(module: nn.Module, arguments: Any) -> None:
    raise _EnoughSeen


def _keep(found: dict[int, Tensor], stage: int, layout: str) -> Callable[[nn.Module, Any, Any], None]:
    """A hook; of several parts of a stage the one that runs last is kept."""

    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        found[stage] = _pooled(output, layout)

    return hook


def _pooled(output: Any, layout: str) -> Tensor:
    """[n, c, h, w] (or [n, h, w, c] where ``layout`` says so), tokens [n, t, c] or features [n, c] -> [n, c].

    Parallel branches, such as the resolutions of HRNet, are set side by side.
    """
    if isinstance(output, list | tuple):
        return torch.cat([_pooled(each, layout) for each in output if isinstance(each, Tensor)], 1)
    tensor: Tensor = output
    if tensor.dim() == 4:
        return tensor.mean((1, 2)) if layout == "NHWC" else tensor.mean((2, 3))
    return tensor.mean(1) if tensor.dim() == 3 else tensor.flatten(1)


def _stages(backbone: nn.Module) -> list[list[Part]]:
    """The parts of each stage; parts before the first that mixes channels belong to the first stage."""
    parts = _opened([("", backbone)], 0)
    while sum(_mixes(module) for _, module in parts) < _ENOUGH:
        longest = _longest_container(parts)
        if longest is None:
            break
        parts = _opened(parts, longest)
    stages: list[list[Part]] = [[]]
    begun = False
    for part in parts:
        if _mixes(part[1]):
            if begun:
                stages.append([])
            begun = True
        stages[-1].append(part)
    return stages


def _mixes(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _opened(parts: list[Part], index: int) -> list[Part]:
    """``parts`` with the children of one in its place. A bare ModuleList is opened too: nothing ever calls it."""
    name, module = parts[index]
    inside = [(f"{name}.{child}" if name else child, part) for child, part in module.named_children()]
    parts = [*parts[:index], *inside, *parts[index + 1 :]]
    for i, (_, part) in enumerate(parts):
        if isinstance(part, nn.ModuleList | nn.ModuleDict) and type(part).forward is nn.Module.forward:
            return _opened(parts, i)
    return parts


def _longest_container(parts: list[Part]) -> int | None:
    """What is opened next: an ``nn.Sequential``; a module of another kind only where all is in that one, or where all
    of its own is in a list."""
    lengths = [sum(map(_mixes, module.children())) for _, module in parts]
    containers = [i for i, (_, module) in enumerate(parts) if isinstance(module, nn.Sequential) and lengths[i] > 1]
    if containers:
        return max(containers, key=lambda i: lengths[i])
    weighty = [i for i, (_, module) in enumerate(parts) if _mixes(module)]
    if len(weighty) == 1 and lengths[weighty[0]]:
        return weighty[0]
    listed = {i: _length_of_list(parts[i][1]) for i in weighty}
    longest = max(listed, key=lambda i: listed[i], default=None)
    return longest if longest is not None and listed[longest] > 1 else None


def _length_of_list(module: nn.Module) -> int:
    """How many layers are in the list that is all there is to ``module``; 0 where there is more, or no list."""
    inside = [child for child in module.children() if _mixes(child)]
    return len(inside[0]) if len(inside) == 1 and isinstance(inside[0], nn.ModuleList) else 0
