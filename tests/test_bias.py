import numpy as np
import pytest
import torch
from data import ROOT, SHARED, head
from monai.data import MetaTensor
from monai.data.image_reader import ITKReader
from monai.transforms import KeepLargestConnectedComponent, Orientation
from scipy import ndimage

from bundle.bias import BiasEstimator, remove_bias, tissue_mask
from bundle.geometry import Grid, blur, resample
from bundle.intensity import fit_intensity
from bundle.metrics import head_mask
from bundle.networks.anatomy import TISSUES, AnatomyExtractor
from bundle.networks.weights import load
from bundle.scores import tissue_of
from bundle.simulation.acquisition import bias_field

PAIR = SHARED / "data" / "dicom" / "xa30_t1w_2mm_3T_enhanced"
GRID = Grid((48, 52, 44), np.diag([4.0, 4.0, 4.0, 1.0]))


def _shaded(strength=0.3, seed=1):
    volume = torch.from_numpy(head(GRID.shape)) * 1.0
    generator = torch.Generator().manual_seed(seed)
    field = bias_field(GRID.shape, strength * torch.randn(2, 2, 2, generator=generator))
    return volume, field


@pytest.mark.parametrize("wrong", [{"step": 0}, {"iterations": ()}, {"control_points": 3}, {"convergence": -1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="4 or more"):
        BiasEstimator(**wrong)


def test_the_field_of_a_made_up_head_is_found():
    volume, field = _shaded()
    log_field = BiasEstimator(step=8.0, iterations=(50, 50, 50))(volume * field, GRID)
    inside = head_mask(volume)
    true = field.log()[inside]
    left = (field.log() - resample(log_field, GRID.shape))[inside]
    assert float(true.std()) > 0.1
    assert float(left.std()) < 0.4 * float(true.std())


def test_the_field_averages_to_zero_and_does_not_know_the_units():
    volume, field = _shaded()
    estimator = BiasEstimator(step=8.0, iterations=(20, 20))
    one, other = (estimator(scale * volume * field, GRID) for scale in (1.0, 1000.0))
    assert torch.allclose(one, other, atol=0.02)
    assert one.shape == (24, 26, 22) and abs(float(one[tissue_mask(resample(volume, one.shape))].mean())) < 0.05


def test_a_volume_without_anything_in_it_has_no_field():
    assert float(BiasEstimator()(torch.zeros(GRID.shape), GRID, torch.zeros(GRID.shape)).abs().max()) == 0


def test_removal_divides_by_the_field():
    volume, field = _shaded()
    assert torch.allclose(remove_bias(volume * field, field.log()), volume, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not PAIR.exists(), reason="the real pair of the shared data is not here")
def test_a_real_scan_without_prescan_normalisation_becomes_as_flat_as_the_normalised_one():
    raw, normalised = (
        _dicom(PAIR / name) for name in ("series5_raw_coil_shading.dcm", "series6_prescan_normalised.dcm")
    )
    grid = Grid(tuple(raw.shape), np.diag([2.0, 2.0, 2.0, 1.0]))
    whole, brain, estimator = head_mask(normalised), _brain(normalised), BiasEstimator()

    def unevenness(one, other, inside):
        a, b = (blur(v * inside, 10.0) for v in (one, other))  # 20 mm
        return float((a[inside] / b[inside]).clamp_min(1e-6).log().std())

    corrected = remove_bias(raw, estimator(raw, grid))
    reference = remove_bias(normalised, estimator(normalised, grid))  # that of the scanner is not flat either
    before = unevenness(raw, normalised, brain)
    assert before > 0.2
    assert unevenness(corrected, normalised, brain) < 0.5 * before
    before = unevenness(raw, normalised, whole)
    assert before > 0.4
    assert unevenness(corrected, normalised, whole) < 0.7 * before
    assert unevenness(corrected, reference, whole) < 0.5 * before


def _brain(volume):
    """What the anatomy extractor takes for brain and its fluid, in one piece."""
    extractor = load(AnatomyExtractor(), ROOT / "models" / "model_anatomy.pt")
    tissue = tissue_of(extractor, fit_intensity(volume[None], "scan").normalise(volume), "T1w", (2.0, 2.0, 2.0))
    found = torch.isin(tissue, torch.tensor([TISSUES.index(name) for name in TISSUES[1:8]]))
    opened = torch.from_numpy(ndimage.binary_opening(found.numpy()))
    return KeepLargestConnectedComponent(is_onehot=False)(opened[None])[0].bool()


def _dicom(path):
    array, meta = ITKReader().get_data(ITKReader().read(str(path)))
    volume = MetaTensor(torch.from_numpy(np.asarray(array, dtype=np.float32))[None], affine=meta["affine"])
    return Orientation(axcodes="RAS", labels=None)(volume)[0].as_tensor()


def test_a_head_without_shading_is_left_nearly_as_it_is():
    volume, _ = _shaded()
    found = resample(BiasEstimator(step=8.0, iterations=(50, 50, 50))(volume, GRID), GRID.shape)[head_mask(volume)]
    assert float(found.std()) < 0.06
