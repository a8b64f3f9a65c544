import nibabel as nib
import numpy as np
import pytest
import torch
from data import phantom_map

from bundle.errors import InputError
from bundle.heads import HeadCrops, cut_crop, draw_factors, draw_view, make_head
from bundle.networks.context import CELL, REACH, VIEW, coarse_view, cut_surround, surround
from bundle.simulation.tissues import GROUPS

SIZE = 16


@pytest.fixture(scope="module")
def label_map(tmp_path_factory):
    path = tmp_path_factory.mktemp("maps") / "map.nii.gz"
    nib.save(nib.Nifti1Image(*phantom_map()), path)
    return str(path)


@pytest.fixture(scope="module")
def crops(label_map, tmp_path_factory):
    items = [{"image": "sharp.nii.gz"}, {"image": label_map, "kind": "label_map"}]
    source = [{"context": "a sharp one"}, {"context": "a crop"}]
    return HeadCrops(source, items, str(tmp_path_factory.mktemp("heads")), 2, SIZE)


def test_a_head_is_normalised_as_at_inference_and_its_volumes_agree(label_map):
    head = make_head(label_map, "T1w", np.random.RandomState(3))
    shape = head["image"].shape
    assert head["label"].shape == head["tissue"].shape == shape and head["tissue"].dtype == torch.uint8
    assert head["condition"][:3].tolist() == [1, 1, 0]
    image, label = head["image"].float(), head["label"].float()
    foreground = image[image > image.mean()]
    assert float(foreground.quantile(0.99)) == pytest.approx(1, abs=0.15)
    white = head["tissue"] == list(GROUPS).index("WM")
    assert float(label[white].median()) == pytest.approx(float(head["level"]), rel=0.1)
    assert np.corrcoef(image[white | (label > 0.1)], label[white | (label > 0.1)])[0, 1] > 0.5
    again = make_head(label_map, "T1w", np.random.RandomState(3))
    assert all(torch.equal(head[key], again[key]) for key in head)


def test_brains_end_where_their_mask_does_and_some_have_dark_fluid(label_map):
    """Of heads without skull some are stripped after the scan: all outside is one value there, and noise elsewhere."""
    outside, darkest = [], []
    for seed in range(6):
        head = make_head(label_map, "T1w", np.random.RandomState(seed), stripped=1.0)
        image, nothing = head["image"].float()[0], head["tissue"][0] == list(GROUPS).index("background")
        fluid = head["tissue"][0] == list(GROUPS).index("CSF")
        far = 1 - torch.nn.functional.max_pool3d((~nothing)[None].float(), 13, 1, 6)[0]
        outside.append(float(image[far > 0].std()))
        darkest.append(float(image[fluid].quantile(0.25)))
    assert min(outside) < 1e-3 < max(outside)
    assert max(darkest) - min(darkest) > 0.1


def test_factors_are_those_of_scans():
    drawn = np.array([draw_factors(np.random.RandomState(k)) for k in range(300)])
    assert drawn.min() >= 1 and drawn.max() <= 6
    assert 0.3 < (drawn == 2).all(1).mean() < 0.5 and 0.2 < ((drawn == 1).sum(1) == 2).mean() < 0.4


def test_crops_see_of_their_head_what_tiles_see_at_inference(crops):
    head = crops.heads[0]
    whole = head["image"][None].float()
    place = torch.arange(whole[0].numel()).reshape(whole.shape[1:])
    for seed in range(20):
        torch.manual_seed(seed)
        crop = cut_crop({**head, "tissue": place}, SIZE)
        mirrored = bool(crop["tissue"][0, 0, 0, 0] > crop["tissue"][0, -1, 0, 0])
        crop = {key: v.flip(1) if mirrored and v.ndim == 4 else v for key, v in crop.items()}
        assert crop["image"].shape == (1, SIZE, SIZE, SIZE) and crop["context"].shape == (1, *[VIEW] * 3)
        corner = np.unravel_index(int(crop["tissue"].min()), whole.shape[2:])
        if any(c % CELL for c in corner):
            continue  # surrounds of tiles begin at whole cells
        tile = tuple(slice(c, c + SIZE) for c in corner)
        cells = cut_surround(surround(whole), tile)[0]
        assert torch.allclose(crop["cells"], cells, atol=1e-5) and torch.equal(crop["image"], whole[(0, ..., *tile)])
        break
    else:
        pytest.fail("no crop began at whole cells")
    assert crop["cells"].shape[1] == SIZE // CELL + 2 * REACH
    view = coarse_view(whole)[0, :, :-4, :-4, :-4]  # the ends hold what makes sides multiples of a cell
    assert torch.equal(crop["own_context"][(..., *(slice(n) for n in view.shape[1:]))], view)


def test_a_view_shows_the_head_in_a_field_of_another_size():
    image, views = torch.zeros(1, 120, 112, 112), []
    image[:, 26:86, 28:84, 28:84] = 1.0  # the last 8 voxels along the first axis are no part of the head's own field
    for seed in range(40):
        torch.manual_seed(seed)
        views.append(draw_view(image, (112, 112, 112)))
    assert all(view.shape == (1, *[VIEW] * 3) and float(view.max()) > 0.99 for view in views)
    steps = {round((60 * 56 * 56 / float(view.sum())) ** (1 / 3)) for view in views}
    assert steps == {2, 3, 4}  # voxels along the side of one of the view: 104 / 64 to 160 / 44
    corners = {tuple(int(view[0].amax(other).nonzero().min()) for other in ((1, 2), (0, 2), (0, 1))) for view in views}
    assert len(corners) > 20


def test_label_maps_become_crops_and_everything_else_stays(crops, label_map):
    assert len(crops) == 2 and crops[0] == {"context": "a sharp one", "own_context": "a sharp one"}
    assert crops[1]["image"].shape == (1, SIZE, SIZE, SIZE) and crops[1]["image"].dtype == torch.float32
    none = HeadCrops(crops.source, crops.items, "unused", 0, SIZE, share=0.0)
    assert none[1]["context"] == "a crop"


def test_heads_of_people_who_are_not_trained_on_are_refused(label_map, tmp_path):
    other = [{"image": "other.nii.gz", "kind": "label_map"}]
    torch.save({"image": torch.zeros(1, 20, 20, 20), "source": "map.nii.gz"}, tmp_path / "head_000.pt")
    with pytest.raises(InputError, match="made of map.nii.gz, which is not trained on here"):
        HeadCrops([], other, str(tmp_path), 1, SIZE)
    with pytest.raises(InputError, match=r"\(20, 20, 20\) voxels, smaller than crops of 32"):
        HeadCrops([], [{"image": label_map, "kind": "label_map"}], str(tmp_path), 1, 32)
    with pytest.raises(InputError, match="hold none"):
        HeadCrops([], [{"image": "sharp.nii.gz"}], str(tmp_path), 1, SIZE)
