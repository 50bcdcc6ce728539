"""FatFormer's words: the prompts "real" and "fake" behind learned context tokens, through CLIP's frozen text tower."""

import hashlib

import open_clip
import torch
from open_clip.model import _build_text_tower
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from .. import SDDError
from ..weights import model_config
from .base import read_weights

NAMES = ("real", "fake")  # in the order of the labels
TINY_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}  # beside the tiny image tower


def load_text(name: str, weights: str, E: int) -> tuple[TextTransformer, str]:
    """(the frozen text tower of the CLIP `name`, which one it is). weights: a file with the tensors of a full CLIP, "random"
    for tests. E: width of the image embedding, which contexts enriched by patches must share."""
    config = model_config(name)
    sizes = TINY_TEXT if name == "tiny" else config.get("text_cfg", {})
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower = _build_text_tower(config["embed_dim"], sizes, config.get("quick_gelu", False))
    if not isinstance(tower, TextTransformer) or tower.token_embedding.embedding_dim != E:
        raise SDDError(
            f"the text tower of {name} is no plain CLIP's as wide as its embedding; use one such as ViT-B-16 or ViT-L-14"
        )
    if weights != "random":
        with torch.device("cpu"):
            held = read_weights(weights, "FatFormer's text tower")
        wanted = tower.state_dict().keys()
        try:
            tower.load_state_dict({k: v.float() for k, v in held.items() if k in wanted})
        except RuntimeError as e:
            said = " ".join(str(e).split())[:160]
            raise SDDError(f"{weights} does not hold the text tower of {name} ({said}); give a full CLIP's tensors") from None
    seen = hashlib.sha256(tower.text_projection.detach().contiguous().numpy().tobytes()).hexdigest()[:16]
    return tower.requires_grad_(False).eval(), seen


def enhance(contexts: Tensor, patches: Tensor) -> Tensor:
    """Patch-based enhancer: p + softmax(p f^T) f. contexts p: (C, E); patches f: (B, N, E) -> (B, C, E)."""
    return contexts + torch.softmax(contexts @ patches.transpose(1, 2), -1) @ patches


class Prompts(nn.Module):
    """patches (B, N, E) -> embeddings (B, 2, E) of real and fake. tower: frozen; contexts: how many learned tokens."""

    def __init__(self, tower: TextTransformer, fingerprint: str, contexts: int):
        super().__init__()
        self.tower, self.fingerprint = tower, fingerprint
        width, start, end = tower.token_embedding.embedding_dim, 49406, 49407
        room = tower.context_length - 3  # beside start, end and a class's name of one token
        if type(contexts) is not int or not 1 <= contexts <= room:
            said = f"{contexts!r} context tokens do not fit the {tower.context_length} of this text tower"
            raise SDDError(f"{said}; ask for 1 to {room}")
        self.contexts = nn.Parameter(torch.randn(contexts, width) * 0.02)
        tokenizer = open_clip.SimpleTokenizer()
        words = [tokenizer.encode(name) for name in NAMES]
        ids = [[start, *[0] * contexts, *word, end] for word in words]  # a token each: equally long
        self.register_buffer("ids", torch.tensor(ids, device="cpu"), persistent=False)  # also where the rest is mere shapes

    def forward(self, patches: Tensor) -> Tensor:
        t, B, L = self.tower, len(patches), self.ids.shape[1]
        x = t.token_embedding(self.ids).expand(B, -1, -1, -1).clone()  # (B, 2, L, E)
        x[:, :, 1 : 1 + len(self.contexts)] = enhance(self.contexts, patches)[:, None]
        x = (x + t.positional_embedding[:L]).flatten(0, 1)  # (2B, L, E)
        x = t.transformer(x, attn_mask=t.attn_mask[:L, :L])
        return (t.ln_final(x[:, -1]) @ t.text_projection).view(B, 2, -1)  # what the end token has gathered
