"""From a folder of clips to samples: class folders, tables, or the lists of published data sets."""

from collections.abc import Sequence
from pathlib import Path

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ..classification.folder import Folder
from ..classification.folder_scan import scan_folders
from ..classification.folders import FolderSamples, divided_folders, whole_folders
from ..classification.tables import layout_of, scan_tables
from .options import Options
from .published import form_of, scan_published
from .samples import ClipSamples
from .suffixes import CLIPS


def read_clip_splits(options: Options, classes: Sequence[str] | None = None) -> dict[str, ClipSamples]:
    """Read `{"train": ..., "val": ...}`; `classes` are a checkpoint's. Raises DataError with every problem."""
    o = options
    found = divided_folders(o.data, scan_clips(o), o.val, o.group, classes, o.on_bad_sample)
    return {name: _clips(samples, o) for name, samples in found.items()}


def read_whole_clips(options: Options, classes: Sequence[str] | None = None) -> ClipSamples:
    """Read all clips, whatever split they are of. Raises DataError as `read_clip_splits`."""
    o = options
    return _clips(whole_folders(o.data, scan_clips(o), o.group, classes, o.on_bad_sample), o)


def scan_clips(options: Options) -> dict[str, Folder]:
    """Find the clips below the data's folder, by split, and what says their classes. Raises DataError."""
    o, root = options, Path(options.data)
    if storage.is_remote(o.data):
        raise DataError(f"{o.data}: clips are read from folders of this machine; copy the folder")
    if not root.is_dir():
        there = "is a file" if root.exists() else "there is no such folder"
        raise DataError(f"{o.data}: {there}; data= takes the folder that holds the clips")
    try:
        form = o.format
        if form == "auto":
            form = form_of(root) or layout_of(root, CLIPS)
        if form == "csv":
            found = scan_tables(root, CLIPS, o.group)
        elif form == "folders":
            found = scan_folders(root, CLIPS)
        else:
            found = scan_published(root, form, o.split)
    except OSError as error:
        raise DataError(f"{o.data}: cannot be read ({error})") from None
    return dict(sorted(found.items()))


def _clips(samples: FolderSamples, options: Options) -> ClipSamples:
    return ClipSamples(**vars(samples), side=options.cached_side)
