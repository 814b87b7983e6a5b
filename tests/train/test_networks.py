"""Networks: shapes, names, sizes, and what changes between training and evaluation."""

import pytest
import torch
from torch import nn

from vit4icd.errors import ConfigError, FormatError
from vit4icd.train.descriptor import Architecture, BackboneName, build, with_levels
from vit4icd.train.efficientnet import EfficientNetLite0
from vit4icd.train.resnet import ResNet
from vit4icd.train.vit import VisionTransformer, resize_position

SMALL: list[BackboneName] = ["vit_test", "resnet_test", "efficientnet_lite0", "vit_tiny"]


@pytest.mark.parametrize("name", SMALL)
def test_describes_images_by_unit_vectors(name: BackboneName) -> None:
    model = build(Architecture(name=name, image_size=64, dim=24)).eval()
    with torch.no_grad():
        wide, raw = model(torch.randn(2, 3, 64, 64))
        unit = model.describe(torch.randn(2, 3, 64, 64))
    assert wide.shape == (2, model.wide_dim)
    assert raw.shape == (2, 24)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2))


def test_has_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        counts = {
            name: sum(p.numel() for p in build(Architecture(name=name)).backbone.parameters())
            for name in ("vit_tiny", "vit_small", "vit_base", "resnet50", "efficientnet_lite0")
        }
    assert counts["vit_base"] == 85_798_656  # timm deit_base_patch16_224 without its head
    assert counts["vit_small"] == 21_665_664
    assert counts["vit_tiny"] == 5_524_416
    assert counts["resnet50"] == 23_508_032  # torchvision resnet50 without fc
    assert counts["efficientnet_lite0"] == 3_371_008


def test_keeps_the_last_map_of_the_teacher_at_a_sixteenth() -> None:
    for stride, side in ((1, 4), (2, 2)):
        resnet = ResNet(depths=(1, 1, 1, 1), width=4, last_stride=stride).eval()
        assert resnet(torch.randn(1, 3, 64, 64)).shape[2:] == (side, side)


def test_describes_by_two_levels_of_an_efficientnet() -> None:
    plain = build(Architecture(name="efficientnet_lite0", image_size=64, dim=24)).eval()
    model = with_levels(plain)
    assert model.architecture == Architecture(
        name="efficientnet_lite0", image_size=64, dim=24, pooling="levels"
    )
    assert model.wide_parts == (1280, 672)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        last, middle = model.backbone.levels(pixels)
        wide, raw = model(pixels)
        torch.testing.assert_close(plain.backbone(pixels), last)
    assert middle.shape == (2, 672, 4, 4)
    assert raw.shape == (2, 24)
    cubes = [maps.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3) for maps in (last, middle)]
    torch.testing.assert_close(wide, torch.cat(cubes, dim=1), rtol=1e-4, atol=1e-5)


def test_other_networks_have_no_levels() -> None:
    with pytest.raises(ConfigError, match="vit_test has no pooling 'levels'"):
        with_levels(build(Architecture(name="vit_test", image_size=32)))


def test_makes_waves_only_while_it_trains() -> None:
    resnet = ResNet(depths=(1, 1, 1, 1), width=4, waves=True)
    pixels = torch.randn(4, 3, 160, 160)
    resnet.eval()
    torch.testing.assert_close(resnet(pixels), resnet(pixels))
    resnet.train()
    outputs = {round(resnet(pixels).sum().item(), 3) for _ in range(12)}
    assert len(outputs) > 1


def test_drops_paths_only_while_it_trains() -> None:
    vit = VisionTransformer(image_size=32, dim=48, depth=3, n_heads=3, drop_path=0.5)
    pixels = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(vit.eval()(pixels), vit(pixels))
    assert not torch.equal(vit.train()(pixels), vit(pixels))


def test_resizes_positions_to_any_size() -> None:
    position = torch.randn(1, 1 + 14 * 14, 8)
    assert resize_position(position, 14 * 14) is position
    larger = resize_position(position, 16 * 16)
    assert larger.shape == (1, 257, 8)
    torch.testing.assert_close(larger[:, 0], position[:, 0])
    flat = torch.full((1, 5, 3), 2.0)
    torch.testing.assert_close(resize_position(flat, 49), torch.full((1, 50, 3), 2.0))


def test_pools_the_patches_of_a_vit_by_sign_and_not_its_class_token() -> None:
    architecture = Architecture(name="vit_test", image_size=32, dim=8, pooling="patches")
    model = build(architecture).eval()
    with torch.no_grad():
        maps = model.backbone(torch.randn(2, 3, 32, 32))
        wide = model.pool(maps)
    assert maps.shape == (2, 48, 2, 2)
    assert wide.shape == (2, model.wide_dim) == (2, 96)
    patches = maps.flatten(2)
    expected = torch.cat([patches.clamp(min=0), (-patches).clamp(min=0)], dim=1)
    torch.testing.assert_close(wide, expected.pow(3).mean(2).pow(1 / 3), rtol=0, atol=1e-4)


def test_places_patches_as_the_picture_has_them() -> None:
    vit = VisionTransformer(image_size=48, dim=48, depth=1, n_heads=3, patches=True).eval()
    plain = torch.zeros(1, 3, 48, 48)
    marked = plain.clone()
    marked[..., :16, 32:] = 5.0  # the top right patch
    with torch.no_grad():
        change = (vit(marked) - vit(plain)).norm(dim=1)[0]
    assert change.argmax() == 2


def test_trains_none_of_the_frozen_blocks_and_all_of_the_others() -> None:
    architecture = Architecture(name="vit_test", image_size=32, dim=8, n_frozen=2)
    model = build(architecture)
    model(torch.randn(2, 3, 32, 32))[1].sum().backward()
    trained = {
        name for name, weight in model.backbone.named_parameters() if weight.grad is not None
    }
    frozen = {name for name, _ in model.backbone.named_parameters()} - trained
    assert {name.split(".")[0] for name in frozen} == {
        "patch_embed", "pos_embed", "cls_token", "blocks",
    }  # fmt: skip
    assert {name.split(".")[1] for name in frozen if name.startswith("blocks")} == {"0", "1"}
    assert {name.split(".")[1] for name in trained if name.startswith("blocks")} == {"2"}


@pytest.mark.parametrize("side", [64, 144, 150, 161])
def test_pads_as_tensorflow_does(side: int) -> None:
    network = EfficientNetLite0().eval()
    with torch.no_grad():
        maps = network(torch.randn(1, 3, side, side))
    expected = side
    for _ in range(5):
        expected = -(-expected // 2)
    assert maps.shape[2:] == (expected, expected)


def test_holds_the_biases_of_the_cnn_necks_at_zero() -> None:
    model = build(Architecture(name="resnet_test", image_size=32, dim=8))
    for norm in (model.neck, model.projection_norm):
        assert isinstance(norm, nn.BatchNorm1d)
        assert not norm.bias.requires_grad
        assert norm.bias.abs().sum() == 0


def test_refuses_sizes_and_names_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="multiple of 16"):
        Architecture(name="vit_tiny", image_size=100)
    with pytest.raises(ConfigError, match="no pooling 'patches'"):
        Architecture(name="resnet50", pooling="patches")
    with pytest.raises(ConfigError, match="3 blocks to freeze, not 4"):
        Architecture(name="vit_test", n_frozen=4)
    with pytest.raises(FormatError, match="colour"):
        Architecture.from_json({"name": "vit_tiny", "colour": 1})
    architecture = Architecture(name="vit_tiny", dim=7)
    assert Architecture.from_json(architecture.to_json()) == architecture
