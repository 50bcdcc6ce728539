"""The public benchmarks as data: test sets in the papers' order, families, published sizes. No image is read here."""

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


# UnivFD's 19 sets (Ojha et al., CVPR 2023) in the order of the SDD paper's Tables 1-2; sizes from the full downloads.
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
PROGAN_4 = ("car", "cat", "chair", "horse")  # the 4-class training setting

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
