"""How a training run begins: with a plan that is written down, or one that is read back."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from torch import nn

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.device import available_cores
from snellen.core.errors import RunError
from snellen.core.files import write_text
from snellen.core.plan import Plan
from snellen.core.process import prepare_process
from snellen.core.run import RunFolder
from snellen.tasks.base import create_task
from snellen.train.build import build_network, sides_of
from snellen.train.environment import environment
from snellen.train.reading import TrainingData
from snellen.train.session import Session

_OPTIONS = {"augmentation": "augment"}  # where it is not the name in the plan
# The report has them all; these are rarely of interest, measured later, or settled with the evidence of the probe.
_UNSAID = {"train_precision", "channels_last", "dropout", "clip_norm", "warmup_steps", "frozen_stages", "layer_decay"}


def begin(
    run: RunFolder, config: Config, data: TrainingData, made: tuple[Plan, nn.Module], cache: Path, console: Console
) -> Session:
    """Write what makes the run resumable, before anything long begins, and say what is planned."""
    plan, model = made
    write_text(run.path / "config.toml", config.to_toml())
    run.write_json("plan.json", plan.to_json())
    run.write_json("environment.json", environment(plan, keeps_memory=prepare_process()))
    tell_plan(plan, console)
    return _session(run, config, data, plan, model, cache, console)


def resume(run: RunFolder, config: Config, data: TrainingData, cache: Path, console: Console) -> Session:
    """Raises RunError when the data is no longer what the run was started with."""
    session = reopen(run, config, data, cache, console)
    run.set_status("running")
    return session


def reopen(
    run: RunFolder, config: Config, data: TrainingData, cache: Path, console: Console, device: str | None = None
) -> Session:
    """A run as it was at its beginning, for whoever looks at it: nothing is written. Raises RunError as ``resume``.

    device  of this machine, in place of the one that the run was planned for
    """
    plan = run.plan if device is None else _moved(run.plan, device)
    if plan.data_digest != data.survey.manifest.digest:
        raise RunError(f"the data has changed since {run.path} was started: put it back, or train anew")
    model, _ = build_network(plan, create_task(plan.task, plan.classes))
    return _session(run, config, data, plan, model, cache, console)


def _moved(plan: Plan, device: str) -> Plan:
    """For another kind of processor: in single precision, since what was found to be fast and safe was so elsewhere."""
    if device.partition(":")[0] == plan.device.partition(":")[0]:
        return replace(plan, device=device)
    return replace(plan, device=device, threads=available_cores(), precision="fp32", train_precision="fp32")


def _session(
    run: RunFolder, config: Config, data: TrainingData, plan: Plan, model: nn.Module, cache: Path, console: Console
) -> Session:
    task = create_task(plan.task, plan.classes).configured(plan)
    sides = sides_of(data.survey, task, data.store)
    if not config.test:
        sides.pop("test", None)
    return Session(
        config=config,
        survey=data.survey,
        sides=sides,
        task=task,
        plan=plan,
        model=model,
        run=run,
        console=console,
        cache=cache,
    )


def tell_plan(plan: Plan, console: Console) -> None:
    """The choices that were made for the user, each with its reason and the option that changes it."""
    width, height = plan.preprocessing.input_size
    weights = f"{plan.weights_source} (licence: {plan.weights_license})" if plan.pretrained else "trained from scratch"
    console.say(f"Model: {plan.model} at {width} x {height} pixels, {weights}")
    chosen = {
        "model": plan.model,
        "input_size": str(width) if width == height else f"{width}x{height}",
        "fit": plan.preprocessing.fit,
    }
    told = []
    for name, reason in plan.reasons.items():
        if name in _UNSAID:
            continue
        value = chosen.get(name, getattr(plan, name, None))
        shown = f" {shlex.quote(str(value))}" if isinstance(value, str | int | float) else ""
        option = _OPTIONS.get(name, name)
        spelt = f"--{option.replace('_', '-')}" if option in Config.model_fields else name.replace("_", " ")
        told.append((f"{spelt}{shown}", reason))
    console.say("Chosen for you; an option overrides it:")
    wide = max((len(choice) for choice, _ in told), default=0)
    for choice, reason in told:
        console.say(f"  {choice:{wide}}  {reason}")
