"""The public benchmarks as data: test sets in the papers' order, families, published sizes. No image is read here."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class TestSet:
    """One test set. real, fake: published numbers of files, None where they are not known here; reals: the folder of the real
    images where several sets share it ("" = the set's own)."""

    __test__ = False  # its name is no test of pytest's

    name: str
    family: str
    real: int | None = None
    fake: int | None = None
    reals: str = ""


# UnivFD's 19 sets (Ojha et al., CVPR 2023) in the order of the SDD paper's Tables 1-2, with the sizes of the full
# downloads where these are known here.
UNIVFD = (
    TestSet("progan", "gan"),
    TestSet("cyclegan", "gan", 1321, 1321),
    TestSet("biggan", "gan"),
    TestSet("stylegan", "gan"),
    TestSet("gaugan", "gan"),
    TestSet("stargan", "gan"),
    TestSet("deepfake", "deepfake", 2707, 2698),
    TestSet("sitd", "low-level", 180, 180),
    TestSet("san", "low-level", 219, 219),
    TestSet("crn", "perceptual", 6382, 6382),
    TestSet("imle", "perceptual", 6382, 6382),
    TestSet("guided", "diffusion", 1000, 1000, "imagenet"),
    TestSet("ldm_200", "diffusion", 1000, 1000, "laion"),
    TestSet("ldm_200_cfg", "diffusion", 1000, 1000, "laion"),
    TestSet("ldm_100", "diffusion", 1000, 1000, "laion"),
    TestSet("glide_100_27", "diffusion", 1000, 1000, "laion"),
    TestSet("glide_50_27", "diffusion", 1000, 1000, "laion"),
    TestSet("glide_100_10", "diffusion", 1000, 1000, "laion"),
    TestSet("dalle", "autoregressive", 1000, 1000, "laion"),
)
UNIVFD_FOLDERS = {"sitd": "seeingdark"}  # where a set's folder has another name
UNIVFD_EXTRA = ("stylegan2", "whichfaceisreal")  # in the same archive, not among the 19
PROGAN_4 = ("car", "cat", "chair", "horse")  # the 4-class training setting
PROGAN_20 = tuple(
    "airplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa "
    "train tvmonitor".split()
)

# SynRIS (FakeInversion, CVPR 2024) in the order of the SDD paper's Table 3; no public download is known, so no sizes.
SYNRIS = tuple(
    TestSet(name, "text-to-image")
    for name in (
        "kandinsky2",
        "kandinsky3",
        "pixart_alpha",
        "sdxl_dpo",
        "segmind_vega",
        "sdxl",
        "seg_moe",
        "ssd_1b",
        "stable_cascade",
        "wuerstchen2",
        "midjourney",
        "playground",
        "dalle3",
    )
)
SYNRIS_TRAINING = TestSet("stable_diffusion_v1", "text-to-image")  # what `train` and `val` hold where no folder names it


def opposed(real: str, generators: Collection[str]) -> list[str]:
    """Which of the generators a real of this `generator` value is tested against (the rule of `data.Sample`): those that it
    names, joined by "+"; all of them if it names none (a camera)."""
    named = real.split("+")
    return [g for g in generators if g in named] or list(generators)


def stand_against(reals: Iterable[str], fakes: Iterable[str]) -> dict[str, list[str]]:
    """Generator of fakes -> the `generator` values of the reals that it is tested against."""
    fakes = dict.fromkeys(fakes)
    against = {r: opposed(r, fakes) for r in reals}
    return {g: [r for r in against if g in against[r]] for g in fakes}


def side_of(split: str) -> str:
    """The side of a benchmark that a split lies on: `dev` shares validation's photographs."""
    return "val" if split == "dev" else split
