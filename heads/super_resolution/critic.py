"""Critics: networks that give a picture a logit, high for a real one."""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trunkline.ground.errors import EngineError, WeightsError

LARGE = 256  # from this crop on the VGG-style critic has a sixth stage
NORMS = ("batch", "spectral")


def make_critic(kind: str, crop: int, width: int = 64, norm: str = "batch") -> nn.Module:
    """Build a critic of pictures `(N, 3, crop, crop)` in 0..1, which gives logits `(N, 1)`.

    `kind` is "srgan" (Ledig et al. 2017, figure 4) or "vgg" (BasicSR's VGGStyleDiscriminator, with its names). `width`
    counts the channels of the first convolution. `norm` is "batch", or "spectral": convolutions of spectral norm 1
    (Miyato et al. 2018) and no batch norm. Raises WeightsError for another value, and for a crop that is too small.
    """
    if kind not in CRITICS:
        raise WeightsError(f"critic={kind}: expected one of {', '.join(CRITICS)}")
    if norm not in NORMS:
        raise WeightsError(f"norm={norm}: a critic has one of {', '.join(NORMS)}")
    if width < 1:
        raise WeightsError(f"width={width}: expected a number of channels from 1")
    make, least = CRITICS[kind]
    if crop < least:
        raise WeightsError(f"crop={crop}: the critic {kind} needs crops of at least {least} pixels")
    return make(crop, width, norm)


class Critic(nn.Module):
    """What the critics share: `crop`, the side of the pictures that they take, and convolutions with their norm."""

    def __init__(self, crop: int, norm: str):
        super().__init__()
        self.crop, self.spectral = crop, norm == "spectral"
        self.act = nn.LeakyReLU(0.2, inplace=True)

    def conv(self, before: int, after: int, size: int, stride: int, bare: bool = False) -> nn.Module:
        """Make a convolution; it has a bias where no norm follows (`bare`, or with spectral norm)."""
        made = nn.Conv2d(before, after, size, stride, 1, bias=bare or self.spectral)
        return spectral_norm(made) if self.spectral else made

    def check(self, pictures: Tensor) -> None:
        """Raise EngineError for pictures of another size than the critic was made for."""
        if pictures.shape[-2:] != (self.crop, self.crop):
            high, wide = pictures.shape[-2:]
            raise EngineError(
                f"the critic was made for crops of {self.crop} x {self.crop} pixels and got {high} x {wide}: its last layers "
                "take one size; give the crop's size to make_critic"
            )


class SRGANCritic(Critic):
    """SRGAN's (Ledig et al. 2017, figure 4): eight convolutions of 3 x 3, every second with stride 2, and two dense layers.

    All but the first have batch norm. Pictures in 0..1 are brought to -1..1, as the paper has them. The sigmoid is the
    loss's.
    """

    def __init__(self, crop: int, width: int, norm: str):
        super().__init__(crop, norm)
        widths = [width * 2**i for i in (0, 0, 1, 1, 2, 2, 3, 3)]
        layers: list[tuple[str, nn.Module]] = []
        before = 3
        for number, after in enumerate(widths, start=1):
            layers.append((f"conv{number}", self.conv(before, after, 3, 2 - number % 2, bare=number == 1)))
            if number > 1 and not self.spectral:
                layers.append((f"bn{number}", nn.BatchNorm2d(after)))
            layers.append((f"act{number}", nn.LeakyReLU(0.2, inplace=True)))
            before = after
        self.features = nn.Sequential(OrderedDict(layers))
        side = -(-crop // 16)  # each stride of 2 rounds up
        self.dense1 = nn.Linear(before * side * side, 16 * width)
        self.dense2 = nn.Linear(16 * width, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute the logits `(N, 1)`."""
        self.check(pictures)
        return self.dense2(self.act(self.dense1(self.features(pictures * 2 - 1).flatten(1))))


class VGGCritic(Critic):
    """BasicSR's of MSRGAN and ESRGAN (`basicsr/archs/discriminator_arch.py: VGGStyleDiscriminator`), with its names.

    Each of five stages (six from crops of 256 pixels on) has a convolution of 3 x 3 and one of 4 x 4 with stride 2; all
    but the first have batch norm. The first dense layer takes crops of any size from 32 pixels.
    """

    def __init__(self, crop: int, width: int, norm: str):
        super().__init__(crop, norm)
        self.stages = 5 + (crop >= LARGE)
        before = 3
        for stage in range(self.stages):
            after = width * min(2**stage, 8)
            for number, (size, stride) in enumerate(((3, 1), (4, 2))):
                bare = stage == number == 0
                self.add_module(f"conv{stage}_{number}", self.conv(before, after, size, stride, bare))
                if not bare and not self.spectral:
                    self.add_module(f"bn{stage}_{number}", nn.BatchNorm2d(after))
                before = after
        side = crop >> self.stages  # each stride of 2 rounds down
        self.linear1 = nn.Linear(before * side * side, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute the logits `(N, 1)`."""
        self.check(pictures)
        x = pictures
        for place in (f"{stage}_{number}" for stage in range(self.stages) for number in (0, 1)):
            x = self.get_submodule(f"conv{place}")(x)
            norm = self._modules.get(f"bn{place}")
            x = self.act(x if norm is None else norm(x))
        return self.linear2(self.act(self.linear1(x.flatten(1))))


CRITICS: dict[str, tuple[Callable[[int, int, str], nn.Module], int]] = {
    "srgan": (SRGANCritic, 1),
    "vgg": (VGGCritic, 32),
}
"""By name: the class, and the smallest crop that it takes."""
