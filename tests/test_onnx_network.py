import pytest
import torch
from data import ROOT, head

from bundle.errors import InputError
from bundle.inferer import SuperResolutionInferer
from bundle.job import load_model
from bundle.onnx_network import OnnxNetwork

WEIGHTS = ROOT / "models" / "model.pt"
IMAGE = torch.from_numpy(head((40, 48, 56)))[None, None] / 750
pytest.importorskip("onnxruntime")


def test_what_cannot_run_is_refused(exported, tmp_path):
    network = load_model()[0]
    with pytest.raises(InputError, match="no such file; `make export` writes it"):
        OnnxNetwork(network, tmp_path / "gone.onnx", WEIGHTS)
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(InputError, match="cannot load it"):
        OnnxNetwork(network, tmp_path / "text.onnx", WEIGHTS)
    with pytest.raises(InputError, match="made from other weights"):
        OnnxNetwork(network, exported / "model.onnx", ROOT / "models" / "model_anatomy.pt")
    with pytest.raises(InputError, match="ONNX Runtime has no AbacusExecutionProvider"):
        OnnxNetwork(network, exported / "model.onnx", WEIGHTS, providers=["AbacusExecutionProvider"])


@pytest.mark.parametrize(
    "options",
    [{}, {"tile": 48, "overlap": 24, "uncertainty": True}, {"temperature": 1.0, "steps": 2, "samples": 2}],
    ids=str,
)
def test_the_inferer_gets_the_same_numbers(exported, options):
    network = load_model()[0]
    onnx = OnnxNetwork(network, exported / "model.onnx", WEIGHTS)
    run = SuperResolutionInferer(amp=False, **options)
    assert torch.allclose(run(IMAGE, onnx), run(IMAGE, network), atol=1e-4)


def test_a_batch_is_worked_through_row_by_row(exported):
    network = load_model()[0]
    onnx, batch = OnnxNetwork(network, exported / "model.onnx", WEIGHTS), torch.cat([IMAGE, 0.5 * IMAGE])
    run = SuperResolutionInferer(amp=False)
    assert torch.allclose(run(batch, onnx), run(batch, network), atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_gpu_provider_agrees_with_the_processor(exported):
    network = load_model()[0]
    expected = SuperResolutionInferer(amp=False)(IMAGE, network)
    onnx = OnnxNetwork(network.cuda(), exported / "model.onnx", WEIGHTS, "cuda")
    assert torch.allclose(SuperResolutionInferer(amp=False)(IMAGE.cuda(), onnx).cpu(), expected, atol=1e-3)
