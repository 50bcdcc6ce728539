"""FakeInversion (Cazenavette et al., CVPR 2024): a picture beside the noise and the reconstruction that Stable Diffusion
finds for it.

In the paper BLIP captions the picture, the VAE encodes it, DDIM inverts the latent under that caption to noise z_T and
generates z_0 from it again, the VAE decodes both, and a ResNet-50 reads nine channels: x, D(z_T), D(z_0). All of this runs
with the folder of a text-to-image pipeline and a caption function. The paper is silent on classifier-free guidance in the
inversion; here there is none. On the mini benchmark no latent model and no captions are at hand: it is the small
unconditional model in pixels, so that text plays no part and nothing is encoded.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .. import SDDError
from ..disk import expanded
from ..profiles import ROOT
from .maps import MapReader
from .networks import library

LONGEST = 30  # tokens of a caption


def blip(folder: Path) -> Callable[[Image.Image], str]:
    """A caption function from a folder of BLIP as `transformers` saves it; nothing is fetched."""
    if not folder.is_dir():
        raise SDDError(f"there is no captioner {folder}; give the folder of a BLIP model")
    transformers = library("transformers")
    try:
        processor = transformers.BlipProcessor.from_pretrained(folder, local_files_only=True)
        model = transformers.BlipForConditionalGeneration.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as e:
        raise SDDError(f"the captioner {folder} cannot be read ({' '.join(str(e).split())[:200]}); save BLIP there") from None

    def caption(picture: Image.Image) -> str:
        pixels = processor(images=picture, return_tensors="pt").pixel_values
        words = model.eval().generate(pixel_values=pixels, max_new_tokens=LONGEST, do_sample=False)
        return processor.batch_decode(words, skip_special_tokens=True)[0].strip()

    return caption


class FakeInversion(MapReader):
    """A residual network on nine channels. captioner: folder of a BLIP; for another caption function (a picture -> text,
    always the same text for a picture), set `caption_with`. Only a model that reads text asks for captions. The rest: see
    MapReader."""

    kind, title, paper = "fakeinversion", "FakeInversion", "FakeInversion"
    reference = "Cazenavette et al., CVPR 2024"
    here = "the same unconditional model in pixels: no text, no latents; a small ResNet for ResNet-50"
    settings = {"epochs": 40, "batch": 16, "lr": 2e-3, "patience": 40}
    channels, centred = 9, True

    def __init__(self, image_size: int = 112, captioner: str = "", **options):
        super().__init__(image_size, captioner=captioner, **options)

    @cached_property
    def caption_with(self) -> Callable[[Image.Image], str]:
        if not self.options["captioner"]:
            raise SDDError("this diffusion model reads captions; give `captioner`, or set `caption_with` to a function")
        return blip(ROOT / expanded(self.options["captioner"]))

    def caption(self, crop: Image.Image) -> str:
        return self.caption_with(crop) if self.diffusion.reads_text else ""

    def read(self, x: Tensor, noise: Tensor, again: Tensor) -> Tensor:
        return torch.cat([x, noise, again])
