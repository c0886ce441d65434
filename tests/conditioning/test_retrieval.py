import pytest
import torch

from bottega.conditioning import Encoders, retrieval_accuracy
from bottega.errors import InputError


def pictures(count):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_untrained_towers_find_partners_about_as_often_as_chance(encoders, texts):
    distinct = list(dict.fromkeys(texts))[:200]
    found = retrieval_accuracy(encoders, pictures(200), distinct)
    assert found.num_pairs == 200
    assert found.text_to_image_top1 <= 0.05
    assert found.image_to_text_top1 <= found.image_to_text_top5 <= 0.15
    assert found.text_to_image_top1 <= found.text_to_image_top5 <= 0.15


def test_equal_captions_are_all_right_answers(encoders):
    found = retrieval_accuracy(encoders, pictures(6), ["a cat", "A  cat"] * 3)
    assert found.text_to_image_top1 == found.image_to_text_top1 == 1.0


def test_what_cannot_be_matched_is_refused(encoders, t5_folder):
    with pytest.raises(InputError, match="caption per picture"):
        retrieval_accuracy(encoders, pictures(2), ["a cat"])
    with pytest.raises(InputError, match="both towers"):
        retrieval_accuracy(Encoders.load(folder_t5=t5_folder), pictures(1), ["a cat"])
