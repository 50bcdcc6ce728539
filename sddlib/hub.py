"""Weights behind an open_clip tag: from the local hub cache, else downloaded if the hub answers a first quick call."""

import threading
import urllib.error
import urllib.request
from pathlib import Path

import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from sddlib import SDDError
from sddlib.checkpoints import Source, read_source
from sddlib.embedded import sha256

PATIENCE = 6.0  # seconds for the hub's first answer; its client would retry for minutes


def find_tag(name: str, tag: str) -> Source:
    """The image tower of an open_clip tag ("openai", "laion2b_s34b_b88k", ...), with its activation, mean and std."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    config = open_clip.get_pretrained_cfg(name, tag)
    if not config:
        # open_clip lists a tag only under the names it was registered for; the activation may be the whole difference.
        other = name.removesuffix("-quickgelu") if name.endswith("-quickgelu") else f"{name}-quickgelu"
        if open_clip.get_pretrained_cfg(other, tag):
            raise SDDError(f"The tag {tag!r} does not belong to {name}, whose activation differs: use the name {other}.")
        known = f"open_clip knows {', '.join(tags)}" if tags else "open_clip has no weights for it"
        raise SDDError(f"No weights {tag!r} for {name} ({known}): give such a tag, a path, or 'embedded'.")
    # A configuration that says nothing about its activation means plain GELU, in open_clip and here.
    quick = bool(config.get("quick_gelu", False))
    if quick != open_clip.get_model_config(name).get("quick_gelu", False):
        return Source({}, f"{tag!r}", dict(config), quick)  # refused by its activation before anything is fetched
    source = read_source(_download(name, tag, config), f"{tag!r} for {name}")
    return Source(source.state, source.label, dict(config), quick)


def _download(name: str, tag: str, config: dict) -> Path:
    """The tag's file in the hub's cache; one SDDError at once where it is not there and the hub does not answer."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not config.get("hf_hub"):
        raise SDDError(f"{tag!r} for {name} is not on the model hub: download it by hand and give its path.")
    repository, _, file = config["hf_hub"].rpartition("/")
    files = [file] if file else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    for candidate in files:
        try:
            return Path(hf_hub_download(repository, candidate, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    url = config.get("url", "")
    by_hand = f"download {url} elsewhere" if url else f"copy {files[0]} of {repository} from a machine that can"
    cure = f"{by_hand} and give its path as weights, or use ViT-B-16-quickgelu with 'embedded'"
    if constants.HF_HUB_OFFLINE:
        raise SDDError(f"{tag!r} for {name} is not in the hub cache and HF_HUB_OFFLINE is set: unset it, or {cure}.")
    if reason := unreachable(constants.ENDPOINT):
        raise SDDError(f"Cannot reach the model hub for {tag!r} of {name} ({reason}): {cure}.")
    for candidate in files:
        print(f"Fetching {candidate} of {repository} from the model hub for {name} ({tag})")
        try:
            path = Path(hf_hub_download(repository, candidate))
        except Exception as error:  # its HTTP client has errors of its own
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue  # an answer: this file name is not there, the next may be
            raise SDDError(f"The model hub failed on {candidate} of {repository} ({_short(error)}): {cure}.") from error
        return _check_blob(path)
    raise SDDError(f"{repository} holds neither {' nor '.join(files)}: {cure}.")


def unreachable(endpoint: str, patience: float = PATIENCE) -> str:
    """Why ``endpoint`` does not answer within ``patience`` seconds, or "" if it does (any HTTP status is an answer)."""
    found = ["no answer"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=patience).close()
            found[0] = ""
        except urllib.error.HTTPError:
            found[0] = ""
        except urllib.error.URLError as error:
            found[0] = str(error.reason)
        except (OSError, ValueError) as error:
            found[0] = _short(error)

    # A thread, because a name lookup knows no timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    return found[0]


def _check_blob(path: Path) -> Path:
    """The hub names large files by their SHA-256: a fresh download has to be what its name says."""
    blob = path.resolve()
    if len(blob.name) == 64 and sha256(blob) != blob.name:
        blob.unlink()
        raise SDDError(f"The download of {path.name} is corrupt (its SHA-256 is not {blob.name}) and was deleted: try again.")
    return path


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
