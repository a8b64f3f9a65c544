import torch
from monai.data import MetaTensor

from bundle.networks.anatomy import TISSUES, AnatomyExtractor
from bundle.tissue import ExtractTissued


def _item():
    affine = torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))
    return {"image": MetaTensor(torch.rand(1, 20, 24, 18), affine=affine), "condition": torch.zeros(6)}


def test_a_map_of_tissue_has_the_grid_of_the_image(tmp_path):
    extractor = AnatomyExtractor()
    extractor.exit.bias.data[TISSUES.index("fat")] = 9.0
    torch.save(extractor.state_dict(), tmp_path / "anatomy.pt")
    item = _item()
    out = ExtractTissued("image", str(tmp_path / "anatomy.pt"))(item)
    assert out["tissue"].shape == (1, 20, 24, 18) and out["tissue"].dtype == torch.uint8
    assert bool((out["tissue"] == TISSUES.index("fat")).all()) and torch.equal(
        out["tissue"].affine, item["image"].affine
    )


def test_nothing_is_read_or_written_where_it_is_not_asked_for():
    item = _item()
    assert ExtractTissued("image", "gone.pt", enabled=False)(item) == item
