"""Progressive distillation of a large teacher into a compact student, stage by stage."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from monai.engines import SupervisedTrainer
from monai.utils import CommonKeys
from torch import Tensor, nn
from torch.nn import functional as F

from ..compute import autocast
from ..diffusion import add_noise, clean_of_step, step
from ..distributed import average_gradients
from ..networks.denoiser import Denoiser
from ..networks.super_resolver import SuperResolver
from .diffusion import DiffusionStep

_KEYS, _MORE = ("image", "label", "condition", "context", "cells"), ("fields", "own_context")


class Stage(NamedTuple):
    """A stage of the distillation.

    Attributes:
        name: for the log.
        until: share of the run's epochs at which it ends; the last stage's is 1.
        strength: where the student's target lies between the input (0) and the teacher's result (1).
        steps: denoising steps of the student, a divisor of the teacher's; each does the work of several of these.
        teacher: whether the teacher is asked; where it isn't, the student learns from the truth alone.
    """

    name: str
    until: float
    strength: float = 1.0
    steps: int = 1
    teacher: bool = True


def parse_stages(stages: Sequence[Mapping], teacher_steps: int) -> list[Stage]:
    """Stages as a config writes them, checked.

    Raises:
        ValueError: unknown or missing entries, ends that don't rise to 1, steps that don't divide the teacher's.
    """
    try:
        result = [Stage(**stage) for stage in stages]
    except TypeError as error:
        raise ValueError(f"stages: {error}; a stage has {', '.join(Stage._fields)}") from None
    ends = [stage.until for stage in result]
    if not result or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
        raise ValueError(f"stages end at {ends}; 'until' must rise from above 0 to 1")
    for stage in result:
        if stage.steps < 1 or teacher_steps % stage.steps or not 0 < stage.strength <= 1:
            raise ValueError(f"stage {stage.name!r}: steps divide {teacher_steps}, strength lies in (0, 1]")
    return result


class FeatureProjections(nn.ModuleList):
    """One 1x1x1 convolution per scale from the student's channels to the teacher's; of no use after the training."""

    def __init__(self, student: SuperResolver, teacher: SuperResolver) -> None:
        pairs = zip(student.denoiser.widths[::-1], teacher.denoiser.widths[::-1], strict=True)
        super().__init__(nn.Conv3d(s, t, 1) for s, t in pairs)
        self.to(student.residual_std.device)


@contextmanager
def tapped(denoiser: Denoiser) -> Iterator[list[Tensor]]:
    """While open, the list gathers the last features of every scale, coarsest first, of every pass."""
    found: list[Tensor] = []
    taps = [b.register_forward_hook(lambda _m, _i, output: found.append(output)) for b in denoiser.last_blocks()]
    try:
        yield found
    finally:
        for tap in taps:
            tap.remove()


class Lesson(NamedTuple):
    """A batch for the student, its input, times, condition and what of the head it sees; what the teacher says of it.

    ``noisy`` and ``target`` are normalised latents (B, 8, ...), ``clean`` that of the truth; the first ``fixed`` rows
    are at temperature 0. ``features`` are one tensor per scale, ``fields`` guidance maps, for what is guided: where the
    teacher is and the student is not they are privileged information (Vapnik and Vashist, Neural Networks 2009).
    """

    low: Tensor
    noisy: Tensor
    t: Tensor
    condition: Tensor
    context: Tensor
    cells: Tensor
    clean: Tensor
    target: Tensor
    features: list[Tensor]
    fixed: int
    fields: Tensor | None = None


class DistillationStep:
    """Optimisation of a student by a frozen teacher: the ``iteration_update`` of a SupervisedTrainer.

        L = alpha (|y_s - y_t|_1 + I(x_s, x_t)) + beta mean_k |P_k f_s,k - f_t,k|^2 / |f_t,k|^2
            + truth (|y_s - y|^2 + I(x_s, x))

    ``y`` are clean latents, normalised subband by subband, ``x`` their images, ``f_k`` the last features of scale
    ``k``, ``P_k`` the projections, ``I`` a loss of images, of what is at temperature 0 (the latents alone count the
    coarse subband, which holds the levels, as one of eight). A share of the batch is at temperature 0, where one step
    of the teacher gives its mean. The others start from the noisy truth at a time of the student's grid; the target is
    the clean latent from which one step of the student lands where several of the teacher do (Salimans and Ho, ICLR
    2022; the teacher stays the same through all stages, so errors do not pile up). In a stage of strength ``s`` every
    clean latent is ``s`` times the full one, that is, the image lies between the input and the result. A stage without
    the teacher is a :class:`bundle.engines.diffusion.DiffusionStep`, which costs no pass of the teacher.

    Args:
        teacher: its weights stay as they are.
        projections: of the features; their parameters belong to the optimiser too.
        stages: see :class:`Stage`; :class:`bundle.handlers.StageSchedule` sets which one is on.
        teacher_steps: denoising steps of the teacher.
        alpha: weight of the outputs.
        beta: weight of the features.
        truth: weight of the truth.
        image_loss: of two images (B, 1, D, H, W), or None.
        share: part of the batch at temperature 0.
        reuse: optimisation steps per batch; all but the first take up one of the last 16 batches again, with what
            the teacher said of it.
        amp: bf16 where it is fast.
        clip: largest norm of the gradient.

    Raises:
        ValueError: see :func:`parse_stages`; ``reuse`` below 1; a teacher that predicts the noise.
    """

    def __init__(
        self,
        teacher: SuperResolver,
        projections: FeatureProjections,
        stages: Sequence[Mapping],
        teacher_steps: int = 8,
        alpha: float = 0.5,
        beta: float = 0.5,
        truth: float = 0.0,
        image_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        share: float = 0.75,
        reuse: int = 1,
        amp: bool = True,
        clip: float = 1.0,
    ) -> None:
        if reuse < 1 or teacher.prediction == "epsilon":
            raise ValueError(f"reuse {reuse}: 1 or more; a teacher that predicts the noise has no temperature 0")
        self.teacher, self.projections = teacher.eval().requires_grad_(False), projections
        self.stages, self.teacher_steps = parse_stages(stages, teacher_steps), teacher_steps
        self.alpha, self.beta, self.truth = alpha, beta, truth
        self.image_loss, self.share = image_loss, share
        self.reuse, self.amp, self.clip = reuse, amp, clip
        self.alone = DiffusionStep(share, image_loss, amp, clip)
        self.past: deque[Lesson] = deque(maxlen=16)
        self.enter(0)

    def enter(self, index: int) -> None:
        """Begin a stage; lessons of an earlier one are over."""
        self.stage = self.stages[index]
        self.past.clear()

    def __call__(self, engine: SupervisedTrainer, batch: dict[str, Tensor]) -> dict:
        if not self.stage.teacher:
            return self.alone(engine, batch)
        given = {k: torch.as_tensor(batch[k]).to(engine.state.device) for k in (*_KEYS, *_MORE) if k in batch}
        lesson = self.ask(*(given[k] for k in _KEYS), *(given.get(k) for k in _MORE))
        losses = [self._learn(engine, lesson)]
        self.past.append(lesson)
        losses += [self._learn(engine, random.choice(self.past)) for _ in range(self.reuse - 1)]
        return {CommonKeys.LOSS: sum(losses) / len(losses)}

    @torch.no_grad()
    def ask(
        self,
        low: Tensor,
        high: Tensor,
        condition: Tensor,
        view: Tensor,
        cells: Tensor,
        fields: Tensor | None = None,
        own_view: Tensor | None = None,
    ) -> Lesson:
        """What the teacher says of a batch at random times of the student's grid.

        Args:
            low, high: (B, 1, D, H, W).
            condition: (B, 6).
            view: coarse view of the heads.
            cells: surround of the tiles.
            fields: guidance maps, or None.
            own_view: the view for the teacher, where the student's is drawn at random; None for the same.
        """
        clean, latent = self.teacher.encode_residual(low, high, condition), self.teacher.latent.encode(low)
        steps = self.stage.steps
        t = (torch.randint(steps, (len(low),), device=low.device) + 1) / steps
        noise = torch.randn_like(clean)
        fixed = int(self.share * len(low) + torch.rand(()))
        t[:fixed], noise[:fixed] = 1.0, 0.0
        noisy = add_noise(clean, noise, t)
        with autocast(low.device, self.amp):
            context = self.teacher.context(view if own_view is None else own_view)
            guidance = self.teacher.guidance(low, cells, context, condition, fields)
            with tapped(self.teacher.denoiser) as features:
                target = self._clean(latent, noisy, t, condition, guidance)
            rows = torch.arange(len(low), device=low.device) >= fixed
            if rows.any():
                target[rows] = self._walk(latent, noisy, t, condition, guidance, target, rows)
        weaker = self.stage.strength
        shown = add_noise(weaker * clean, noise, t)
        return Lesson(low, shown, t, condition, view, cells, weaker * clean, weaker * target, features, fixed, fields)

    def _clean(self, latent: Tensor, noisy: Tensor, t: Tensor, condition: Tensor, guidance: tuple) -> Tensor:
        output = self.teacher.denoiser(noisy, latent, t, condition, *guidance).float()
        return self.teacher.clean(noisy, output, t)

    def _walk(
        self,
        latent: Tensor,
        noisy: Tensor,
        t: Tensor,
        condition: Tensor,
        guidance: tuple,
        first: Tensor,
        rows: Tensor,
    ) -> Tensor:
        """The clean latent that one step of the student has to mean in some rows; ``first`` is the teacher's own."""
        prior, maps = guidance
        latent, noisy, t, condition, clean = (x[rows] for x in (latent, noisy, t, condition, first))
        guidance = None if prior is None else prior[rows], None if maps is None else [m[rows] for m in maps]
        count = self.teacher_steps // self.stage.steps
        now, z = t, noisy
        for index in range(1, count + 1):
            then = (t - index / self.teacher_steps).clamp_min(0)
            z = step(z, clean, now, then)
            now = then
            if index < count:
                clean = self._clean(latent, z, now, condition, guidance)
        return clean_of_step(noisy, z, t, now)

    def _learn(self, engine: SupervisedTrainer, lesson: Lesson) -> float:
        """One step of the optimiser."""
        network = engine.network.train()
        engine.optimizer.zero_grad(set_to_none=True)
        low, noisy, t, condition = lesson.low, lesson.noisy, lesson.t, lesson.condition
        with autocast(low.device, self.amp), tapped(network.denoiser) as features:
            told = network.context(lesson.context), condition, lesson.cells, lesson.fields
            output = network.predict(low, noisy, t, *told).float()
            projected = [p(f) for p, f in zip(self.projections, features, strict=True)]
        clean = network.clean(noisy, output, t)
        loss = self.alpha * F.l1_loss(clean, lesson.target) + self.truth * F.mse_loss(clean, lesson.clean)
        if self.image_loss is not None and lesson.fixed:
            n, latents = lesson.fixed, (clean, lesson.target, lesson.clean)
            found, taught, true = (network.decode_residual(low[:n], z[:n], condition[:n]) for z in latents)
            loss = loss + self.alpha * self.image_loss(found, taught) + self.truth * self.image_loss(found, true)
        errors = [_relative_error(p.float(), f.float()) for p, f in zip(projected, lesson.features, strict=True)]
        loss = loss + self.beta * torch.stack(errors).mean()
        loss.backward()
        parameters = [*network.parameters(), *self.projections.parameters()]
        average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], self.clip)
        engine.optimizer.step()
        return loss.item()


def _relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error over the mean square of what is wanted."""
    return F.mse_loss(found, wanted) / wanted.square().mean().clamp_min(1e-8)
