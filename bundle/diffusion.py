"""Noise path, prediction targets and the few-step sampler: pure functions of tensors.

Time runs from 0 (clean) to 1 (pure noise) on the variance-preserving cosine path
``z_t = alpha(t) z_0 + sigma(t) eps``, ``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)``, so the signal-to-noise
ratio at ``t = 1`` is exactly zero (Lin et al., WACV 2024). The network predicts ``v = alpha eps - sigma z_0``
(Salimans and Ho, ICLR 2022), unless told to predict the noise or the clean latent. At ``t = 1`` that is ``-z_0``
whatever the noise is: with zero noise there ("temperature 0") the diffusion model is a regression, its best
prediction the posterior mean.
"""

import math

import torch
from torch import Tensor


def alpha_sigma(t: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise amplitudes at times ``t`` of shape ``(B,)``, shaped ``(B, 1, 1, 1, 1)`` to multiply volumes."""
    angle = (t * (math.pi / 2)).reshape(-1, 1, 1, 1, 1)
    return torch.cos(angle), torch.sin(angle)


def add_noise(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """``z_t`` of the path at times ``t``."""
    alpha, sigma = alpha_sigma(t)
    return alpha * clean + sigma * noise


def prediction_target(prediction: str, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the network is trained to say: ``v``, the noise (``epsilon``) or the clean latent (``sample``)."""
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return clean
    alpha, sigma = alpha_sigma(t)
    return alpha * noise - sigma * clean


def clean_from_prediction(prediction: str, noisy: Tensor, output: Tensor, t: Tensor) -> Tensor:
    """``z_0``: ``alpha z_t - sigma v``, ``(z_t - sigma eps) / alpha``, or the output itself."""
    if prediction == "sample":
        return output
    alpha, sigma = alpha_sigma(t)
    if prediction == "epsilon":
        return (noisy - sigma * output) / alpha
    return alpha * noisy - sigma * output


def step(noisy: Tensor, clean: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Deterministic (DDIM, Song et al. 2021) step from time ``t`` to ``s < t``, given the predicted clean latent.

    The noise that the prediction implies, ``(z_t - alpha_t z_0) / sigma_t``, is put back at time ``s``.
    """
    alpha_t, sigma_t = alpha_sigma(t)
    alpha_s, sigma_s = alpha_sigma(s)
    return alpha_s * clean + sigma_s * (noisy - alpha_t * clean) / sigma_t


def clean_of_step(noisy: Tensor, result: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The clean latent with which one :func:`step` from time ``t`` to ``s < t`` gives ``result``."""
    alpha_t, sigma_t = alpha_sigma(t)
    alpha_s, sigma_s = alpha_sigma(s)
    ratio = sigma_s / sigma_t
    return (result - ratio * noisy) / (alpha_s - ratio * alpha_t)


def sampling_times(steps: int, start: float = 1.0) -> list[float]:
    """``steps + 1`` times from ``start`` to 0, evenly spaced."""
    return [start * (1.0 - i / steps) for i in range(steps + 1)]


def start_time(prediction: str) -> float:
    """Where sampling begins: pure noise, but just before it where the noise is predicted, since ``alpha`` divides."""
    return 0.98 if prediction == "epsilon" else 1.0
