"""What a detector is made of, as one dataclass; every field names its equation or says that the paper is silent."""

from dataclasses import asdict, dataclass, fields, replace
from math import inf

from . import SDDError

CHOICES = {
    "norm": ("ln_post", "none"),
    "tokens": ("patches", "all"),
    "bank": ("js", "random", "noise", "none"),
    "reference": ("mean", "random"),
    "interval": ("observed", "unit"),
    "reconstruction": ("paper", "printed", "release", "none"),
    "residual": ("none", "bank", "tokens"),
    "enhancement": ("paper", "release", "none"),
    "pool": ("mean", "flatten"),
    "weight": ("exp", "abs", "square"),
    "head": ("linear", "mlp"),
    "metric": ("triplet", "softtriple"),
    "r_over": ("reals", "all"),
    "r_norm": ("mse", "frobenius"),
}
COUNTS = {"lora_r": 1024, "lora_alpha": 2**20, "M": 2**20, "width": 2**14, "heads": 1024, "F_low": 2**14}  # name -> the most
CHANNELS = 2**12  # of a stage, the most
LONGEST = 16  # entries of a list, the most: 16 halvings leave nothing of any picture
BELOW = {"lora_dropout": 1, "attention_dropout": 1} | dict.fromkeys(("margin", "lambda_bce", "lambda_tri", "lambda_r"), inf)
FLAGS = ("train_biases", "detach_attention", "detach_target", "highpass")
LISTS = ("channels", "lora_targets")


@dataclass(frozen=True)
class Preset:
    """All choices that define an SDD. The defaults are preset `paper`: what the paper prints, made shape-consistent (LoRA's
    dropout apart), and where it is silent, which each field says, a choice of ours, never made on test images; what another
    one does is measured in notebooks 02 (bank) and 05 (tokens, target, filters, LoRA; not widths). `release` means the
    authors' public code; facts about it are from reading commit e9ed1ca."""

    # Encoder, Eq. 3. Whether tokens pass CLIP's final LayerNorm ("ln_post") or are raw ("none", release): the paper is silent
    norm: str = "ln_post"
    tokens: str = "patches"  # V_H without CLS, so that N = g*g fits Eq. 10's map; "all" (release): with CLS, 257 on ViT-L/14
    # LoRA, Sec. 4.1: r = alpha = 6. The printed dropout 0.8 is runnable, and not the default (release: 0.05): the sweep of
    # notebook 05 gave it AP 0.960 on dev (three trainings) against 0.963 (twelve), which is no difference
    lora_r: int = 6
    lora_alpha: int = 6
    lora_dropout: float = 0.2
    lora_blocks: int | None = None  # adapt the last k blocks; None: all (release). The paper is silent
    lora_targets: tuple[str, ...] = ("q", "k", "v", "out")  # silent; release: one joint rank for q, k, v, out, both MLP Linears
    train_biases: bool = False  # the tower's biases, class and positional embedding too (release). The paper is silent
    # Token bank, Eq. 2. The paper names no M = 1/epsilon (release: 5000), no reference token ("mean" of the real ones or one at
    # "random") and is silent on segments without tokens: "observed" cuts the range that occurs, "unit" the printed [0, 1]
    bank: str = "js"  # for ablation: "random" real tokens, Gaussian "noise", "none" (V_H stands in for f_s)
    M: int = 256
    reference: str = "mean"
    interval: str = "observed"
    # Reconstruction, Eq. 4-10. "printed": Eq. 5-8 letter for letter, for M = N; "paper": V_H and R3 query in Eq. 6 and 8;
    # "none": left out for ablation, and nothing guides the enhancer then
    reconstruction: str = "paper"
    width: int = 384  # inner width: the paper is silent (release: 2176)
    heads: int = 6  # silent (release: 16)
    attention_dropout: float = 0.0  # silent (release: 0.1)
    residual: str = "none"  # printed: none; "bank" and "tokens" (release) keep Re from collapsing to one token
    detach_attention: bool = False  # no gradient passes an attention's output (release); the paper trains it
    detach_target: bool = False  # Eq. 9: silent. Not detached (release), L_r also draws the encoder's tokens of reals together
    # Enhancement, Eq. 11-13. Widths, pooling and initialisation: the paper is silent. "release" guides two stages, flattens the
    # third and reads neither pool, highpass nor weight; "none", for ablation, leaves the mean of D_s
    enhancement: str = "paper"
    channels: tuple[int, ...] = (32, 64, 64)  # release: 128, 64, 1
    F_low: int = 256  # width of the enhancer's vector (release: 256)
    pool: str = "mean"  # over positions of the last stage, or "flatten" (release)
    highpass: bool = True  # the first stage's filters start without their mean (release: they do not)
    weight: str = "exp"  # f of Eq. 12; "abs" and "square" are Fig. 5's other two (release: square, on F in place of F')
    head: str = "linear"  # Eq. 15: linear; "mlp" (release): BN, Linear 256, BN, ReLU, Linear
    # Losses, Eq. 9, 14, 16. The margin is printed; lambda_1 (_tri), lambda_2 (_r) are the release's, relative to its BCE's 1.5
    metric: str = "triplet"  # Eq. 14; "softtriple" (release), which has no use for the margin below
    margin: float = 8.0
    r_over: str = "reals"  # images that L_r sees, Eq. 9; "all" (release)
    r_norm: str = "mse"  # Eq. 9; "frobenius" (release): root of the summed squares over B * N
    lambda_bce: float = 1.0
    lambda_tri: float = 0.222
    lambda_r: float = 0.667

    def __post_init__(self):
        """A value that no detector can have is an SDDError that names the field."""
        for name in LISTS:
            if not 1 <= len(getattr(self, name)) <= LONGEST:
                raise SDDError(f"preset field {name} has {len(getattr(self, name))} values; give 1 to {LONGEST}")
        whole = {n: (getattr(self, n), most) for n, most in COUNTS.items()}
        whole |= {f"channels[{i}]": (c, CHANNELS) for i, c in enumerate(self.channels)}
        whole |= {"lora_blocks": (self.lora_blocks, 1024)} if self.lora_blocks is not None else {}
        for name, (value, most) in whole.items():
            if type(value) is not int or value < 1:
                raise SDDError(f"preset field {name} = {value!r} is not a whole number above 0")
            if value > most:
                raise SDDError(f"preset field {name} = {value} is more than {most}, the most that is possible here")
        for name, below in BELOW.items():
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < below:
                raise SDDError(f"preset field {name} = {value!r} is not a number from 0 to below {below}")
        for name in FLAGS:
            if type(getattr(self, name)) is not bool:
                raise SDDError(f"preset field {name} = {getattr(self, name)!r} is neither true nor false")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SDDError(f"preset field {name} = {getattr(self, name)!r} is unknown; use {' or '.join(choices)}")
        for wrong, said in (
            (self.width % self.heads, f"width {self.width} cannot be split over {self.heads} heads; choose a multiple"),
            (
                self.reconstruction == self.enhancement == "none",
                "reconstruction and enhancement are both none, which leaves LoRA-CLIP with a linear head; train kind lora",
            ),
            (
                self.enhancement == "release" and self.reconstruction == "none",
                "enhancement of the release is always guided; set it to paper to go without reconstruction",
            ),
            (self.enhancement == "release" and len(self.channels) != 3, "channels of the release's enhancement are three"),
            (
                self.reconstruction == "printed" and (self.residual, self.tokens) != ("none", "patches"),
                "reconstruction as printed has no residual and rebuilds patches; set residual none and tokens patches",
            ),
            (
                self.reconstruction == "release" and self.residual != "tokens",
                "reconstruction of the release has residual tokens; set that",
            ),
            (self.bank == "none" and self.residual == "bank", "bank none has no tokens that residual bank could add"),
        ):
            if wrong:
                raise SDDError(f"preset field {said}")

    @property
    def lora(self) -> dict:
        """What `Backbone.add_lora` takes."""
        names = {"r": "lora_r", "alpha": "lora_alpha", "dropout": "lora_dropout", "blocks": "lora_blocks"}
        names |= {"targets": "lora_targets", "biases": "train_biases"}
        return {argument: getattr(self, name) for argument, name in names.items()}

    def with_fields(self, **changes) -> "Preset":
        """A copy with some fields changed; an unknown name is refused."""
        known = [f.name for f in fields(self)]
        if unknown := [name for name in changes if name not in known]:
            raise SDDError(f"preset has no field {unknown[0]!r}; it has {', '.join(known)}")
        for name in LISTS:
            if name in changes:
                if not isinstance(changes[name], (list, tuple)):
                    raise SDDError(f"preset field {name} = {changes[name]!r} is not a list")
                changes[name] = tuple(changes[name])
        return replace(self, **changes)

    def as_dict(self) -> dict:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


PRESETS = {
    "paper": Preset(),
    # Eq. 5-8 letter for letter, which needs M = N: as many tokens as ViT-L/14 has patches at 224 px
    "printed": Preset(reconstruction="printed", M=256),
    # The right-hand column of the table in notebook 05, whole. What it leaves open keeps the paper's or our default
    "release": Preset(
        norm="none",
        tokens="all",
        lora_dropout=0.05,
        lora_targets=("qkv", "out", "c_fc", "c_proj"),
        train_biases=True,
        M=5000,
        reconstruction="release",
        width=2176,
        heads=16,
        attention_dropout=0.1,
        residual="tokens",
        detach_attention=True,
        enhancement="release",
        channels=(128, 64, 1),
        pool="flatten",
        highpass=False,
        weight="square",
        head="mlp",
        metric="softtriple",
        r_over="all",
        r_norm="frobenius",
        lambda_bce=1.5,
        lambda_tri=0.333,
        lambda_r=1.0,
    ),
}


def get_preset(name: str, **changes) -> Preset:
    """The named preset with fields changed; errors name what exists."""
    if name not in PRESETS:
        raise SDDError(f"preset {name!r} is unknown; there are {', '.join(PRESETS)}")
    return PRESETS[name].with_fields(**changes)
