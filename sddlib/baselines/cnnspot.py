"""CNNSpot (Wang et al., CVPR 2020): a plain ResNet on pixels, trained with blur and JPEG on both classes.

Wang et al. start from a ResNet-50 trained on ImageNet and train it on 720,000 images. With a file of such weights this is that
network; without one it is a small ResNet from random weights, on the same few crops as every other method. Their two
detectors, Blur+JPEG(0.1) and (0.5), differ in TrainConfig's `augment`.
"""

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.transforms.functional import normalize, to_tensor

from .. import SDDError
from .base import Baseline, Output, read_weights
from .resnet import SmallResNet

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class ResNet50(nn.Module):
    """torchvision's ResNet-50 with one logit."""

    def __init__(self):
        super().__init__()
        self.body = resnet50(weights=None)
        self.body.fc, self.head = nn.Identity(), nn.Linear(2048, 1)

    def forward(self, x: Tensor) -> Output:
        f = self.body(x)
        return Output(self.head(f).squeeze(1), f)


class CNNSpot(Baseline):
    """A ResNet and one logit, trained by BCE. width: channels of the small ResNet's first stage. weights: a file with
    torchvision's ResNet-50 of ImageNet, which training then starts from; its pictures are normalised as ImageNet's."""

    kind, title, paper = "cnnspot", "CNNSpot, blur + JPEG 0.1", "CNN-Spot"
    reference = "Wang et al., CVPR 2020"
    here = "a small ResNet from random weights for ResNet-50 from ImageNet's"
    settings = {"epochs": 24, "batch": 16, "lr": 2e-3, "patience": 24, "augment": 0.1}

    def __init__(self, image_size: int = 112, width: int = 16, weights: str = ""):
        super().__init__(image_size, width=width, weights=weights)
        self.net = ResNet50() if weights else SmallResNet(3, width)

    def prepare(self, crop: Image.Image) -> Tensor:
        return normalize(to_tensor(crop), **IMAGENET) if self.options["weights"] else super().prepare(crop)

    def features(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) as of `prepare` -> what the last linear layer reads (B, D)."""
        return self(x).features

    def forward(self, x: Tensor) -> Output:
        return self.net(x)

    def fit(self, train_set, val_set, config, log=print, states=None) -> dict:
        if self.options["weights"]:
            self.start(self.options["weights"])
        return super().fit(train_set, val_set, config, log, states)

    @torch.no_grad()
    def start(self, weights: str) -> None:
        """Take over a file of ImageNet weights; its classifier of 1000 classes is left."""
        state = {k: v for k, v in read_weights(weights, "CNNSpot").items() if not k.startswith("fc.")}
        try:
            self.net.body.load_state_dict(state)
        except RuntimeError as e:
            raise SDDError(
                f"{weights} does not hold torchvision's ResNet-50 ({str(e).splitlines()[-1].strip()[:80]})"
            ) from None


class CNNSpotHalf(CNNSpot):
    """The other detector of the paper: blur and JPEG, each on half of the pictures."""

    kind, title, paper = "cnnspot_half", "CNNSpot, blur + JPEG 0.5", ""  # the tables do not say which one they print
    here = CNNSpot.here
    settings = CNNSpot.settings | {"augment": 0.5}
