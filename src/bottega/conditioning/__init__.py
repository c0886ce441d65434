"""What a network may be told: frozen encoders, their tokenizers, a cache of embeddings, and condition dropout."""

from bottega.conditioning.bundle import Encoders as Encoders
from bottega.conditioning.bundle import TruncationWarning as TruncationWarning
from bottega.conditioning.dropout import ConditionDropout as ConditionDropout
from bottega.conditioning.encoders import EncodedText as EncodedText
from bottega.conditioning.encoders import ImageEncoder as ImageEncoder
from bottega.conditioning.encoders import TextEncoder as TextEncoder
from bottega.conditioning.encoders import load_clip_image as load_clip_image
from bottega.conditioning.encoders import load_clip_text as load_clip_text
from bottega.conditioning.encoders import load_t5 as load_t5
from bottega.conditioning.tiny import TinyClipConfig as TinyClipConfig
from bottega.conditioning.tiny import TinyT5Config as TinyT5Config
from bottega.conditioning.tiny import build_clip as build_clip
from bottega.conditioning.tiny import build_t5 as build_t5
from bottega.conditioning.tiny import save_clip as save_clip
from bottega.conditioning.tiny import save_t5 as save_t5
from bottega.conditioning.tokenizers import TokenizerConfig as TokenizerConfig
from bottega.conditioning.tokenizers import train_tokenizer as train_tokenizer

__all__ = [
    "ConditionDropout",
    "EncodedText",
    "Encoders",
    "ImageEncoder",
    "TextEncoder",
    "TinyClipConfig",
    "TinyT5Config",
    "TokenizerConfig",
    "TruncationWarning",
    "build_clip",
    "build_t5",
    "load_clip_image",
    "load_clip_text",
    "load_t5",
    "save_clip",
    "save_t5",
    "train_tokenizer",
]
