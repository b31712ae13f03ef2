"""What the token tests compare with: OpenAI's files of ranks, and small tokenizers of Hugging Face's."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sluicegate.tokens import get_encoding

ROOT = Path(__file__).parents[2]
URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
RANKED = ("r50k_base", "p50k_base", "cl100k_base", "o200k_base")
# What tiktoken calls each encoding's ranks.
NAMES = (*RANKED, "p50k_edit", "o200k_harmony")

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def ranks_file(name: str) -> bytes:
    """The file of ranks as OpenAI publishes it, from what the wheel bundles."""
    encoding = get_encoding(name)
    lines = []
    for rank in range(encoding.n_vocab):
        try:
            token = encoding.decode_single_token_bytes(rank)
        except KeyError:
            continue
        if not encoding.is_special_token(rank):
            lines.append(base64.b64encode(token) + b" %d\n" % rank)
    return b"".join(lines)


def trained(kind: str, texts: list[str]) -> Any:
    """A small tokenizer in the form of Qwen's and Llama 3's, or of Mistral's and Llama 2's."""
    if kind == "byte_level":
        made: Any = Tokenizer(models.BPE(ignore_merges=True))
        split = pre_tokenizers.Split(Regex(QWEN), "isolated")
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.normalizer = normalizers.NFC()
        made.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_])
        made.decoder = decoders.ByteLevel()
        special = ["<|endoftext|>", "<|im_start|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=1500,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=special,
            show_progress=False,
        )
    else:
        made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
        special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=special, show_progress=False)
        # Without pieces the trainer takes whole texts as words.
        texts = [line for text in texts for line in text.split("\n")]
    made.train_from_iterator(texts, trainer)
    return made
