"""A small scan with result and maps, as the main job hands them to the report."""

import numpy as np
import torch
from data import head
from monai.data import MetaTensor

from bundle.geometry import CanonicalAxes, Grid, resample, target_grid
from bundle.intensity import fit_intensity
from bundle.simulation.acquisition import Acquisition

LEFT = (slice(4, 9), slice(18, 24), slice(15, 21))  # of the canonical low volume: a bright spot on the patient's left


def make_item(path, contrast="input", maps=True, noise=5.0):
    """Item, prediction in the axes of an LPS file, and sidecar."""
    sharp = resample(torch.from_numpy(head((40, 44, 36)))[None], (80, 88, 72))
    low = Acquisition()(sharp, (40, 44, 36)) + noise * torch.randn(1, 40, 44, 36)
    low[(0, *LEFT)], sharp[(0, *(slice(2 * s.start, 2 * s.stop) for s in LEFT))] = 1500, 1500
    intensity = fit_intensity(low)
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    target = target_grid(Grid((40, 44, 36), affine), (1.0, 1.0, 1.0))
    axes = CanonicalAxes.of(affine)
    channels = [sharp, 20 + 0.05 * sharp] if maps else [sharp]
    pred = MetaTensor(axes.leave(torch.cat(channels)), affine=torch.from_numpy(target.affine))
    item = {
        "path": str(path),
        "source": MetaTensor(intensity.normalise(low)),
        "intensity": torch.tensor(intensity, dtype=torch.float64),
        "condition": torch.tensor([float(contrast == "7T"), 1.0, 0.0, 1.0, 1.0, 1.0]),
    }
    if maps:
        item["tissue"] = MetaTensor(axes.leave((sharp > 500).byte() * 4))
    sidecar = {
        "GeneratedBy": {"Name": "spcdd", "Version": "1", "Weights": "model.pt", "SHA256": "abc"},
        "Source": str(path),
        "Options": {"contrast": contrast, "device": None, "overwrite": True, "coefficients": f"{path}/coil.grad"},
        "Modality": "T1w",
        "Contrast": contrast,
        "SourceSpacing": [2.0, 2.0, 2.0],
        "Factors": [2.0, 2.0, 2.0],
        "Degradation": "Gaussian",
        "Warnings": [f"{path}: something is <odd>"],
        "RuntimeSeconds": 1.0,
    }
    return item, pred, sidecar
