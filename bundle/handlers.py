"""Ignite handlers for training."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter

from .engines.diffusion import fit_residual_std, unmeasured
from .engines.distillation import DistillationStep
from .networks.experts import EXPERTS
from .studies.budget import CpuBudget


class Resume:
    """Checkpoint every few epochs, and go on from it when the same command is started again.

    Writes ``checkpoint.pt`` (everything in ``state`` plus the epoch) and ``model.pt`` (the weights to ship) under a
    temporary name first, so that a killed run leaves a whole file. Attach it after what changes the state at the end
    of an epoch, such as a learning-rate schedule.

    Args:
        state: name to object with ``state_dict`` and ``load_state_dict``.
        weights: module whose state is ``model.pt``.
        folder: where to write.
        every: epochs between checkpoints.
    """

    def __init__(self, state: Mapping[str, object], weights: torch.nn.Module, folder: str, every: int = 5) -> None:
        self.state, self.weights, self.folder, self.every = state, weights, Path(folder), every

    def attach(self, engine: Engine) -> None:
        """Register loading at the start, saving at every ``every``-th epoch and at the end."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every) | Events.COMPLETED, self.save)

    def load(self, engine: Engine) -> None:
        """Take up the checkpoint, if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in self.state.items():
            part.load_state_dict(saved[name])
        if saved["max_epochs"] != engine.state.max_epochs:
            now, then = engine.state.max_epochs, saved["max_epochs"]
            raise SystemExit(f"error: {path}: made with --max_epochs {then}, not {now}; choose another --output_dir")
        torch.manual_seed(torch.initial_seed() + saved["epoch"])  # not the crops and noise of the first epoch again
        engine.state.epoch = saved["epoch"]
        engine.state.iteration = saved["epoch"] * engine.state.epoch_length
        engine.logger.info(f"going on from {path} after epoch {saved['epoch']}")

    def save(self, engine: Engine) -> None:
        """Write both files, in the first of several processes."""
        if idist.get_rank() > 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        parts = {name: part.state_dict() for name, part in self.state.items()}
        _write(
            self.folder / "checkpoint.pt", {**parts, "epoch": engine.state.epoch, "max_epochs": engine.state.max_epochs}
        )
        _write(self.folder / "model.pt", {k: v.detach().cpu().clone() for k, v in self.weights.state_dict().items()})


def _write(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


class FitResidualStd:
    """Measure the residual's scale on the training set before the first step of a fresh run (see ``fit_residual_std``).

    Args:
        network: SuperResolver to set; its buffer of ones means "not measured".
        loader: training data.
        batches: batches to measure.
        source: SuperResolver whose scale is taken instead, such as the teacher of a distillation.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        loader: torch.utils.data.DataLoader,
        batches: int = 50,
        source: torch.nn.Module | None = None,
    ) -> None:
        self.network, self.loader, self.batches, self.source = network, loader, batches, source

    def attach(self, engine: Engine) -> None:
        """Register after any loading of a checkpoint."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        if self.source is not None:
            self.network.residual_std.copy_(self.source.residual_std)
            return
        new = unmeasured(self.network)
        if new:
            fit_residual_std(self.network, self.loader, self.batches)
            engine.logger.info(f"residual std per subband: {self.network.residual_std[new[0], 0].tolist()}")


class StageSchedule:
    """Lead a distillation through its stages, by the share of the epochs that is done; the log says where it stands.

    The stage follows from the epoch alone, or from a budget that a checkpoint holds, so a run that is resumed goes on
    in the same one.

    Args:
        step: whose stages these are.
        budget: of processor time, whose share that is spent counts in place of that of the epochs.
    """

    def __init__(self, step: DistillationStep, budget: CpuBudget | None = None) -> None:
        self.step, self.budget, self.index = step, budget, -1

    def attach(self, engine: Engine) -> None:
        """Register before every epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        stages, done = self.step.stages, (engine.state.epoch - 1) / engine.state.max_epochs
        if self.budget is not None:
            done = self.budget.spent / self.budget.seconds
        index = next((i for i, stage in enumerate(stages) if done < stage.until), len(stages) - 1)
        if index != self.index:
            self.index = index
            self.step.enter(index)
            stage = stages[index]
            how = f"strength {stage.strength:g}, {stage.steps} of the teacher's {self.step.teacher_steps} steps"
            engine.logger.info(
                f"stage {index + 1} of {len(stages)}, {stage.name!r}, from epoch {engine.state.epoch}: "
                + (how if stage.teacher else "the truth alone")
            )


class GateWatch:
    """Watch the gate of a mixture of experts: a line in the log every epoch, and a warning on collapse.

    A gate has collapsed when one expert has nearly everything, averaged over an epoch: the others then learn nothing.

    Args:
        limit: mean share of one expert above which it warns.
        names: of the experts.
    """

    def __init__(self, limit: float = 0.9, names: Sequence[str] = EXPERTS) -> None:
        self.limit, self.names = limit, tuple(names)
        self.seen: list[Mapping] = []

    def attach(self, engine: Engine) -> None:
        """Register on every iteration and the end of every epoch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def collect(self, engine: Engine) -> None:
        """Keep what :class:`bundle.engines.experts.MixtureStep` says of one iteration."""
        self.seen.append(engine.state.mixture)

    def report(self, engine: Engine) -> None:
        """Log the epoch."""
        shares = [sum(row) / len(self.seen) for row in zip(*(s["shares"] for s in self.seen), strict=True)]
        said = {name for seen in self.seen for name in seen} - {"shares"}
        terms = {name: [s[name] for s in self.seen if name in s] for name in sorted(said)}
        self.seen = []
        line = [f"{name} {share:.3f}" for name, share in zip(self.names, shares, strict=True)]
        line += [f"{name} {sum(values) / len(values):.3g}" for name, values in terms.items()]
        engine.logger.info(f"gate: {', '.join(line)}")
        if max(shares) > self.limit:
            engine.logger.warning(
                f"the gate has collapsed: {self.names[shares.index(max(shares))]!r} has {max(shares):.0%} of all "
                f"shares in epoch {engine.state.epoch}, above {self.limit:.0%}; raise the weight of 'balance'"
            )


class TrainingLog:
    """One line per epoch, and the same numbers in TensorBoard: loss, learning rate, speed, waiting, last validation.

    Args:
        folder: of the TensorBoard event files.
        validator: engine whose last metrics are logged, or None.
    """

    def __init__(self, folder: str, validator: Engine | None = None) -> None:
        self.folder, self.validator = folder, validator
        self.writer = None
        self.losses: list[float] = []
        self.waited, self.began, self.epoch_began = 0.0, 0.0, 0.0

    def attach(self, engine: Engine) -> None:
        """Register on every epoch, iteration and wait for a batch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.wait)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self.got)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def start(self, engine: Engine) -> None:
        """Begin an epoch."""
        self.losses, self.waited, self.epoch_began = [], 0.0, time.perf_counter()

    def wait(self, engine: Engine) -> None:
        """The trainer asks for a batch."""
        self.began = time.perf_counter()

    def got(self, engine: Engine) -> None:
        """The trainer has its batch."""
        self.waited += time.perf_counter() - self.began

    def collect(self, engine: Engine) -> None:
        """Keep the loss of one iteration; leave it as MONAI's own steps do, for its trackers that come later."""
        self.losses.append(float(engine.state.output["loss"]))
        engine.state.output = [engine.state.output]

    def report(self, engine: Engine) -> None:
        """Log the epoch."""
        seconds = time.perf_counter() - self.epoch_began
        values = {
            "loss": idist.all_reduce(sum(self.losses) / max(1, len(self.losses))) / idist.get_world_size(),
            "learning_rate": engine.optimizer.param_groups[0]["lr"],
            "iterations_per_second": len(self.losses) / seconds,
            "waited_for_data": self.waited / seconds,
        }
        if self.validator is not None and self.validator.state.epoch and self.validator.state.metrics:
            values.update({f"val_{k}": float(v) for k, v in self.validator.state.metrics.items()})
        if idist.get_rank() > 0:
            return
        if self.writer is None:
            self.writer = SummaryWriter(self.folder)
        for name, value in values.items():
            self.writer.add_scalar(name, value, engine.state.epoch)
        line = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        engine.logger.info(f"epoch {engine.state.epoch}/{engine.state.max_epochs} {line}")

    def close(self, engine: Engine) -> None:
        """Flush TensorBoard."""
        if self.writer is not None:
            self.writer.close()
