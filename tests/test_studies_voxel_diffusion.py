import pytest
import torch
from data import head, one_head, save
from torch.nn import functional as F

from bundle.cases import make_case
from bundle.studies import voxel_diffusion
from bundle.studies.ablation import read_plan, train_all
from bundle.studies.report import METRICS, differences, summarise
from bundle.studies.voxel_diffusion import cut, measure_voxels, sample, settings


class _Oracle(torch.nn.Module):
    """Knows the residual, and says the velocity that leads there."""

    def __init__(self, residual):
        super().__init__()
        self.residual, self.alphas = residual, settings()[0].alphas_cumprod

    def forward(self, x, timesteps, context=None):
        alpha, sigma = self.alphas[int(timesteps[0])].sqrt(), (1 - self.alphas[int(timesteps[0])]).sqrt()
        noise = (x[:, :1] - alpha * self.residual) / sigma
        return alpha * noise - sigma * self.residual


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_sampling_ends_where_the_network_says_whatever_the_steps(steps, monkeypatch):
    monkeypatch.setattr("bundle.compute.has_fast_bf16", lambda device: False)
    image, residual = torch.rand(1, 1, 8, 8, 8), torch.randn(1, 1, 8, 8, 8)
    found = sample(_Oracle(residual), image, steps)
    assert torch.allclose(found, image + residual / settings()[1], atol=1e-3)


def test_a_cube_of_a_case_is_still_input_and_truth_of_the_same_place(tmp_path):
    path = save(tmp_path / "a_T1w.nii.gz", head((48, 40, 48)))
    case = make_case(path, "A", (2, 2, 2))
    part = cut(case, 32)
    assert part.reference.shape == part.mask.shape == (32, 32, 32) and part.low.shape == (1, 1, 16, 16, 16)
    averaged = F.avg_pool3d(part.reference[None, None], 2)
    found = torch.corrcoef(torch.stack([averaged.flatten(), part.low.flatten()]))[0, 1]
    shifted = torch.corrcoef(torch.stack([averaged.roll(1, 2).flatten(), part.low.flatten()]))[0, 1]
    assert found > 0.95 and found > shifted
    assert torch.equal(cut(case, 100).low, case.low)


def test_both_are_trained_and_measured_on_the_same_cubes(tmp_path, monkeypatch):
    volume, datalist = one_head(tmp_path)
    plan = read_plan(["voxels"], cpu_minutes=0.03, seeds=[0]) | {"pool_size": 8, "epoch_length": 1}
    runs = train_all(plan, tmp_path / "runs", str(tmp_path), str(datalist))
    assert [r["arm"] for r in runs] == ["wavelets", "voxels"] and runs[1]["parameters"] > 9e6
    monkeypatch.setattr(voxel_diffusion, "STEPS", 2)
    whole = cut
    monkeypatch.setattr(voxel_diffusion, "cut", lambda case: whole(case, 32))
    rows = measure_voxels(runs, [{"image": str(volume)}], METRICS)
    arms = ["cubic", "IBP", "wavelets", "voxels, 1 step", "voxels, 2 steps", "bundle"]
    assert [r["arm"] for r in rows] == arms and all(r["psnr"] > 0 for r in rows)
    assert len({r["psnr"] for r in rows}) == len(rows)
    assert [r["arm"] for r in summarise(rows, runs)] == arms
    plan["compare"]["voxels"] = [("wavelets", "voxels, 2 steps"), ("none", "prior")]
    (change,) = differences(rows, plan, "voxels")  # arms that were not measured have no row
    assert float(change["psnr"]) == pytest.approx(rows[4]["psnr"] - rows[2]["psnr"], abs=0.01)
