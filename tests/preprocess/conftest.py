from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WORDS = "query : passage the cat sat on a mat what is it < img > / context".split()


@pytest.fixture
def wordpiece(tmp_path: Path) -> Path:
    """A BERT-like tokenizer: [CLS] and [SEP] around lower-case words, unknown ones by letter."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["[UNK]", "[CLS]", "[SEP]", *WORDS, *[c for c in letters if c not in WORDS], *[f"##{c}" for c in letters]]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return save(tokenizer, tmp_path)


@pytest.fixture
def byte_level(tmp_path: Path) -> Path:
    """A Llama-like tokenizer: <bos> before bytes, and an image token that is special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<bos>", "<IMG_CONTEXT>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 256)])
    return save(tokenizer, tmp_path)


def save(tokenizer: Tokenizer, folder: Path) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"
