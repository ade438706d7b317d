"""Tokenizers of the kinds that exports accept, and texts in many scripts to try them with."""

import random
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.sentences import load_sentences
from tests.service import PROJECT

TINY_CHECKPOINT = PROJECT / "tests" / "data" / "tiny-checkpoint"
PIECES = (
    "abc हिन्दी ไทย naïve e\u0301\u0302 नमस्ते 👩‍👩‍👧‍👦🏽🇩🇪 人生 ع\u064eر\u0651 \u200f\u200d ﷽ ﬁ ½ Ⅷ İıſß ŉ "
    "한글 \u1100\u1161 \u00a0\u2003\u3000 \u200b \n\n\t   .,!?'\"-_()[]{} 1234567890 3.14 0x1F € don't I'm do not // =="
)


@cache
def sample_texts() -> list[str]:
    """Return sentences in many scripts, mixtures of them, code, and characters in random order."""
    randomness = random.Random(12)
    sentences = load_sentences()
    lines = sentences[:100]
    mixtures = [randomness.choice(["", " ", "\n\n", "\t"]).join(randomness.sample(lines, 3)) for _ in range(60)]
    scrambled = ["".join(randomness.choices(PIECES, k=randomness.randrange(1, 80))) for _ in range(80)]
    digits = ["".join(randomness.choices("0123456789", k=length)) for length in range(1, 60, 7)]
    code = [Path(__file__).read_text()[start : start + 300] for start in range(0, 2000, 100)]
    return sentences + mixtures + scrambled + digits + code


def byte_level() -> Tokenizer:
    return Tokenizer.from_file(str(TINY_CHECKPOINT / "tokenizer.json"))


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    # Rare characters stay out of the vocabulary, so that there are unknown words.
    trainer = trainers.WordPieceTrainer(vocab_size=3000, special_tokens=special, limit_alphabet=300)
    tokenizer.train_from_iterator(sample_texts(), trainer)
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=2000, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(sample_texts(), trainer)
    return tokenizer


TOKENIZERS: Mapping[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level, "wordpiece": wordpiece, "unigram": unigram,
}  # fmt: skip


@cache
def load(name: str) -> Tokenizer:
    tokenizer = TOKENIZERS[name]()
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
