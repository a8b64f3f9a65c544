import pytest
import torch
from data import head, phantom_map, save

from bundle.anatomy_evaluation import FACTORS, on_real, on_simulated
from bundle.networks.anatomy import TISSUES, AnatomyExtractor
from bundle.simulation.tissues import INTRACRANIAL


@pytest.fixture
def network():
    """An extractor that calls everything white matter."""
    extractor = AnatomyExtractor().eval()
    extractor.exit.bias.data[TISSUES.index("WM")] = 9.0
    return extractor


def test_a_constant_answer_is_seen_for_what_it_is(network, tmp_path):
    labels, told, answer = save(tmp_path / "labels.nii.gz", *phantom_map()), [], network.forward
    network.forward = lambda *given: told.append(given[3][0]) or answer(*given)
    rows = on_simulated(network, [{"image": str(labels)}])
    assert len(rows) == 2 * len(FACTORS) and {row["modality"] for row in rows} == {"T1w", "T2w"}
    for row in rows:
        assert 0 < row["WM"] < 0.5 and row["cortical GM"] == row["CSF"] == 0
    assert {tuple(c[3:].exp2().sort().values.round().tolist()) for c in told} == {(2, 2, 2), (1, 1, 3)}
    assert all(c[0] == 1 for c in told)  # contrast 7T, as the main job tells it


def test_a_real_volume_is_compared_with_itself_degraded(network, tmp_path):
    rows = on_real(network, [{"image": str(save(tmp_path / "a_T1w.nii.gz", head((36, 36, 36))))}])
    assert len(rows) == len(FACTORS) and set(INTRACRANIAL) < set(rows[0])
    assert all(row["WM"] == 1 for row in rows)
    torch.nn.init.normal_(network.trunk.exit.weight, std=2.0)
    assert on_real(network, [{"image": str(tmp_path / "a_T1w.nii.gz")}])[0]["WM"] < 1
