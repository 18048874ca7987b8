"""What stands in a trunk's place where a task's data are features that another network computed before."""

from torch import Tensor, nn

from trunkline.ground.errors import WeightsError

from ..contract import Features, Preprocessing


class GivenFeatures(nn.Module):
    """A trunk without parameters, of one map `steps` `(N, C, T)`: batches bring it. How many channels it has the data says."""

    stride_in = "3x3"
    stages = 0

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides, self.time_strides = {"steps": 0}, {"steps": 1}, {"steps": 1}
        self.preprocessing = Preprocessing()

    def forward(self, images: Tensor) -> Features:
        """Raise WeightsError: there is nothing to compute features with."""
        raise WeightsError(
            "features are given, and nothing here computes them: predict RUN features=FOLDER does, of videos"
        )

    def freeze(self, stages: int) -> "GivenFeatures":
        """Return itself: nothing in it learns."""
        return self
