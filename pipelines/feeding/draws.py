"""A sample as an epoch sees it: decoded, and augmented by a key."""

from trunkline.ground.keys import key, seed_sample

from ...heads.contract import Batch
from ...tasks.contract import Task
from ...tasks.samples import Sample, Samples
from .plan import At


class Draws:
    """The samples of one task by `(epoch, index, repeat)`: the same tensors in any process and in any order."""

    def __init__(self, task: Task, samples: Samples, seed: int, training: bool):
        self.task, self.samples, self.seed = task, samples, seed
        self.transform = task.transform(training)

    def draw(self, at: At) -> Sample:
        """Read a sample and transform it as that epoch sees it: the same tensors in any process."""
        epoch, index, repeat = at
        sample = self.samples[index]
        seed_sample(key(self.seed, epoch, index, repeat))
        return self.transform(sample)

    def batch(self, at: list[At]) -> Batch:
        """Draw these samples and put them together."""
        return self.task.collate([self.draw(a) for a in at])
