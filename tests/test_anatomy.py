import torch

from bundle.networks.anatomy import TISSUES, AnatomyExtractor
from bundle.networks.context import surround
from bundle.networks.super_resolver import encode_condition
from bundle.simulation.protocol import expected_signals
from bundle.simulation.tissues import CLASSES, GROUP_OF_CLASS, GROUPS, INTRACRANIAL

CONDITION = encode_condition("7T", "T1w", (2, 2, 2))[None]


def test_every_class_lies_in_one_group():
    assert sorted(c for group in GROUPS.values() for c in group) == sorted(CLASSES)
    assert all(CLASSES[i] in GROUPS[TISSUES[g]] for i, g in enumerate(GROUP_OF_CLASS.tolist()))
    assert set(INTRACRANIAL) < set(TISSUES)


def test_probabilities_sum_to_one_and_the_template_is_what_they_expect_at_7_tesla():
    torch.manual_seed(0)
    network, image = AnatomyExtractor(), torch.rand(1, 1, 16, 24, 16)
    torch.nn.init.normal_(network.trunk.exit.weight)
    context = network.context(image)
    template, tissue = network(image, surround(image), context, CONDITION)
    assert tissue.shape == (1, len(TISSUES), 16, 24, 16) and template.shape == image.shape
    assert torch.allclose(tissue.sum(1), torch.ones(1, 16, 24, 16), atol=1e-5)
    white = torch.zeros_like(tissue)
    white[:, TISSUES.index("WM")] = 1
    template, level = network.template(white, context, CONDITION)
    assert torch.allclose(template, level[0, 0].expand_as(template), atol=1e-6)  # white matter is 1 at that level
    fluid = white.roll(TISSUES.index("CSF") - TISSUES.index("WM"), 1)
    expected = expected_signals("T2w")[CLASSES.index("CSF")]
    t2 = encode_condition("7T", "T2w", (2, 2, 2))[None]
    assert torch.allclose(network.template(fluid, context, t2)[0], level * expected, rtol=1e-4)


def test_training_sees_the_same_probabilities_at_every_other_voxel():
    torch.manual_seed(0)
    network, image = AnatomyExtractor().eval(), torch.rand(2, 1, 16, 24, 16)
    torch.nn.init.normal_(network.trunk.exit.weight)
    shown = image, surround(image), network.context(image), CONDITION.expand(2, -1)
    whole, part = network(*shown).tissue, network.tissue_at(torch.tensor([[1, 0, 1], [0, 1, 1]]), *shown)
    assert torch.allclose(part[0], whole[0, :, 1::2, ::2, 1::2], atol=1e-5)
    assert torch.allclose(part[1], whole[1, :, ::2, 1::2, 1::2], atol=1e-5)
