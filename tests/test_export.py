import nibabel as nib
import numpy as np
import pytest
import torch
from data import ROOT, head, run_config, save, small_network

from bundle import compute
from bundle.errors import InputError
from bundle.export import TilePredictor, load_script, write_onnx
from bundle.inferer import SuperResolutionInferer
from bundle.job import load_model

WEIGHTS = ROOT / "models" / "model.pt"
CPU = torch.device("cpu")
IMAGE = torch.from_numpy(head((40, 48, 56)))[None, None] / 750  # normalised: bright tissue is about 1


def test_files_that_are_missing_damaged_or_of_other_weights_are_refused(exported, tmp_path):
    with pytest.raises(InputError, match="no such file; `make export` writes it"):
        load_script(tmp_path / "gone.ts", WEIGHTS, CPU)
    (tmp_path / "text.ts").write_text("text")
    with pytest.raises(InputError, match="not a TorchScript file"):
        load_script(tmp_path / "text.ts", WEIGHTS, CPU)
    with pytest.raises(InputError, match="made from other weights"):
        load_script(exported / "model.ts", ROOT / "models" / "model_anatomy.pt", CPU)


def test_a_network_with_prior_says_what_to_use():
    with pytest.raises(InputError, match="TorchScript"):
        TilePredictor(small_network(prior=True))


def test_without_the_packages_for_onnx_it_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.export.optional_import", lambda name: (None, False))
    with pytest.raises(InputError, match="pip install onnx onnxscript"):
        write_onnx(small_network(), WEIGHTS, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"tile": 48, "overlap": 24, "uncertainty": True}], ids=str)
def test_the_script_drives_the_inferer_like_the_network(exported, options):
    script, network = load_script(exported / "model.ts", WEIGHTS, CPU), load_model()[0]
    run = SuperResolutionInferer(amp=False, **options)
    assert torch.allclose(run(IMAGE, script), run(IMAGE, network), atol=1e-4)


def test_bf16_changes_the_image_by_less_than_a_thousandth_on_average(exported, monkeypatch):
    monkeypatch.setattr(compute, "has_fast_bf16", lambda device: True)
    exact = SuperResolutionInferer(amp=False)(IMAGE, load_model()[0])
    for network in (load_model()[0], load_script(exported / "model.ts", WEIGHTS, CPU)):
        difference = (SuperResolutionInferer()(IMAGE, network) - exact).abs()
        assert 0 < float(difference.mean()) < 1e-3 and float(difference.max()) < 0.03


def test_torch_export_keeps_the_numbers_through_a_file(tmp_path):
    network = load_model()[0]
    program = torch.export.export(network, (IMAGE,))
    torch.export.save(program, tmp_path / "model.pt2")
    again = torch.export.load(tmp_path / "model.pt2").module()
    with torch.no_grad():
        assert torch.allclose(again(IMAGE), network(IMAGE), atol=1e-4)


@pytest.mark.parametrize("kind", ["cuda", "onnx", "trt"])
def test_the_job_gives_the_same_result_by_every_runtime(kind, exported, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    source = save(tmp_path / "a_T1w.nii.gz", head((24, 26, 20)))
    extra = {"cuda": {"script": str(exported / "model.ts")}, "onnx": {"onnx_file": str(exported / "model.onnx")}}
    words = {"input": str(source), "device": "cpu", "save_uncertainty": True}
    run_config("inference.json", output_dir=str(tmp_path / "plain"), **words)
    run_config(
        "inference.json", f"inference_{kind}.json", output_dir=str(tmp_path / kind), **words, **extra.get(kind, {})
    )
    for part in ("superres", "uncertainty"):
        one, two = (nib.load(tmp_path / d / f"a_T1w_desc-{part}.nii.gz") for d in ("plain", kind))
        assert np.allclose(one.affine, two.affine)
        difference = np.abs(one.get_fdata() - two.get_fdata())
        assert difference.max() < 0.02 * np.ptp(nib.load(source).get_fdata()), part  # bf16 against fp32 at worst


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_script_on_a_gpu_agrees_with_the_processor(exported):
    expected = SuperResolutionInferer(amp=False)(IMAGE, load_model()[0])
    script = load_script(exported / "model.ts", WEIGHTS, torch.device("cuda"))
    for amp, tolerance in ((False, 1e-3), (True, 0.05)):
        result = SuperResolutionInferer(amp=amp)(IMAGE.cuda(), script).cpu()
        assert torch.allclose(result, expected, atol=tolerance)
