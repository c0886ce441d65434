"""What a network may be told: frozen encoders, their tokenizers, a cache of embeddings, and condition dropout."""

from bottega.conditioning.bundle import Encoders as Encoders
from bottega.conditioning.bundle import TruncationWarning as TruncationWarning
from bottega.conditioning.cache import CacheReport as CacheReport
from bottega.conditioning.cache import EmbeddingCache as EmbeddingCache
from bottega.conditioning.dropout import ConditionDropout as ConditionDropout
from bottega.conditioning.encoders import EncodedText as EncodedText
from bottega.conditioning.encoders import ImageEncoder as ImageEncoder
from bottega.conditioning.encoders import TextEncoder as TextEncoder
from bottega.conditioning.encoders import load_clip_image as load_clip_image
from bottega.conditioning.encoders import load_clip_text as load_clip_text
from bottega.conditioning.encoders import load_t5 as load_t5
from bottega.conditioning.retrieval import Retrieval as Retrieval
from bottega.conditioning.retrieval import retrieval_accuracy as retrieval_accuracy
from bottega.conditioning.spans import find_phrase as find_phrase
from bottega.conditioning.spans import phrase_tokens as phrase_tokens
from bottega.conditioning.spans import tokens_of as tokens_of
from bottega.conditioning.tiny import TinyClipConfig as TinyClipConfig
from bottega.conditioning.tiny import TinyT5Config as TinyT5Config
from bottega.conditioning.tiny import build_clip as build_clip
from bottega.conditioning.tiny import build_t5 as build_t5
from bottega.conditioning.tiny import save_clip as save_clip
from bottega.conditioning.tiny import save_t5 as save_t5
from bottega.conditioning.tokenizers import TokenizerConfig as TokenizerConfig
from bottega.conditioning.tokenizers import train_tokenizer as train_tokenizer

__all__ = [
    "CacheReport",
    "ConditionDropout",
    "EmbeddingCache",
    "EncodedText",
    "Encoders",
    "ImageEncoder",
    "Retrieval",
    "TextEncoder",
    "TinyClipConfig",
    "TinyT5Config",
    "TokenizerConfig",
    "TruncationWarning",
    "build_clip",
    "build_t5",
    "find_phrase",
    "load_clip_image",
    "load_clip_text",
    "load_t5",
    "phrase_tokens",
    "retrieval_accuracy",
    "save_clip",
    "save_t5",
    "tokens_of",
    "train_tokenizer",
]
