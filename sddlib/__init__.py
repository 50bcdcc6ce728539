"""sddlib: the thin module under the Semantic Discrepancy-aware Detector notebooks. Label 1 = fake, everywhere."""

__version__ = "0.1.0"


class SDDError(ValueError):
    """An input that cannot be used; the message is one sentence that names the thing and the cure."""
