"""Subword tokenizers of our own: lower-case byte-level BPE, so that no word is unknown and a misspelt one has pieces.

They are saved in Hugging Face format (``tokenizer.json``, ``tokenizer_config.json``) and read by the same code as
T5's and CLIP's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bottega.errors import ConfigError

PAD = "<pad>"
START = "<|startoftext|>"
END = "<|endoftext|>"
T5_END = "</s>"
UNKNOWN = "<unk>"


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How many pieces a tokenizer has, how many tokens a text may take, and how many sentinels mark hidden spans."""

    vocab_size: int = 2048
    max_tokens: int = 32
    num_sentinels: int = 16

    def __post_init__(self) -> None:
        if self.vocab_size < 512:
            raise ConfigError(
                f"vocab_size must hold 256 bytes, special tokens and merges: at least 512, got {self.vocab_size}"
            )
        if self.max_tokens < 4:
            raise ConfigError(f"max_tokens must be at least 4, got {self.max_tokens}")
        if self.num_sentinels < 1:
            raise ConfigError(f"num_sentinels must be at least 1, got {self.num_sentinels}")


def sentinel(index: int) -> str:
    """The token that stands for hidden span number ``index``, as T5 writes it."""
    return f"<extra_id_{index}>"


def train_tokenizer(
    texts: Iterable[str], kind: Literal["t5", "clip"], config: TokenizerConfig | None = None
) -> Any:
    """Learn a tokenizer from texts.

    Args:
        texts: Captions, names and keywords; a word that occurs often becomes one piece.
        kind: ``t5`` ends a text with ``</s>`` and knows sentinels; ``clip`` brackets it with start and end tokens.
        config: Sizes; the defaults are piccolo's.

    Returns:
        A ``transformers.PreTrainedTokenizerFast``.
    """
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    config = TokenizerConfig() if config is None else config
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=_special_tokens(kind, config),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [T5_END] if kind == "t5" else [START, END]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {T5_END}" if kind == "t5" else f"{START} $A {END}",
        special_tokens=[(end, tokenizer.token_to_id(end)) for end in ends],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=config.max_tokens,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=T5_END if kind == "t5" else END,
        bos_token=None if kind == "t5" else START,
        padding_side="right",
        truncation_side="right",
    )


def load_tokenizer(folder: str) -> Any:
    """Read the tokenizer of a Hugging Face folder."""
    from pathlib import Path

    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # tokenizer.json says everything; only where it is missing must a class convert older files.
    if (Path(folder) / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _special_tokens(kind: str, config: TokenizerConfig) -> list[str]:
    if kind == "t5":
        return [PAD, T5_END, UNKNOWN, *(sentinel(i) for i in range(config.num_sentinels))]
    # CLIP's end token must not be number 2: transformers reads that as an old checkpoint's mark, and pools elsewhere.
    return [PAD, START, UNKNOWN, END]


__all__ = ["TokenizerConfig", "load_tokenizer", "sentinel", "train_tokenizer"]
