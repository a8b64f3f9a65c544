import torch
from data import head, save

from bundle.cases import make_case
from bundle.evaluation import classical_methods
from bundle.networks.anatomy import TISSUES, AnatomyExtractor
from bundle.scores import BEST, DICE_GROUPS, TITLES, consistency, scorer, tissue_scores


def test_every_column_has_a_title_and_a_direction():
    assert set(BEST) == set(TITLES)


def test_tissue_is_merged_before_it_is_compared():
    truth = torch.tensor([TISSUES.index(t) for t in ("CSF", "cortical GM", "deep GM", "WM")])
    found = torch.tensor([TISSUES.index(t) for t in ("CSF", "deep GM", "WM", "brainstem")])
    assert tissue_scores(None, truth, found) == {
        "dice_csf": 1.0,
        "dice_gm": round(2 / 3, 4),
        "dice_wm": round(2 / 3, 4),
    }


def test_what_agrees_with_its_input_has_a_small_distance_to_it(tmp_path):
    case = make_case(save(tmp_path / "a_T1w.nii.gz", head((44, 40, 46))), "A", (2, 2, 2))
    methods = classical_methods()
    distance = [consistency(case, methods[m](case)[0, 0]) for m in ("trilinear", "cubic", "IBP")]
    assert distance[0] > distance[1] > distance[2] and distance[2] < 0.03
    assert consistency(case._replace(contrast="7T"), case.reference) is None


def test_a_perfect_result_has_perfect_tissue_whatever_the_extractor_finds(tmp_path):
    case = make_case(save(tmp_path / "a_T1w.nii.gz", head((32, 32, 32))), "A", (2, 2, 2))
    scores = scorer(case, AnatomyExtractor().eval())(case.reference)
    assert all(scores[name] == 1 for name in DICE_GROUPS)
    assert scores["psnr"] == float("inf")
    assert not set(DICE_GROUPS) & set(scorer(case, None)(case.reference))
