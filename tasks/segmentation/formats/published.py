"""The classes, numbers and colours of published data sets.

VOC: the development kit, section 3.2. CamVid: the eleven classes of SegNet (Badrinarayanan et al. 2017). Cityscapes: the 19
classes of its benchmark and their numbers in `labelIds` files (cityscapesScripts, labels.py). ADE20K: the 150 classes of
the scene parsing challenge (objectInfo150), of which 0 in a file is none.
"""

from ....heads.contract import VOID
from .encoding import Encoding, numbered

VOC = numbered(
    ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
     "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"), published=True,
)  # fmt: skip

CAMVID = numbered(
    ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"),
    void=(11, VOID),
    palette=((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
             (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192)), published=True,
)  # fmt: skip

_CITYSCAPES = {
    7: ("road", (128, 64, 128)), 8: ("sidewalk", (244, 35, 232)), 11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)), 13: ("fence", (190, 153, 153)), 17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)), 20: ("traffic sign", (220, 220, 0)), 21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)), 23: ("sky", (70, 130, 180)), 24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)), 26: ("car", (0, 0, 142)), 27: ("truck", (0, 0, 70)), 28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)), 32: ("motorcycle", (0, 0, 230)), 33: ("bicycle", (119, 11, 32)),
}  # fmt: skip
CITYSCAPES = Encoding(
    tuple(name for name, _ in _CITYSCAPES.values()),
    dict.fromkeys((*range(34), VOID), VOID) | {number: n for n, number in enumerate(_CITYSCAPES)},
    palette=tuple(colour for _, colour in _CITYSCAPES.values()),
    published=True,
)

_ADE20K = (
    "wall,building,sky,floor,tree,ceiling,road,bed,windowpane,grass,cabinet,sidewalk,person,earth,door,table,mountain,plant,"
    "curtain,chair,car,water,painting,sofa,shelf,house,sea,mirror,rug,field,armchair,seat,fence,desk,rock,wardrobe,lamp,"
    "bathtub,railing,cushion,base,box,column,signboard,chest of drawers,counter,sand,sink,skyscraper,fireplace,refrigerator,"
    "grandstand,path,stairs,runway,case,pool table,pillow,screen door,stairway,river,bridge,bookcase,blind,coffee table,"
    "toilet,flower,book,hill,bench,countertop,stove,palm,kitchen island,computer,swivel chair,boat,bar,arcade machine,hovel,"
    "bus,towel,light,truck,tower,chandelier,awning,streetlight,booth,television receiver,airplane,dirt track,apparel,pole,"
    "land,bannister,escalator,ottoman,bottle,buffet,poster,stage,van,ship,fountain,conveyer belt,canopy,washer,plaything,"
    "swimming pool,stool,barrel,basket,waterfall,tent,bag,minibike,cradle,oven,ball,food,step,tank,trade name,microwave,pot,"
    "animal,bicycle,lake,dishwasher,screen,blanket,sculpture,hood,sconce,vase,traffic light,tray,ashcan,fan,pier,crt screen,"
    "plate,monitor,bulletin board,shower,radiator,glass,clock,flag"
)
ADE20K = numbered(tuple(_ADE20K.split(",")), void=(0, VOID), first=1)
