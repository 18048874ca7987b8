"""Fifty networks of timm, each of another module of it, with what is known of them from timm's own pages and papers."""

PYRAMIDS = (  # maps of stride 4 to 32 at least, for pictures of any size: they work under every head that asks for no more
    "test_byobnet", "test_convnext", "cpubone_nano", "cs3darknet_focus_s", "cspnext_tiny", "davit_tiny", "densenet121",
    "dla46x_c", "dpn48b", "edgenext_xx_small", "test_efficientnet", "efficientvit_b0", "fasternet_t0", "fastvit_t8",
    "ghostnet_050", "hardcorenas_b", "hgnetv2_b0", "hrnet_w18_small", "iformer_t", "inception_next_atto", "lcnetv2_small",
    "lowformer_b0", "test_mambaout", "poolformerv2_s12", "mobilenetv3_small_050", "mobilevit_xxs", "mvitv2_tiny",
    "test_nfnet", "pvt_v2_b0", "regnetx_002", "repghostnet_050", "repvit_m1", "test_resnet", "resnetv2_18",
    "rexnet_100", "skresnet18", "starnet_s050", "swiftformer_xs", "swin_tiny_patch4_window7_224",
    "tiny_vit_5m_224", "ese_vovnet19b_slim_dw",
)  # fmt: skip
FIXED = ("test_coatnet", "efficientformerv2_s0", "gcvit_xxtiny")  # the same maps, for pictures of one size
OTHERS = (
    "test_vit",
    "deit_tiny_patch16_224",
    "xcit_nano_12_p8_224",
    "levit_128s",
    "pit_ti_224",
    "inception_v3",
)  # other maps
FIFTY = PYRAMIDS + FIXED + OTHERS
TRANSFORMERS = {
    "davit_tiny", "edgenext_xx_small", "efficientvit_b0", "iformer_t", "lowformer_b0", "mobilevit_xxs", "mvitv2_tiny",
    "pvt_v2_b0", "swiftformer_xs", "swin_tiny_patch4_window7_224", "tiny_vit_5m_224", "test_coatnet", "efficientformerv2_s0",
    "gcvit_xxtiny", "test_vit", "deit_tiny_patch16_224", "xcit_nano_12_p8_224", "levit_128s", "pit_ti_224",
}  # fmt: skip
