"""Systems to stand SDD against, one a file: the nine of the paper behind one interface (`base`), and two of our own."""

from importlib import import_module

from .. import SDDError

# kind -> module and class below this package; a new baseline is its file and one line here
BASELINES = {
    "cnnspot": "cnnspot.CNNSpot",
    "cnnspot_half": "cnnspot.CNNSpotHalf",
    "patchfor": "patchfor.PatchFor",
    "cooccurrence": "cooccurrence.Cooccurrence",
    "freqspec": "freqspec.FreqSpec",
    "univfd": "univfd.UnivFD",
    "univfd_nearest": "univfd.UnivFDNearest",
    "npr": "npr.NPR",
    "dire": "dire.DIRE",
    "fatformer": "fatformer.FatFormer",
    "fakeinversion": "fakeinversion.FakeInversion",
}


def baseline(kind: str) -> type:
    """The class of a kind; imported when asked for, because some need libraries that the others do not."""
    if kind not in BASELINES:
        raise SDDError(f"there is no baseline {kind!r}; there are {', '.join(BASELINES)}")
    module, name = BASELINES[kind].split(".")
    try:
        return getattr(import_module(f".{module}", __name__), name)
    except ImportError as e:
        raise SDDError(f"{kind} needs a library that is missing ({e}); install sddlib with its extra `baselines`") from None
