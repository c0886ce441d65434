import multiprocessing
import threading
import time

import pytest
import torch

from bottega.conditioning import EmbeddingCache, Encoders
from bottega.errors import ConfigError, DataError


@pytest.fixture
def cache(tmp_path, encoders):
    return EmbeddingCache(tmp_path / "cache", encoders)


def files(folder, suffix):
    return sorted(folder.rglob(f"*{suffix}"))


def test_cached_features_are_those_of_the_encoder_rounded_once(cache, encoders, texts):
    wanted = [*texts[:40], "", "misspelt umbrela"]
    direct = encoders.encode_texts(wanted, rows=64)
    for _ in range(2):  # fresh, then read
        for name, stream in cache.encode_texts(wanted).items():
            expected = direct[name].stream
            assert stream.tokens.dtype == torch.float32
            assert torch.equal(stream.mask, expected.mask)
            torch.testing.assert_close(stream.tokens, expected.tokens, atol=2e-3, rtol=2e-3)
            if expected.pooled is None:
                assert stream.pooled is None
            else:
                torch.testing.assert_close(stream.pooled, expected.pooled, atol=2e-3, rtol=2e-3)


def test_what_was_just_encoded_and_what_is_read_later_are_the_same_to_the_last_bit(
    tmp_path, encoders, texts
):
    fresh = EmbeddingCache(tmp_path, encoders).encode_texts(texts[:30])
    read = EmbeddingCache(tmp_path, encoders).encode_texts(texts[:30])
    for name, stream in fresh.items():
        assert torch.equal(stream.tokens, read[name].tokens)


def test_each_text_is_encoded_once_in_its_life(tmp_path, encoders, texts, monkeypatch):
    EmbeddingCache(tmp_path, encoders).encode_texts(texts[:30])

    def refuse(*_args, **_kwargs):
        raise RuntimeError("encoded again")

    for encoder in encoders.texts.values():
        monkeypatch.setattr(encoder, "features", refuse)
    streams = EmbeddingCache(tmp_path, encoders).encode_texts([texts[5], texts[5], texts[2]])
    assert torch.equal(streams["t5"].tokens[0], streams["t5"].tokens[1])


def test_order_and_repetition_are_the_askers(cache, texts):
    first = cache.encode_texts(texts[:10])["t5"].tokens
    order = [7, 7, 0, 3]
    again = cache.encode_texts([texts[i] for i in order])["t5"].tokens
    assert torch.equal(again, first[order])


def test_the_dtype_is_the_askers(cache):
    assert cache.encode_texts(["a cat"], dtype=torch.bfloat16)["t5"].tokens.dtype == torch.bfloat16


def test_no_texts_give_empty_streams(cache):
    assert len(cache.encode_texts([])["t5"].tokens) == 0


def test_the_report_counts_texts_and_what_was_cut(cache, encoders):
    cache.encode_texts(["a cat", "a dog", "cat " * 40, "dog " * 18])
    report = cache.report()
    assert (report["t5"].texts, report["t5"].truncated) == (4, 2)
    assert (report["clip_text"].texts, report["clip_text"].truncated) == (4, 1)
    assert report["t5"].truncated_frac == 0.5
    assert report["t5"].digest == encoders.texts["t5"].digest
    assert report["t5"].forecast_bytes(8) == 2 * report["t5"].size_bytes


def test_an_empty_cache_reports_nothing(cache):
    report = cache.report()["t5"]
    assert (report.texts, report.truncated_frac, report.forecast_bytes(100)) == (0, 0.0, 0)


def test_only_real_tokens_take_space(cache, encoders):
    cache.encode_texts(["cat"])
    before = cache.report()["t5"].size_bytes
    tokens = int(encoders.texts["t5"].encode(["cat"]).stream.mask.sum())
    assert before == 2 * tokens * encoders.texts["t5"].width + 40  # and a record of 40 bytes


def damage(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def test_damage_is_found_when_read_and_mended_when_asked(tmp_path, encoders, texts):
    before = EmbeddingCache(tmp_path, encoders).encode_texts(texts[:20])
    data = next(path for path in files(tmp_path, ".data") if path.parent.name.startswith("t5"))
    damage(data, 10)
    cache = EmbeddingCache(tmp_path, encoders)
    with pytest.raises(DataError, match=r"part-00000\.data is damaged"):
        cache.encode_texts(texts[:20])
    assert cache.verify()["t5"].damaged == 1
    assert cache.verify()["clip_text"].damaged == 0
    assert cache.verify(repair=True)["t5"].damaged == 1
    assert cache.verify()["t5"].damaged == 0
    again = cache.encode_texts(texts[:20])
    torch.testing.assert_close(again["t5"].tokens, before["t5"].tokens, atol=2e-3, rtol=2e-3)
    assert EmbeddingCache(tmp_path, encoders).verify()["t5"].texts == len(set(texts[:20]))


def test_data_that_was_cut_off_is_damage(tmp_path, encoders, texts):
    EmbeddingCache(tmp_path, encoders).encode_texts(texts[:20])
    for data in files(tmp_path, ".data"):
        data.write_bytes(data.read_bytes()[:-7])
    cache = EmbeddingCache(tmp_path, encoders)
    assert {report.damaged for report in cache.verify().values()} == {1}
    for data in files(tmp_path, ".data"):
        data.write_bytes(b"")
    with pytest.raises(DataError):
        EmbeddingCache(tmp_path, encoders).encode_texts(texts[:1])


@pytest.mark.parametrize("cut", [1, 39, 41])
def test_a_torn_index_loses_only_its_last_records(tmp_path, encoders, texts, cut):
    distinct = list(dict.fromkeys(texts))[:20]
    before = EmbeddingCache(tmp_path, encoders).encode_texts(distinct)
    for index in files(tmp_path, ".index"):
        index.write_bytes(index.read_bytes()[:-cut])
    cache = EmbeddingCache(tmp_path, encoders)
    assert cache.report()["t5"].texts == 20 - (cut + 39) // 40
    after = cache.encode_texts(distinct)
    torch.testing.assert_close(after["t5"].tokens, before["t5"].tokens, atol=2e-3, rtol=2e-3)


def test_a_damaged_record_is_passed_over(tmp_path, encoders, texts):
    distinct = list(dict.fromkeys(texts))[:5]
    EmbeddingCache(tmp_path, encoders).encode_texts(distinct)
    for index in files(tmp_path, ".index"):
        damage(index, 45)
    cache = EmbeddingCache(tmp_path, encoders)
    assert cache.report()["t5"].texts == 4
    cache.encode_texts(distinct)
    assert cache.report()["t5"].texts == 5


def test_another_encoder_never_reads_what_this_one_wrote(tmp_path, t5_folder, encoders):
    EmbeddingCache(tmp_path, encoders).encode_texts(["a cat"])
    other = Encoders.load(folder_t5=t5_folder, max_tokens={"t5": 8})
    cache = EmbeddingCache(tmp_path, other)
    assert cache.report()["t5"].texts == 0
    assert cache.encode_texts(["a cat"])["t5"].tokens.shape[1] == 8


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_folder_that_holds_something_else_is_refused(tmp_path, encoders, content):
    EmbeddingCache(tmp_path, encoders)
    files(tmp_path, "manifest.json")[0].write_text(content)
    with pytest.raises(DataError, match="delete the folder"):
        EmbeddingCache(tmp_path, encoders)


def test_two_writers_share_what_they_find(tmp_path, encoders, texts):
    first, second = EmbeddingCache(tmp_path, encoders), EmbeddingCache(tmp_path, encoders)
    distinct = list(dict.fromkeys(texts))
    first.encode_texts(distinct[:5])
    second.encode_texts(distinct[3:8])
    assert first.report()["t5"].texts == 5
    first.refresh()
    assert first.report()["t5"].texts == 8
    third = EmbeddingCache(tmp_path, encoders)
    assert third.report()["t5"].texts == 8
    assert third.verify()["t5"].damaged == 0
    assert len(files(tmp_path, ".data")) == 4  # two encoders, two writers


def test_threads_may_ask_at_once(cache, texts):
    errors = []

    def ask(start):
        try:
            cache.encode_texts(texts[start : start + 40])
        except Exception as error:  # reported below
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(0, 80, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert cache.verify()["t5"].damaged == 0


def fill(folder, t5, clip, wanted):
    cache = EmbeddingCache(folder, Encoders.load(folder_t5=t5, folder_clip=clip), rows=1)
    for text in wanted:
        cache.encode_texts([text])


def test_a_writer_that_is_killed_leaves_a_cache_that_can_be_read(
    tmp_path, encoders, t5_folder, clip_folder, texts
):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=fill, args=(tmp_path, t5_folder, clip_folder, texts))
    process.start()
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in files(tmp_path, ".index")):
        assert time.monotonic() < deadline, "the writer never began"
        time.sleep(0.02)
    process.kill()
    process.join()
    cache = EmbeddingCache(tmp_path, encoders)
    assert cache.report()["t5"].texts > 0
    assert {report.damaged for report in cache.verify().values()} == {0}
    cache.encode_texts(texts[:20])


def test_looking_up_is_cheaper_than_even_the_smallest_encoder(cache, encoders, texts):
    distinct = list(dict.fromkeys(texts))[:512]
    cache.encode_texts(distinct)

    def cost(work):
        times = []
        for _ in range(3):
            start = time.process_time()
            for at in range(0, 512, 64):
                work(distinct[at : at + 64])
            times.append(time.process_time() - start)
        return min(times)

    assert cost(cache.encode_texts) < cost(lambda part: encoders.encode_texts(part, rows=64)) / 2


def test_features_that_float16_cannot_hold_are_refused(tmp_path, t5_folder):
    encoders = Encoders.load(folder_t5=t5_folder)
    encoder = encoders.texts["t5"]
    encoder.model.encoder.final_layer_norm.weight.data.fill_(1e6)
    with pytest.raises(DataError, match="float16"):
        EmbeddingCache(tmp_path, encoders).encode_texts(["a cat"])


def test_a_full_part_is_followed_by_another(tmp_path, encoders, texts, monkeypatch):
    monkeypatch.setattr("bottega.conditioning.cache_store._PART_BYTES", 100)
    cache = EmbeddingCache(tmp_path, encoders)
    for text in dict.fromkeys(texts[:4]):
        cache.encode_texts([text])
    assert len(files(tmp_path, ".data")) > 2
    assert cache.verify()["t5"].damaged == 0


def test_rows_below_one_are_refused(tmp_path, encoders):
    with pytest.raises(ConfigError, match="rows"):
        EmbeddingCache(tmp_path, encoders, rows=0)
