import numpy as np
import pytest
import torch
from data import SHARED, phantom_map
from monai.data import MetaTensor

from bundle.errors import InputError
from bundle.io import read_volume
from bundle.pairs import RegisterPaird
from bundle.registration import EDGE_AGREEMENT, edge_agreement, register
from bundle.simulation.acquisition import Acquisition, rician
from bundle.simulation.protocol import draw
from bundle.simulation.rendering import prepare_map, render
from bundle.simulation.tissues import to_classes

MOTIONS = [((10, 0, 0), (0, 10, 0)), ((-6, 5, 8), (-10, 4, 7)), ((2, -3, 1), (3, 2, -5))]


def _motion(angles, shift):
    """4x4 from fixed to moving world, degrees and mm."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.radians(angles)):
        turn, (a, b) = np.eye(4), [i for i in range(3) if i != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    matrix[:3, 3] = shift
    return matrix


def _two_fields(seed, modality="T1w"):
    """One phantom at 1.5 T (3 mm) and 7 T (2 mm), and their affines."""
    labels, affine = phantom_map(seed)
    fine = prepare_map(to_classes(torch.from_numpy(labels)), (2, 2, 2))
    low, high = render(fine, draw(np.random.RandomState(seed), modality, 1.5, 7.0), (1, 1, 1))
    shape = [n * 2 // 3 for n in labels.shape]
    low_affine = affine @ np.diag([*(n / m for n, m in zip(labels.shape, shape, strict=True)), 1])
    low_affine[:3, 3] = (
        affine[:3, :3] @ [(n / m - 1) / 2 for n, m in zip(labels.shape, shape, strict=True)] + affine[:3, 3]
    )
    low = rician(Acquisition()(low, shape), 0.02, torch.Generator().manual_seed(seed))
    return low, low_affine, Acquisition()(high, labels.shape), affine


def _meta(volume, affine):
    return MetaTensor(volume[None], affine=torch.from_numpy(affine))


@pytest.fixture(scope="module")
def person():
    return _two_fields(0)


@pytest.mark.parametrize(("angles", "shift"), MOTIONS)
def test_a_known_motion_is_recovered_to_three_tenths_of_a_millimetre(person, angles, shift):
    low, low_affine, high, affine = person
    motion = _motion(angles, shift)
    found = register(_meta(high, affine), _meta(low, motion @ low_affine))
    head = np.argwhere(high.numpy() > 0.2)[::97] @ affine[:3, :3].T + affine[:3, 3]
    off = head @ (found.motion - motion)[:3, :3].T + (found.motion - motion)[:3, 3]
    assert np.linalg.norm(off, axis=1).mean() < 0.3
    assert found.agreement > EDGE_AGREEMENT and found.volume.shape == high.shape


def test_another_person_does_not_fit(person):
    low, low_affine, _, _ = person
    _, _, high, affine = _two_fields(1)
    assert register(_meta(high, affine), _meta(low, low_affine)).agreement < EDGE_AGREEMENT


def test_edges_agree_by_a_third_with_noise_and_wholly_with_themselves_turned_over():
    noise = torch.randn(2, 40, 40, 40)
    seen, spacing = torch.ones(40, 40, 40, dtype=torch.bool), np.ones(3)
    assert edge_agreement(noise[0], noise[1], seen, spacing) == pytest.approx(1 / 3, abs=0.03)
    assert edge_agreement(noise[0], 5 - 2 * noise[0], seen, spacing) == pytest.approx(1, abs=1e-4)
    assert edge_agreement(noise[0], noise[0], ~seen, spacing) == 0  # nothing that both have seen


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="real scans are not here")
@pytest.mark.parametrize("fits", [True, False])
def test_real_scans_of_one_person_fit_and_of_two_do_not(fits):
    low = SHARED / "data" / "t1" / "stroke_t1_brain_1mm.nii.gz"
    high = SHARED / "data" / "t2" / ("stroke_t2_brain_1mm.nii.gz" if fits else "arc_m2208_t2_brain_1mm.nii.gz")
    item = {"low": str(low), "high": str(high)}
    if fits:
        out = RegisterPaird()(item)
        assert out["agreement"] > 0.83 and out["pair"].shape == (2, *read_volume(high).shape[1:])
        assert out["factors"] == pytest.approx([1, 1, 1])
    else:
        with pytest.raises(InputError, match="two people"):
            RegisterPaird()(item)
