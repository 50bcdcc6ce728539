"""What a detector is made of, as one dataclass; every field names its equation or says that the paper is silent."""

from dataclasses import asdict, dataclass, fields, replace
from math import inf

from . import SDDError

CHOICES = {
    "norm": ("ln_post", "none"),
    "reference": ("mean", "random"),
    "interval": ("observed", "unit"),
    "residual": ("none", "bank", "tokens"),
    "pool": ("mean", "flatten"),
}


@dataclass(frozen=True)
class Preset:
    """All choices that define an SDD. The defaults are preset `paper`: what the paper prints, made shape-consistent (LoRA's
    dropout apart), and where it is silent, which each field says, what was chosen on validation photographs."""

    norm: str = "ln_post"  # tokens after CLIP's final LayerNorm, or "none": raw (release). The paper is silent
    # LoRA, Sec. 4.1: r = alpha = 6. The printed dropout 0.8 is runnable; the default was chosen on validation
    lora_r: int = 6
    lora_alpha: int = 6
    lora_dropout: float = 0.2
    lora_blocks: int | None = None  # adapt the last k blocks; None: all (release). The paper is silent
    # Token bank, Eq. 2. M, reference token and interval: the paper is silent
    M: int = 256
    reference: str = "mean"
    interval: str = "observed"
    # Reconstruction, Eq. 4-10. The inner width and the number of heads: the paper is silent (release: 2176, 16)
    width: int = 384
    heads: int = 6
    attention_dropout: float = 0.0
    residual: str = "none"  # printed: none; "bank" and "tokens" (release) keep Re from collapsing to one token
    detach_target: bool = False  # Eq. 9: silent. Not detached (release), L_r also draws the encoder's tokens of reals together
    # Enhancement, Eq. 11-13. Widths, pooling and initialisation: the paper is silent
    channels: tuple[int, ...] = (32, 64, 64)
    F_low: int = 256  # width of the enhancer's vector (release: 256)
    pool: str = "mean"
    highpass: bool = True  # the first stage's filters start without their mean
    # Losses, Eq. 14 and 16. The margin is printed; the weights are the release's, relative to the BCE's 1.5
    margin: float = 8.0
    lambda_tri: float = 0.222
    lambda_r: float = 0.667

    def __post_init__(self):
        """A value that no detector can have is an SDDError that names the field."""
        counts = ("lora_r", "lora_alpha", "M", "width", "heads", "F_low")
        whole = {n: getattr(self, n) for n in counts} | {f"channels[{i}]": c for i, c in enumerate(self.channels)}
        whole |= {"lora_blocks": self.lora_blocks} if self.lora_blocks is not None else {}
        for name, value in whole.items():
            if type(value) is not int or value < 1:
                raise SDDError(f"preset field {name} = {value!r} is not a whole number above 0")
        for name, below in (
            ("lora_dropout", 1),
            ("attention_dropout", 1),
            ("margin", inf),
            ("lambda_tri", inf),
            ("lambda_r", inf),
        ):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < below:
                raise SDDError(f"preset field {name} = {value!r} is not a number from 0 to below {below}")
        for name in ("detach_target", "highpass"):
            if type(getattr(self, name)) is not bool:
                raise SDDError(f"preset field {name} = {getattr(self, name)!r} is neither true nor false")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SDDError(f"preset field {name} = {getattr(self, name)!r} is unknown; use {' or '.join(choices)}")
        if not self.channels:
            raise SDDError("preset field channels is empty; give one width a stage")

    def with_fields(self, **changes) -> "Preset":
        """A copy with some fields changed; an unknown name is refused."""
        known = [f.name for f in fields(self)]
        if unknown := [name for name in changes if name not in known]:
            raise SDDError(f"preset has no field {unknown[0]!r}; it has {', '.join(known)}")
        if "channels" in changes:
            if not isinstance(changes["channels"], (list, tuple)):
                raise SDDError(f"preset field channels = {changes['channels']!r} is not a list of widths, one a stage")
            changes["channels"] = tuple(changes["channels"])
        return replace(self, **changes)

    def as_dict(self) -> dict:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


PRESETS = {"paper": Preset()}


def get_preset(name: str, **changes) -> Preset:
    """The named preset with fields changed; errors name what exists."""
    if name not in PRESETS:
        raise SDDError(f"preset {name!r} is unknown; there are {', '.join(PRESETS)}")
    return PRESETS[name].with_fields(**changes)
