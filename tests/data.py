"""Small inputs for the tests."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigWorkflow

from bundle.networks.super_resolver import SuperResolver
from bundle.simulation.phantom import brain_phantom

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def head(shape=(40, 44, 36), seed=0):
    """A made-up head: an ellipsoid with a bright shell, a darker inside, a few blobs and texture; float32."""
    generator = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    radius = np.sqrt(axes[0] ** 2 + (axes[1] * 1.1) ** 2 + (axes[2] * 0.95) ** 2)
    volume = np.where(radius < 1, 600.0, 0.0) + np.where(radius < 0.85, 150.0, 0.0)
    for _ in range(12):
        centre = generator.uniform(-0.6, 0.6, 3)
        distance = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))
        volume += generator.uniform(-350, 250) * (distance < 0.03) * (radius < 0.85)
    return (np.clip(volume, 0, None) + 5 * generator.random(shape)).astype(np.float32)


def save(path, volume, affine=None, codes=(1, 1)):
    """Write a NIfTI; returns the path."""
    affine = np.diag([1.0, 1.0, 1.0, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    nib.save(image, path)
    return Path(path)


def one_head(folder):
    """A made-up head and a datalist that trains and validates on it, in a folder; returns both paths."""
    volume, datalist = save(folder / "a_T1w.nii.gz", head((48, 48, 48))), folder / "list.json"
    item = {"image": volume.name, "kind": "sharp", "modality": "T1w"}
    datalist.write_text(json.dumps({"training": [item], "validation": [item]}))
    return volume, datalist


def centre_of_mass(path):
    """World coordinates (mm) of the centre of mass of a NIfTI, its background removed."""
    image = nib.load(path)
    volume = image.get_fdata()
    volume = np.where(volume > 0.2 * volume.max(), volume, 0)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij"), -1)
    centre = (volume[..., None] * index).sum((0, 1, 2)) / volume.sum()
    return image.affine[:3, :3] @ centre + image.affine[:3, 3]


def small_network(seed=0, **parts):
    """A SuperResolver of the smallest size that does something: random weights, also in its last layers."""
    torch.manual_seed(seed)
    network = SuperResolver("small", **parts).eval()
    last = [e.second for e in network.denoiser.experts] if parts.get("experts") else [network.denoiser.exit]
    for layer in last:
        torch.nn.init.normal_(layer.weight, std=0.05)
    if network.anatomy is not None:
        torch.nn.init.normal_(network.anatomy.trunk.exit.weight, std=0.05)
    if network.modulator is not None:
        for layer in network.modulator.maps:
            torch.nn.init.normal_(layer.weight, std=0.5)
        for name, parameter in network.denoiser.named_parameters():
            if name.endswith("second.weight"):  # a block that begins as nothing has nothing to modulate
                torch.nn.init.normal_(parameter, std=0.05)
    if network.scale_head is not None:
        torch.nn.init.normal_(network.scale_head.outer.weight, std=0.5)
    network.residual_std.fill_(0.05)
    return network


def phantom_map(seed=0):
    """A small head of labels, voxels of 2 mm: int32 array and affine."""
    labels = brain_phantom(shape=(88, 104, 92), spacing=2.0, seed=seed)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-(n - 1) for n in labels.shape]
    return labels.numpy(), affine


def run_config(*names, kind="inference", **overrides):
    """Run a base config of the bundle and overlays of it, in this process."""
    files = [str(ROOT / "configs" / name) for name in names]
    workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, bundle_root=str(ROOT), **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def coil_file(folder):
    """A made-up coil in Siemens' format: some 4 mm of distortion where a head ends."""
    path = Path(folder) / "coil.grad"
    path.write_text(
        "# made-up coil\n"
        "0.25 m = R0, lnorm = 4? A(1,0) = B(1,1) = A(1,1) = 0;\n"
        "0 = CoSyMode,\n"
        "\n"
        "\n"
        "NO. TYPE            SPECTRUM                     AXIS\n"
        "  1  A( 3, 0)           -0.2400                     z\n"
        "  2  A( 5, 0)            0.0100                     z\n"
        "101  A( 3, 1)           -0.0300                     x\n"
        "201  B( 3, 1)           -0.1500                     y\n"
        "202  B( 5, 3)            1.5e-3                     y\n"
    )
    return path
