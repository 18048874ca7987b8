"""Faults that quick tests must catch: what would be wrong in which line, and which test file sees it."""

from typing import NamedTuple


class Fault(NamedTuple):
    """In `file`, `right` (there once) becomes `wrong`, and a test of `caught_by` fails."""

    what: str
    file: str
    right: str
    wrong: str
    caught_by: str


SUMS, BUFFERS, ENGINE = "cluster/engines/sums.py", "cluster/engines/buffers.py", "cluster/engines/torch_engine.py"
FAULTS = (
    Fault("another worker's share of the gradient is lost", SUMS, 'self.workers.add(self._sums, "the sum of gradients")',
          "pass", "cluster/test_group.py"),
    Fault("only the last micro-batch's gradient counts", SUMS, "np.add(sums, gradient, out=sums)", "np.copyto(sums, gradient)",
          "cluster/test_engine.py"),
    Fault("the sum of gradients is not divided", SUMS, "np.divide(wider, count,", "np.divide(wider, 1,",
          "cluster/test_engine.py"),
    Fault("a micro-batch starts from the buffers that the one before left", BUFFERS,
          "        if self._ran or self._again:\n            self._put_back()", "        pass", "cluster/test_engine.py"),
    Fault("a recomputed forward begins from other buffers", BUFFERS, "                part.live.copy_(part.first)",
          "                pass", "cluster/test_forms.py"),
    Fault("a failed update's buffers are the next one's first", BUFFERS,
          "did not come to its end\n            self._put_back()", "did not come to its end\n            pass",
          "cluster/test_buffers.py"),
    Fault("a failed update's gradients count in the next", ENGINE, "        self._gradients.begin()", "        pass",
          "cluster/test_buffers.py"),
    Fault("a skipped fp16 update keeps its buffers", ENGINE, "                self._buffers.undo()", "                pass",
          "cluster/test_engine.py"),
    Fault("a head without a micro-batch is moved", SUMS, "p.grad = view.to(p.dtype) if somewhere else None",
          "p.grad = view.to(p.dtype)", "cluster/test_engine.py"),
    Fault("L1 pushes weights away from 0", ENGINE, "alpha=strength)", "alpha=-strength)", "cluster/test_forms.py"),
    Fault("norms and biases decay", "cluster/engines/optimizer.py", "(0.0, False))", "(config.weight_decay, False))",
          "cluster/test_engine.py"),
    Fault("the average moves with its decay", "cluster/engines/average.py", "weight = 1.0 - self.decay()",
          "weight = self.decay()", "cluster/test_engine.py"),
    Fault("the cosine rises", "cluster/engines/schedule.py", "return b + (a - b) * (1 + math.cos",
          "return b + (a - b) * (1 - math.cos", "cluster/test_engine.py"),
    Fault("workers all compute the first micro-batches", "cluster/workers.py", "return items[self.rank :: self.size]",
          "return items[:: self.size]", "runs/test_feed.py"),
    Fault("an epoch's order does not change", "pipelines/feeding/plan.py", 'PCG64(key(plan.seed, "order", epoch))',
          'PCG64(key(plan.seed, "order", 0))', "runs/test_feed.py"),
    Fault("a task with fewer micro-batches counts less", "pipelines/feeding/plan.py", "return loss_weight * count / own",
          "return loss_weight * own / count", "mixture/test_mixture.py"),
    Fault("frozen weights are cast in every call", "pipelines/evaluation/measure.py", "        p.requires_grad_(True)",
          "        pass", "runs/test_casting.py"),
    Fault("numbers of 16 bits are cut, not rounded", "tasks/images/deep.py", "numpy.rint(clamped * 255 / (high - low))",
          "numpy.floor(clamped * 255 / (high - low))", "data/test_depth.py"),
    Fault("the lower bytes of a TIFF's colours are lost", "tasks/images/deep.py", "upper << 8 | _loaded(again)", "upper << 8",
          "data/test_depth.py"),
    Fault("a link to a folder that it lies in is followed", "tasks/classification/folder_scan.py",
          "wrong_link(folder.path, chain)", "wrong_link(folder.path, ())", "data/test_links.py"),
    Fault("a class that is misspelt is one that is absent", "tasks/classification/folders.py",
          "        if not extra:\n            continue", "        continue", "classification/test_absent_classes.py"),
    Fault("pictures are shifted the wrong way", "heads/model.py", ".div_(255).sub_(mean)", ".div_(255).add_(mean)",
          "heads/test_classification_head.py backbones/test_backbones.py classification/test_real.py heads/test_rcnn.py"),
    Fault("a block forgets its shortcut", "backbones/residual.py",
          "out = self.bn2(self.conv2(out))\n        out += x if", "out = self.bn2(self.conv2(out))\n        out += 0 * x if",
          "backbones/test_backbones.py"),
    Fault("void pixels count in the cross-entropy of rows", "heads/pixel_losses.py",
          'weights, ignore_index=VOID, reduction="sum")', 'weights, ignore_index=-1, reduction="sum")',
          "heads/test_segmentation_heads.py"),
    Fault("a pooled place is half a pixel off", "heads/roi_align.py", "dtype=low.dtype) + 0.5) / SAMPLES",
          "dtype=low.dtype)) / SAMPLES", "heads/test_roi_align.py"),
    Fault("a place goes to the object that it overlaps least", "heads/one_stage.py",
          "torch.where(chosen, overlap, -1.0).argmax(0)", "torch.where(chosen, -overlap, -9.0).argmax(0)",
          "heads/test_one_stage.py"),
    Fault("height and width are mixed up on the way back", "tasks/objects/geometry.py",
          "[original[1] / seen[1], original[0] / seen[0]]", "[original[0] / seen[0], original[1] / seen[1]]",
          "detection/test_masks.py"),
    Fault("an object is taken twice", "tasks/objects/voc_scores.py", "hit[candidates[first]] = True",
          "hit[candidates] = True", "score/test_score_voc.py"),
    Fault("IoU divides by the union and the hits", "tasks/segmentation/confusion.py", "(there + said - hit), np.nan)",
          "(there + said), np.nan)", "segmentation/test_segmentation_scores.py"),
    Fault("a pasted mask is a row too low", "tasks/objects/masks.py", "found = (column + x0) * height + row + y0",
          "found = (column + x0) * height + row + top", "detection/test_masks.py"),
    Fault("a mirrored picture keeps its mask", "tasks/segmentation/transforms.py",
          "image, mask = image.flip(-1), mask.flip(-1)", "image, mask = image.flip(-1), mask",
          "segmentation/test_segmentation_data.py"),
)  # fmt: skip
