"""Fifty networks of timm, each of another module of it, and what is known of them."""

from trunkline.backbones.contract import Sizes
from trunkline.backbones.timm_facts import Facts

FROM_2 = (  # maps of stride 2 to 32
    "test_byobnet", "cs3darknet_focus_s", "cspnext_tiny", "legacy_seresnet18", "dla46x_c", "dpn48b", "test_efficientnet",
    "ghostnet_050", "resnest14d", "hrnet_w18_small", "mobilenetv3_small_050", "mobilevit_xxs", "test_nfnet", "regnetx_002",
    "repghostnet_050", "test_resnet", "resnetv2_18", "rexnet_100", "skresnet18", "ese_vovnet19b_slim_dw", "test_coatnet",
    "inception_v3",
)  # fmt: skip
FROM_4 = (
    "test_convnext", "cpubone_nano", "davit_tiny", "edgenext_xx_small", "efficientvit_b0", "fasternet_t0", "fastvit_t8",
    "hgnetv2_b0", "iformer_t", "inception_next_atto", "lcnetv2_small", "lowformer_b0", "test_mambaout", "poolformerv2_s12",
    "mvitv2_tiny", "pvt_v2_b0", "repvit_m1", "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224",
    "tiny_vit_5m_224", "efficientformerv2_s0", "gcvit_xxtiny",
)  # fmt: skip
OTHERS = {"test_vit": (16, 16, 16), "deit_tiny_patch16_224": (16, 16, 16), "xcit_nano_12_p8_224": (8, 8, 8),
          "levit_128s": (16, 32, 64), "pit_ti_224": (8, 16, 32)}  # fmt: skip
FIFTY = (*FROM_2, *FROM_4, *OTHERS)
TRANSFORMERS = {
    "davit_tiny", "edgenext_xx_small", "efficientvit_b0", "iformer_t", "lowformer_b0", "mobilevit_xxs", "mvitv2_tiny",
    "pvt_v2_b0", "swiftformer_xs", "swin_tiny_patch4_window7_224", "tiny_vit_5m_224", "test_coatnet", "efficientformerv2_s0",
    "gcvit_xxtiny", "test_vit", "deit_tiny_patch16_224", "xcit_nano_12_p8_224", "levit_128s", "pit_ti_224",
}  # fmt: skip
EIGHT = ("test_resnet", "test_convnext", "test_efficientnet", "test_nfnet", "test_mambaout", "efficientvit_b0", "test_coatnet",
         "test_vit")  # fmt: skip
CHANNELS_LAST = {"test_mambaout", "swin_tiny_patch4_window7_224"}  # by timm's statement of them
ONE_SIZE = {"test_coatnet": 160, "efficientformerv2_s0": 224, "gcvit_xxtiny": 224, "levit_128s": 224, "pit_ti_224": 224}
OWN_SIZE = {**ONE_SIZE, "test_vit": 160, "deit_tiny_patch16_224": 224, "swin_tiny_patch4_window7_224": 224}
OPTIONS = {"test_vit": {"dynamic_img_size": True, "dynamic_img_pad": True},
           "deit_tiny_patch16_224": {"dynamic_img_size": True, "dynamic_img_pad": True},
           "swin_tiny_patch4_window7_224": {"dynamic_img_size": True}}  # fmt: skip
UNITS = {"dla46x_c": 32, "hrnet_w18_small": 32, "swin_tiny_patch4_window7_224": 4}
LEAST = {"cs3darknet_focus_s": 4, "legacy_seresnet18": 4, "poolformerv2_s12": 4, "inception_v3": 80} | dict.fromkeys(
    ("test_convnext", "edgenext_xx_small", "fasternet_t0", "inception_next_atto", "pvt_v2_b0", "ese_vovnet19b_slim_dw"),
    32,
)


def facts(name: str) -> Facts:
    """What should be found of a network."""
    strides = OTHERS.get(name) or ((2, 4, 8, 16, 32) if name in FROM_2 else (4, 8, 16, 32))
    unit, one = UNITS.get(name, 1), ONE_SIZE.get(name, 0)
    return Facts(OPTIONS.get(name, {}), strides, Sizes(unit, one or LEAST.get(name, unit), one))
