import torch
from data import head, one_head, save

from bundle.cases import make_case
from bundle.networks.latent import AutoencoderLatent
from bundle.networks.weights import load_super_resolver, write_weights
from bundle.studies import report
from bundle.studies.ablation import read_plan, train_all
from bundle.studies.learned_latent import limit_method


def test_the_limit_is_what_comes_back_of_the_true_residual_whatever_the_size(tmp_path):
    torch.manual_seed(0)
    latent = AutoencoderLatent().eval()
    write_weights(tmp_path / "latent.pt", latent.state_dict())
    case = make_case(save(tmp_path / "a_T1w.nii.gz", head((40, 32, 33))), "A", (2, 2, 1))
    assert case.reference.shape == (40, 32, 33)
    found = limit_method(tmp_path / "latent.pt", torch.device("cpu"))(case)
    assert found.shape == (1, 1, 40, 32, 33)
    even = case._replace(low=case.low[..., :32], reference=case.reference[..., :32], mask=case.mask[..., :32])
    low, high = even.interpolated, even.axes.enter(even.reference[None, None])
    with torch.no_grad():
        expected = even.axes.leave(latent.apply_residual(low, latent.residual(low, high)))
    assert torch.allclose(limit_method(tmp_path / "latent.pt", torch.device("cpu"))(even), expected, atol=1e-5)


def test_a_latent_is_learned_first_and_then_a_network_in_it(tmp_path):
    volume, datalist = one_head(tmp_path)
    plan = read_plan(["latent"], cpu_minutes=0.02, seeds=[0]) | {"pool_size": 8, "epoch_length": 1}
    runs = train_all(plan, tmp_path / "runs", str(tmp_path), str(datalist))
    assert [r["arm"] for r in runs] == ["none", "autoencoder", "learned"]
    learned = load_super_resolver(runs[2]["weights"]).latent.state_dict()
    trained = torch.load(runs[1]["weights"], weights_only=True)
    assert all(torch.allclose(learned[name], value, atol=1e-6) for name, value in trained.items())
    items = {"real": [{"image": str(volume)}]}
    rows = report.measure(runs, plan, items)
    assert [r["arm"] for r in rows] == ["cubic", "none", "autoencoder, limit", "learned", "bundle"]
    assert len({r["psnr"] for r in rows}) == len(rows)
    assert report.cost_of(runs[1]) == {} and report.cost_of(runs[2])["network_seconds"] > 0
    changes = report.differences(rows, plan, "latent")
    assert [c["arm"] for c in changes] == ["learned minus none", "autoencoder, limit minus none"]
