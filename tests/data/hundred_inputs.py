"""The table of wrong and odd inputs: what people have, over all commands and all readers."""

from case_work import photo
from hundred_labels import MASKS, ODD, TOOLS, YOLO
from hundred_work import (
    CHECK,
    CONVERT,
    EVALUATE,
    FORMS,
    PREDICT,
    SCORE_COCO,
    SCORE_MASKS,
    SCORE_VOC,
    TRAIN_JSON,
    TRANSFER,
    Input,
    annotation,
    cut,
    drop,
    edit,
    gone,
    image,
    mask,
    nothing,
    put,
    result,
    swap,
)

CLASSES_OF_PICTURES = {
    "an empty picture": Input("photos", put("train/ant/ant0.jpg", ""), TRANSFER, "train/ant/ant0.jpg"),
    "a cut picture": Input("photos", cut("train/ant/ant0.jpg"), TRANSFER, "train/ant/ant0.jpg"),
    "a text called jpg": Input("photos", put("train/ant/ant0.jpg", "no picture"), TRANSFER, "train/ant/ant0.jpg"),
    "a text among pictures": Input("photos", put("train/ant/notes.txt", "x"), TRANSFER, "notes.txt"),
    "an empty class": Input(
        "photos", drop("train/ant/ant0.jpg", "train/ant/ant1.jpg"), TRANSFER, "train/ant: the class holds no files"
    ),
    "a class of val alone": Input("photos", lambda d: photo(d / "val/wasp/w.jpg"), TRANSFER, "only in val/: wasp (1)"),
    "no such folder": Input("photos", nothing, [w.replace("{data}", "{data}/nope") for w in TRANSFER], "nope"),
    "a file, not a folder": Input(
        "photos", nothing, [w.replace("{data}", "{data}/train/ant/ant0.jpg") for w in TRANSFER], "ant0.jpg"
    ),
    "the folder of a split": Input(
        "photos", nothing, [w.replace("{data}", "{data}/train/ant") for w in TRANSFER], "train/ant"
    ),
    "no val": Input(
        "photos",
        drop(*[f"val/{n}/{n}{i}v.jpg" for n in ("ant", "bee") for i in (0, 1)]),
        TRANSFER,
        "val/: holds no file of any class",
    ),
    "a share beside val": Input("photos", nothing, [*TRANSFER, "val=0.2"], "val=0.2: the data folder has its own val/"),
    "val of 2": Input("photos", nothing, [*TRANSFER, "val=2"], "val=2.0"),
    "a group that is no expression": Input(
        "photos", gone("val"), [*TRANSFER, "val=0.5", "group=("], "group='(': no valid regular expression"
    ),
    "an unknown setting": Input("photos", nothing, [*TRANSFER, "colour=red"], "colour=red: there is no such setting"),
    "a setting twice": Input("photos", nothing, [*TRANSFER, "size=32"], "size: given twice"),
    "a negative rate": Input("photos", nothing, [*TRANSFER, "optimizer.lr=-1"], "optimizer.lr=-1"),
    "an unknown optimizer": Input("photos", nothing, [*TRANSFER, "optimizer.name=sdg"], "sdg"),
    "an unknown metric": Input("photos", nothing, [*TRANSFER, "checkpoints.metric=recall"], "recall"),
    "an unknown backbone": Input("photos", nothing, [w.replace("narrow", "resnet19") for w in TRANSFER], "resnet19"),
    "an unknown recipe": Input("photos", nothing, ["train", "transfre", "data={data}"], "transfre"),
    "an unknown verb": Input("photos", nothing, ["trian", "transfer"], "trian"),
    "a device that is not there": Input(
        "photos", nothing, [*TRANSFER, "machine.device=cuda:77"], "machine.device=cuda:77"
    ),
    "weights that are not there": Input(
        "photos", nothing, [w.replace("weights=none", "weights={data}/w.pth") for w in TRANSFER], "w.pth"
    ),
    "weights that are a text": Input(
        "photos", put("w.pth", "hello"), [w.replace("weights=none", "weights={data}/w.pth") for w in TRANSFER], "w.pth"
    ),
    "weights that are cut": Input(
        "photos",
        put("w.safetensors", b"\x10\0\0\0\0\0\0\0{"),
        [w.replace("weights=none", "weights={data}/w.safetensors") for w in TRANSFER],
        "w.safetensors",
    ),
    "weights that are a picture": Input(
        "photos",
        nothing,
        [w.replace("weights=none", "weights={data}/train/ant/ant0.jpg") for w in TRANSFER],
        "ant0.jpg",
    ),
    "a depth that is none": Input("photos", nothing, [*TRANSFER, "depth=4095:0"], "depth=4095:0"),
    "check: a cut picture": Input("photos", cut("val/ant/ant0v.jpg"), CHECK, "ant0v.jpg"),
    "check: a text": Input("photos", put("train/bee/b.gif", "GIF89a"), CHECK, "b.gif"),
    "check: no folder": Input("photos", nothing, ["check", "{data}/nope"], "nope"),
    "check: an unknown format": Input("photos", nothing, [*CHECK, "format=coko"], "format=coko"),
    "check: an option of another task": Input("photos", nothing, [*CHECK, "origin=0"], "origin"),
    "check: classes that differ": Input("photos", nothing, [*CHECK, "classes=ant,wasp"], "only in val/: bee (1)"),
}
SHARDS = {
    "a cut shard": Input("shards", cut("train-000.tar", 0.3), TRANSFER, "train-000.tar"),
    "a shard that is a text": Input("shards", put("train-000.tar", "no tar"), TRANSFER, "train-000.tar"),
    "a compressed shard": Input("shards", put("train-001.tar.gz", b"\x1f\x8b"), TRANSFER, "train-001.tar.gz"),
    "check: a cut shard": Input("shards", cut("val-000.tar", 0.3), CHECK, "val-000.tar"),
}
COCO = {
    "coco: an empty file": Input("coco", put(TRAIN_JSON, ""), FORMS["coco"], "instances_train.json: is empty"),
    "coco: a cut file": Input("coco", cut(TRAIN_JSON), FORMS["coco"], "instances_train.json: is "),
    "coco: a list": Input("coco", put(TRAIN_JSON, "[]"), FORMS["coco"], "instances_train.json"),
    "coco: no categories": Input(
        "coco", edit(TRAIN_JSON, lambda said: said.pop("categories") and None), FORMS["coco"], "has no 'categories'"
    ),
    "coco: an unknown image": Input("coco", edit(TRAIN_JSON, annotation(image_id=9)), FORMS["coco"], "image_id=9"),
    "coco: an unknown category": Input(
        "coco", edit(TRAIN_JSON, annotation(category_id=9)), FORMS["coco"], "category_id=9"
    ),
    "coco: an id twice": Input(
        "coco", edit(TRAIN_JSON, annotation(id=2)), FORMS["coco"], "the id 2 occurs more than once"
    ),
    "coco: a negative size": Input(
        "coco", edit(TRAIN_JSON, annotation(bbox=[1, 1, -3, 3])), FORMS["coco"], "bbox=[1.0, 1.0, -3.0, 3.0]"
    ),
    "coco: no width": Input(
        "coco", edit(TRAIN_JSON, annotation(bbox=[1, 1, 0, 3])), FORMS["coco"], "x, y, width, height 1, 1, 0, 3"
    ),
    "coco: a box of three": Input(
        "coco", edit(TRAIN_JSON, annotation(bbox=[1, 1, 3])), FORMS["coco"], "bbox=[1, 1, 3]"
    ),
    "coco: an id that is no number": Input("coco", edit(TRAIN_JSON, annotation(id="007")), FORMS["coco"], "id='007'"),
    "coco: a crowd of 2": Input("coco", edit(TRAIN_JSON, annotation(iscrowd=2)), FORMS["coco"], "iscrowd=2"),
    "coco: a name that leads out": Input(
        "coco", edit(TRAIN_JSON, image(file_name="../../z.jpg")), FORMS["coco"], "leaves the folder of images"
    ),
    "coco: a picture that is not there": Input(
        "coco", edit(TRAIN_JSON, image(file_name="z.jpg")), FORMS["coco"], "z.jpg"
    ),
    "coco: another size": Input(
        "coco", edit(TRAIN_JSON, image(width=97)), FORMS["coco"], "its annotation says 97 x 64"
    ),
    "coco: a cut picture": Input("coco", cut("images/train/a.jpg"), FORMS["coco"], "images/train/a.jpg"),
    "coco: an unknown class": Input("coco", nothing, [*FORMS["coco"], "categories=wasp"], "categories=wasp"),
    "coco: origin": Input(
        "coco", nothing, [*FORMS["coco"], "tasks.detection.origin=0"], "origin: data of format=coco has no use"
    ),
    "check: coco's polygon of two": Input(
        "coco", edit(TRAIN_JSON, annotation(segmentation=[[1, 2, 3, 4]])), CHECK, "a polygon of 4 numbers"
    ),
    "check: coco's other size": Input("coco", edit(TRAIN_JSON, image(width=97)), CHECK, "its annotation says 97 x 64"),
}
VOC = {
    "voc: no xml": Input("voc", put("Annotations/a.xml", "no xml"), FORMS["voc"], "a.xml: is no XML"),
    "voc: another root": Input(
        "voc", put("Annotations/a.xml", "<a/>"), FORMS["voc"], "<a> where <annotation> was expected"
    ),
    "voc: no box": Input(
        "voc",
        put("Annotations/a.xml", "<annotation><object><name>ant</name></object></annotation>"),
        FORMS["voc"],
        "has no <bndbox>",
    ),
    "voc: a word as a number": Input(
        "voc", swap("Annotations/a.xml", "<xmin>11<", "<xmin>eleven<"), FORMS["voc"], "xmin='eleven'"
    ),
    "voc: a flag that is none": Input(
        "voc",
        swap(
            "Annotations/a.xml",
            "<difficult>0</difficult><bndbox><xmin>11",
            "<difficult>maybe</difficult><bndbox><xmin>11",
        ),
        FORMS["voc"],
        "difficult='maybe'",
    ),
    "voc: no annotation": Input("voc", drop("Annotations/a.xml"), FORMS["voc"], "a.xml"),
    "voc: no picture": Input("voc", drop("JPEGImages/a.jpg"), FORMS["voc"], "a.jpg"),
    "voc: two pictures": Input(
        "voc", lambda d: photo(d / "JPEGImages/a.png"), FORMS["voc"], "two pictures have this name"
    ),
    "voc: an empty list": Input(
        "voc", put("ImageSets/Main/train.txt", "\n"), FORMS["voc"], "train.txt: names no image"
    ),
    "voc: a name twice": Input("voc", put("ImageSets/Main/train.txt", "a\na\n"), FORMS["voc"], "a for the second time"),
    "voc: a box without area": Input(
        "voc", swap("Annotations/a.xml", "<xmax>40", "<xmax>11"), FORMS["voc"], "xmin, ymin, xmax, ymax 11"
    ),
    "voc: an entity": Input(
        "voc", put("Annotations/a.xml", "<!DOCTYPE a [<!ENTITY x 'y'>]><annotation/>"), FORMS["voc"], "document type"
    ),
    "voc: masks of objects": Input(
        "voc", nothing, [*[w for w in FORMS["voc"] if w != "head=one_stage"], "head=mask_rcnn"], "head=mask_rcnn"
    ),
    "check: voc": Input("voc", put("Annotations/a.xml", "no xml"), [*CHECK, "format=voc"], "a.xml: is no XML", times=2),
}
COMMANDS = {
    "evaluate: no data": Input(
        "photos", nothing, [*[w for w in EVALUATE if not w.startswith("data")], "data={data}/nope"], "nope"
    ),
    "evaluate: other classes": Input(
        "photos", lambda d: photo(d / "val/wasp/w.jpg"), EVALUATE, "only in val/: wasp (1)"
    ),
    "evaluate: no source": Input("photos", nothing, ["evaluate", "{data}/nope"], "nope"),
    "evaluate: a cut picture": Input("photos", cut("val/ant/ant0v.jpg"), EVALUATE, "val/ant/ant0v.jpg"),
    "evaluate: an unknown option": Input(
        "photos", nothing, [*EVALUATE, "colour=red"], "colour=red: there is no such setting"
    ),
    "evaluate: a split": Input("photos", nothing, [*EVALUATE, "split=test"], "split=test"),
    "evaluate: out that is there": Input(
        "photos", nothing, [*EVALUATE, "out={data}/val/ant/ant0v.jpg"], "is there already"
    ),
    "predict: no input": Input("photos", nothing, [w.replace("{data}", "{data}/nope") for w in PREDICT], "nope"),
    "predict: out that is there": Input(
        "photos", nothing, [w.replace("{out}", "{data}/train") for w in PREDICT], "is there already"
    ),
    "predict: no model": Input(
        "photos",
        put("w.safetensors", b"\x10\0\0\0\0\0\0\0{"),
        [w.replace("{run}", "{data}/w.safetensors") for w in PREDICT],
        "w.safetensors",
    ),
    "predict: top of 0": Input("photos", nothing, [*PREDICT, "top=0"], "top=0"),
    "score coco: no file": Input("coco", drop("results.json"), SCORE_COCO, "results.json"),
    "score coco: an unknown image": Input("coco", edit("results.json", result(image_id=9)), SCORE_COCO, "image_id=9"),
    "score coco: no score": Input(
        "coco", edit("results.json", lambda s: s[0].pop("score") and None), SCORE_COCO, "score"
    ),
    "score coco: the truth": Input(
        "coco", lambda d: (d / "results.json").write_bytes((d / "truth.json").read_bytes()), SCORE_COCO, "it is a truth"
    ),
    "score coco: no engine": Input("coco", nothing, [*SCORE_COCO, "engine=fast"], "engine=fast: unknown"),
    "score voc: no results": Input(
        "voc", drop("found/comp4_det_val_ant.txt", "found/comp4_det_val_bee.txt"), SCORE_VOC, "comp4_det_"
    ),
    "score voc: an unknown image": Input(
        "voc", put("found/comp4_det_val_ant.txt", "b 0.9 1 2 3 4\n"), SCORE_VOC, "the image 'b' is not on"
    ),
    "score voc: a word": Input(
        "voc", put("found/comp4_det_val_ant.txt", "a high 1 2 3 4\n"), SCORE_VOC, "line 1: 'a high 1 2 3 4'"
    ),
    "score voc: no list": Input("voc", nothing, [w for w in SCORE_VOC if not w.startswith("list")], "list= is missing"),
    "score masks: a mask less": Input("pairs", drop("masks/train/p0.png"), SCORE_MASKS, "masks/train/p0.png"),
    "score masks: a number more": Input("pairs", mask("masks/val/p0.png", 0, 9), SCORE_MASKS, "masks/val/p0.png"),
    "score masks: another size": Input(
        "pairs", mask("masks/train/p0.png", 0, 1, size=(95, 64)), SCORE_MASKS, "is 95 x 64 pixels"
    ),
    "score: an unknown protocol": Input("pairs", nothing, ["score", "cocoo", "a", "b"], "cocoo"),
    "convert: an unknown format": Input(
        "coco", nothing, [*[w for w in CONVERT if w != "format=yolo"], "format=yollo"], "format=yollo"
    ),
    "convert: no objects": Input("photos", nothing, CONVERT, "format=folders"),
    "convert: a wrong file": Input("coco", cut(TRAIN_JSON), CONVERT, "instances_train.json: is "),
    "convert: out that is there": Input("coco", nothing, [*CONVERT[:-1], "out={data}"], "is there already"),
    "show: an unknown setting": Input(
        "photos", nothing, ["show", "transfer", "colour=red"], "colour=red: there is no such setting"
    ),
    "show: no recipe": Input("photos", nothing, ["show"], "the recipe's name (`trunkline list`) is missing"),
}
INPUTS = {**CLASSES_OF_PICTURES, **SHARDS, **COCO, **VOC, **YOLO, **TOOLS, **MASKS, **COMMANDS, **ODD}
