"""Wrong and odd inputs of labelling tools and of masks, and odd ones of every reader that are read with a line."""

import json

from case_work import photo
from hundred_work import (
    CAMVID,
    CHECK,
    EVALUATE,
    FORMS,
    HEAD,
    PAIRS,
    SCORE_COCO,
    SCORE_VOC,
    SEGMENT,
    TRAIN_JSON,
    VAL_JSON,
    Input,
    annotation,
    cut,
    drop,
    edit,
    gone,
    image,
    labelme,
    mask,
    nothing,
    put,
    region,
    result,
    several,
    swap,
    task,
)

YOLO = {
    "yolo: no names": Input(
        "yolo", swap("data.yaml", "names: [ant, bee]", ""), FORMS["yolo"], "no names of the classes"
    ),
    "yolo: another nc": Input(
        "yolo",
        put("data.yaml", "train: images/train\nval: images/val\nnc: 3\nnames: [ant, bee]\n"),
        FORMS["yolo"],
        "nc=3",
    ),
    "yolo: pixels": Input("yolo", put("labels/train/a.txt", "0 48 32 10 10\n"), FORMS["yolo"], "are these pixels?"),
    "yolo: a score": Input(
        "yolo", put("labels/train/a.txt", "0 .5 .5 .1 .1 .9\n"), FORMS["yolo"], "a class, a box and a score"
    ),
    "yolo: an unknown class": Input("yolo", put("labels/train/a.txt", "7 .5 .5 .1 .1\n"), FORMS["yolo"], "the class 7"),
    "yolo: a class's name": Input(
        "yolo", put("labels/train/a.txt", "ant .5 .5 .1 .1\n"), FORMS["yolo"], "expected numbers"
    ),
    "yolo: four numbers": Input("yolo", put("labels/train/a.txt", "0 .5 .5 .1\n"), FORMS["yolo"], "4 numbers"),
    "yolo: no labels": Input("yolo", drop("labels/train/a.txt"), FORMS["yolo"], "no picture has a file of labels"),
    "yolo: no folder": Input("yolo", swap("data.yaml", "images/train", "pics"), FORMS["yolo"], "train=pics"),
    "yolo: rotated or polygons": Input(
        "yolo", put("labels/train/a.txt", "0 .1 .1 .5 .1 .5 .5 .1 .5\n"), FORMS["yolo"], "format=yolo-obb"
    ),
    "yolo: a point": Input(
        "yolo-seg",
        put("labels/train/a.txt", "0 .1 .1\n1 .1 .1 .5 .1 .5 .5\n"),
        FORMS["yolo-seg"],
        "a polygon of 1 point",
    ),
    "check: yolo": Input("yolo", put("labels/train/a.txt", "0 48 32 10 10\n"), CHECK, "are these pixels?"),
}
TOOLS = {
    "labelme: no json": Input("labelme", put("train/a.json", "{"), FORMS["labelme"], "train/a.json"),
    "labelme: another json": Input(
        "labelme", put("train/a.json", "{}"), FORMS["labelme"], "is not of LabelMe's format"
    ),
    "labelme: no picture": Input(
        "labelme", drop("train/a.jpg"), FORMS["labelme"], "there is no picture a.jpg beside it"
    ),
    "labelme: two points": Input(
        "labelme",
        edit("train/a.json", lambda s: s["shapes"][0].update(points=[[1, 1], [2, 2]])),
        FORMS["labelme"],
        "a polygon of 2 points",
    ),
    "labelme: another size": Input(
        "labelme", edit("train/a.json", labelme(imageWidth=90)), FORMS["labelme"], "its annotation says 90 x 64"
    ),
    "labelme: no labels": Input(
        "labelme",
        several(*[edit(f"train/{n}.json", labelme(shapes=[])) for n in "ab"]),
        FORMS["labelme"],
        "train split has no picture",
    ),
    "label studio: no json": Input(
        "labelstudio", put("train.json", "["), FORMS["labelstudio"], "train.json: is no JSON"
    ),
    "label studio: json-min": Input(
        "labelstudio", put("train.json", '[{"image": "a.jpg"}]'), FORMS["labelstudio"], "JSON-MIN"
    ),
    "label studio: no picture": Input(
        "labelstudio", edit("train.json", task(data={"image": "/x/z.jpg"})), FORMS["labelstudio"], "/x/z.jpg"
    ),
    "label studio: brush": Input(
        "labelstudio", edit("train.json", region(type="brushlabels")), FORMS["labelstudio"], "brush masks are not"
    ),
    "label studio: a half region": Input(
        "labelstudio", edit("train.json", region(value={})), FORMS["labelstudio"], "train.json: task 1"
    ),
    "label studio: a turned picture": Input(
        "labelstudio", edit("train.json", region(image_rotation=90)), FORMS["labelstudio"], "image_rotation"
    ),
    "label studio: two people": Input(
        "labelstudio",
        edit("train.json", lambda s: s[0]["annotations"].append(s[0]["annotations"][0])),
        FORMS["labelstudio"],
        "annotator=",
    ),
    "table: no files": Input(
        "csv", put("train.csv", "label,x,y,width,height\n"), FORMS["csv"], "has no column of files"
    ),
    "table: empty": Input("csv", put("train.csv", ""), FORMS["csv"], "train.csv: is empty"),
    "table: a word": Input("csv", put("train.csv", f"{HEAD}a.jpg,ant,1,2,3,x\n"), FORMS["csv"], "line 2: height='x'"),
    "table: a cell less": Input(
        "csv", put("train.csv", f"{HEAD}a.jpg,ant,1,2,3\n"), FORMS["csv"], "line 2: expected 6 cells"
    ),
    "table: no label": Input(
        "csv", put("train.csv", f"{HEAD}a.jpg,,1,2,3,4\n"), FORMS["csv"], "line 2: a box without a label"
    ),
    "table: no picture": Input(
        "csv", put("train.csv", f"{HEAD}z.jpg,ant,1,2,3,4\n"), FORMS["csv"], "line 2: there is no picture z.jpg"
    ),
    "table: a box outside": Input(
        "csv", put("train.csv", f"{HEAD}a.jpg,ant,500,2,3,4\n"), FORMS["csv"], "x, y, width, height 500, 2, 3, 4"
    ),
    "table: no utf-8": Input("csv", put("train.csv", HEAD.encode() + b"\xff\xfe\xfa"), FORMS["csv"], "train.csv"),
    "check: labelme": Input(
        "labelme", put("train/a.json", "{}"), [*CHECK, "format=labelme"], "is not of LabelMe's format"
    ),
    "check: label studio": Input("labelstudio", edit("train.json", task(data={})), CHECK, "its data names 0 pictures"),
    "check: table": Input(
        "csv", put("train.csv", f"{HEAD}a.jpg,ant,1,2,3,x\n"), [*CHECK, "format=csv"], "line 2: height='x'"
    ),
}
MASKS = {
    "pairs: no mask": Input("pairs", drop("masks/train/p0.png"), PAIRS, "train/p0: without a mask"),
    "pairs: no classes": Input("pairs", drop("classes.txt"), PAIRS, "classes.txt"),
    "pairs: a cut mask": Input("pairs", cut("masks/train/p0.png"), PAIRS, "masks/train/p0.png"),
    "pairs: another number": Input("pairs", mask("masks/train/p0.png", 0, 7), PAIRS, "masks/train/p0.png"),
    "pairs: another size": Input(
        "pairs", mask("masks/train/p0.png", 0, 1, size=(95, 64)), PAIRS, "is 95 x 64 pixels; its picture"
    ),
    "pairs: 255 with two readings": Input(
        "pairs",
        several(*[mask(f"masks/{s}/p{n}.png", 0, 255) for s in ("train", "val") for n in range(3)]),
        PAIRS,
        "void=255",
    ),
    "pairs: a cut picture": Input("pairs", cut("images/train/p0.jpg"), PAIRS, "images/train/p0.jpg"),
    "pairs: two kinds of lines": Input("pairs", put("classes.txt", "background\n1 line\n"), PAIRS, "classes.txt"),
    "pairs: a mask as jpeg": Input(
        "pairs", several(drop("masks/train/p0.png"), lambda d: photo(d / "masks/train/p0.jpg")), PAIRS, "is a JPEG"
    ),
    "camvid: no annotations": Input(
        "camvid", drop(*[f"trainannot/p{n}.png" for n in range(3)]), CAMVID, "train/p0: without a mask"
    ),
    "camvid: another number": Input("camvid", mask("trainannot/p0.png", 0, 99), CAMVID, "trainannot/p0.png"),
    "segment: an unknown format": Input("pairs", nothing, [*SEGMENT, "format=pear"], "format=pear"),
    "segment: void of a class": Input("pairs", nothing, [*PAIRS, "tasks.segmentation.void=1"], "void=1"),
    "check: another number": Input("pairs", mask("masks/train/p0.png", 0, 7), CHECK, "masks/train/p0.png"),
    "check: no mask": Input("pairs", drop("masks/val/p0.png"), CHECK, "val/p0: without a mask"),
}
ODD = {
    "odd: coco's bool": Input(
        "coco",
        edit(TRAIN_JSON, annotation(iscrowd=False)),
        CHECK,
        "iscrowd: true/false taken as 1/0 in 1 annotation",
        0,
    ),
    "odd: coco's names": Input(
        "coco",
        edit(TRAIN_JSON, image(file_name="../../a.jpg")),
        CHECK,
        "folders before the picture left out in 1 image",
        0,
    ),
    "odd: coco's ids": Input(
        "coco",
        edit(TRAIN_JSON, annotation(id="1")),
        CHECK,
        "id: numbers written as text taken as numbers in 1 annot",
        0,
    ),
    "odd: coco's area": Input(
        "coco",
        edit(TRAIN_JSON, lambda s: s["annotations"][0].pop("area") and None),
        CHECK,
        "area: absent, taken from",
        0,
    ),
    "odd: coco's lines": Input(
        "coco",
        lambda d: put("results.json", "\n".join(json.dumps(r) for r in json.loads((d / "results.json").read_text())))(
            d
        ),
        SCORE_COCO,
        "one result a line (jsonl), taken as a list in 2 results",
        0,
    ),
    "odd: coco's wrapped results": Input(
        "coco", edit("results.json", lambda s: {"annotations": s}), SCORE_COCO, "wrapped in an object", 0
    ),
    "odd: an inverted result": Input(
        "coco", edit("results.json", result(bbox=[9, 9, -3, 3])), SCORE_COCO, "1 box of negative width or height", 0
    ),
    "odd: voc's words": Input(
        "voc",
        swap("Annotations/a.xml", "<difficult>0", "<difficult>no"),
        SCORE_VOC,
        "words (true, false, yes, no) taken",
        0,
    ),
    "odd: voc's list": Input(
        "voc",
        put("ImageSets/Main/val.txt", "JPEGImages/a.jpg\n"),
        SCORE_VOC,
        "folders or suffixes in a list of names",
        0,
    ),
    "odd: voc's result": Input(
        "voc",
        put("found/comp4_det_val_ant.txt", "a 0.9 40 60 11 21\n"),
        SCORE_VOC,
        "1 box that end before they begin",
        0,
    ),
    "odd: voc from 0": Input(
        "voc", swap("Annotations/a.xml", "<xmin>11<", "<xmin>0<"), SCORE_VOC, "xmin or ymin is 0 in 1 box", 0
    ),
    "odd: voc without a class": Input(
        "voc", drop("found/comp4_det_val_ant.txt"), SCORE_VOC, "no file for the class 'ant'", 0
    ),
    "odd: yolo's path": Input(
        "yolo", swap("data.yaml", "images/train", "../far/images/train"), CHECK, "paths that lead out of the folder", 0
    ),
    "odd: yolo's lone label": Input(
        "yolo", put("labels/train/z.txt", ""), CHECK, "1 file of labels without a picture: z.txt", 0
    ),
    "odd: labelme's point": Input(
        "labelme",
        edit("train/a.json", lambda s: s["shapes"].append({"label": "ant", "points": [[1, 1]], "shape_type": "point"})),
        CHECK,
        "a point, which has no area, left out in 1 shape",
        0,
    ),
    "odd: labelme's lone picture": Input(
        "labelme", lambda d: photo(d / "train/z.jpg"), CHECK, "1 picture without labels left out: z.jpg", 0
    ),
    "odd: nobody's task": Input(
        "labelstudio", edit("val.json", task(annotations=[])), CHECK, "nobody's labels (no annotation)", 0
    ),
    "odd: table's paths": Input(
        "csv",
        put("train.csv", f"{HEAD}C:\\x\\a.jpg,ant,1,2,3,4\na.jpg,bee,1,2,3,4\n"),
        CHECK,
        "folders before the picture left out in 1 image",
        0,
    ),
    "odd: a lone mask": Input("pairs", drop("images/train/p0.jpg"), CHECK, "masks/train: 1 files have no picture", 0),
    "odd: no pixel of a class": Input(
        "pairs", several(*[mask(f"masks/train/p{n}.png", 0) for n in range(3)]), CHECK, "no pixel of line", 0
    ),
    "odd: a test without a class": Input(
        "photos", gone("val/bee"), EVALUATE, "no file of bee: scored over the 1 of 2 classes", 0
    ),
    "odd: crowds alone in val": Input(
        "coco",
        edit(VAL_JSON, lambda s: [a.update(iscrowd=1) for a in s["annotations"]] and None),
        CHECK,
        "4 of 4 objects are crowds (iscrowd=1)",
        0,
    ),
}
