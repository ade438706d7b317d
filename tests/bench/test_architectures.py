import pytest
from transformers import ModernBertConfig

from bench import architectures


@pytest.mark.slow
def test_contenders_and_peak_memory_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "BATCHES", {"3 of 2 to 40": (3, 2, 40)})
    monkeypatch.setattr(architectures, "LONG_TEXTS", (64,))
    config = ModernBertConfig(
        vocab_size=architectures.VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, local_attention=8, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2,
        eos_token_id=3, reference_compile=False,
    )  # fmt: skip
    figures = architectures.measure(config, rounds=2)
    batch = figures["3 of 2 to 40"]
    assert list(batch) == ["packed", "all as long as the longest", "PyTorch, padded", "ratios to the first", "tokens"]
    assert batch["tokens"][0] < batch["tokens"][1] == 120
    assert len(batch["ratios to the first"]) == 2
    assert figures["64 tokens"]["seconds"] > 0


def test_batches_have_the_shortest_and_the_longest_text() -> None:
    lengths = [len(sequence) for sequence in architectures.draw_sequences(8, 8, 512)]
    assert (len(lengths), lengths[:2]) == (8, [8, 512])
    assert all(8 <= length <= 512 for length in lengths)
    assert [len(sequence) for sequence in architectures.draw_sequences(1, 64, 64)] == [64]
