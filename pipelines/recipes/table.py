"""The recipes that there are: a name, and where its function stands. Imports no torch."""

RECIPES = {
    "transfer": "trunkline.pipelines.recipes.transfer:transfer",
    "detect": "trunkline.pipelines.recipes.detect:detect",
    "coco-rcnn": "trunkline.pipelines.recipes.published:coco_rcnn",
    "voc-rcnn": "trunkline.pipelines.recipes.published:voc_rcnn",
    "segment": "trunkline.pipelines.recipes.segment:segment",
    "voc-deeplab": "trunkline.pipelines.recipes.published_segmentation:voc_deeplab",
    "coco-voc": "trunkline.pipelines.recipes.published_segmentation:coco_voc",
    "upscale": "trunkline.pipelines.recipes.upscale:upscale",
    "srresnet": "trunkline.pipelines.recipes.published_upscaling:srresnet",
    "srgan": "trunkline.pipelines.recipes.published_upscaling:srgan",
    "msrresnet": "trunkline.pipelines.recipes.published_upscaling:msrresnet",
    "msrgan": "trunkline.pipelines.recipes.published_upscaling:msrgan",
    "action": "trunkline.pipelines.recipes.action:action",
    "kinetics-resnet3d": "trunkline.pipelines.recipes.published_video:kinetics_resnet3d",
    "kinetics-tsm": "trunkline.pipelines.recipes.published_video:kinetics_tsm",
    "kinetics-slowfast": "trunkline.pipelines.recipes.published_video:kinetics_slowfast",
    "ucf101": "trunkline.pipelines.recipes.published_video:ucf101",
    "thumos": "trunkline.pipelines.recipes.published_events:thumos",
    "events": "trunkline.pipelines.recipes.events:events",
    "demo": "trunkline.pipelines.recipes.demo:demo",
}
