import torch
from monai.data import MetaTensor

from bundle.networks.anatomy import TISSUES, AnatomyExtractor, AnatomyPrior
from bundle.tissue import AnatomyInferer, ExtractTissued, two_views, vote, working_shape


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


def test_on_a_coarser_grid_the_voxels_vote():
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.uint8)
    labels[0, :2, :2, :2] = torch.tensor([5, 5, 5, 5, 5, 3, 3, 3]).reshape(2, 2, 2)
    labels[0, 2:, 2:, 2:] = torch.tensor([7, 7, 7, 7, 2, 2, 2, 2]).reshape(2, 2, 2)
    coarse = vote(labels, (2, 2, 2))
    assert coarse.dtype == torch.uint8 and coarse.shape == (1, 2, 2, 2)
    assert int(coarse[0, 0, 0, 0]) == 5 and int(coarse[0, 1, 1, 1]) == 2  # the lower of two as large
    assert int(coarse.sum()) == 7
    assert torch.equal(vote(labels, (4, 4, 4)), labels)


def _extractor():
    torch.manual_seed(0)
    network = AnatomyExtractor(widths=(8, 16, 32)).eval()
    torch.nn.init.normal_(network.trunk.exit.weight, std=0.2)
    return network


class _Threshold:
    """Takes bright voxels for fat."""

    multiple = 8

    def __init__(self):
        self.seen, self.views, self.told = [], [], []

    def context(self, volume):
        self.views.append(volume)
        return volume

    def __call__(self, image, cells, vector, condition):
        self.seen.append(tuple(image.shape[2:]))
        self.told.append(condition)
        tissue = torch.zeros(1, len(TISSUES), *image.shape[2:])
        tissue[:, TISSUES.index("fat")], tissue[:, 0] = image[:, 0], 1 - image[:, 0]
        return AnatomyPrior(image, tissue)


def test_tissue_in_tiles_is_that_of_the_whole():
    network, image, condition = _extractor(), torch.rand(1, 1, 44, 52, 60), torch.zeros(1, 6)
    whole = AnatomyInferer(tile=64, amp=False)(image, network, condition)
    tiled = AnatomyInferer(tile=40, overlap=32, amp=False)(image, network, condition)
    assert whole.shape == image.shape and whole.dtype == torch.uint8 and len(whole.unique()) > 2
    assert float((whole != tiled).float().mean()) < 0.02


def test_two_views_are_averaged_where_both_see():
    image = torch.rand(1, 1, 16, 16, 24)
    cells = torch.rand(1, 1, 4, 4, 5)

    def seen(image, cells, context, condition):
        return AnatomyPrior(image, image.clone())

    def place(image, cells, context, condition):
        return AnatomyPrior(image, torch.arange(16.0)[:, None, None].expand(image.shape).clone())

    def mirrored(image, around, context, condition):
        return AnatomyPrior(image, torch.full_like(image, float(torch.equal(around, cells))))

    assert torch.equal(two_views(seen, image, cells, None, None), image)
    placed = two_views(place, image, cells, None, None)[0, 0]
    assert bool((placed[:-1, :-1, :-1] == 7).all()) and bool((placed[-1] == 15).all())
    assert bool((two_views(mirrored, image, cells, None, None)[..., :-1, :-1, :-1] == 0.5).all())


def test_fine_and_long_voxels_are_labelled_on_a_grid_of_1_mm():
    assert working_shape((20, 24, 18), (0.8, 1.0, 1.2)) == (20, 24, 18)
    assert working_shape((20, 24, 18), (0.5, 0.5, 2.5)) == (10, 12, 45)
    network, fine = _Threshold(), 0.2 * torch.rand(1, 1, 48, 48, 40)
    fine[..., 10:30, 12:36, 6:26] = 1
    infer, affine = AnatomyInferer(amp=False), torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64))
    found = infer(fine, network, torch.zeros(1, 6), spacing=(0.5, 0.5, 0.5))
    assert network.seen == [(24, 24, 24)] * 2 and found.shape == fine.shape and found.dtype == torch.uint8
    assert float(((found > 0) == (fine > 0.5)).float().mean()) > 0.995
    known = infer(MetaTensor(fine, affine=affine), network, torch.zeros(1, 6))
    assert torch.equal(known.as_tensor(), found) and torch.equal(known.affine, affine)
    infer(fine, network, torch.zeros(1, 6))
    assert network.seen[-1] == (48, 48, 40)


def test_where_memory_runs_out_tiles_become_smaller():
    class Small(_Threshold):
        def __call__(self, image, cells, vector, condition):
            if image.numel() > 72**3:
                raise MemoryError
            return super().__call__(image, cells, vector, condition)

    image = torch.rand(1, 1, 96, 96, 96)
    found = AnatomyInferer(amp=False)(image, Small(), torch.zeros(1, 6))
    assert torch.equal(found, AnatomyInferer(amp=False)(image, _Threshold(), torch.zeros(1, 6)))


def test_the_extractor_sees_one_frame_whatever_air_there_is_and_hears_of_one_contrast():
    network, head = _Threshold(), torch.zeros(1, 1, 64, 56, 48)
    head[..., 8:56, 8:48, 8:40] = 0.2 + torch.rand(1, 1, 48, 40, 32)
    wide = torch.nn.functional.pad(head, [16, 3, 0, 8, 20, 1])
    for image in (head, wide):
        AnatomyInferer(amp=False)(image, network, torch.tensor([[0.0, 1, 0, 1, 1, 1]]))
    assert network.seen == [(64, 56, 48)] * 2 + [(88, 64, 72)] * 2
    assert torch.equal(network.views[0], head) and torch.equal(network.views[1], head)
    assert all(told.tolist() == [[1, 1, 0, 1, 1, 1]] for told in network.told)
    AnatomyInferer(amp=False)(head, network, torch.zeros(1, 6), context=wide)
    assert torch.equal(network.views[2], wide)
