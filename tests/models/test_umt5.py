"""Wan's text encoder equals transformers' from either layout, and refuses other files with a reason."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.formats.umt5 import TIED, import_umt5, wan_names
from filmstill.models.umt5 import clean_prompt
from goldens import assert_close
from tiny_umt5 import SIZES, WAN_FILE, random_weights, write_encoder
from umt5_folders import PROMPTS, TEXT_LEN, imported, one_thread, opened

FORWARD = 2e-5


@pytest.fixture(scope="module", autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def padded_ids(released: Path, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """(ids, mask) [B, TEXT_LEN], computed with transformers as in the released code."""
    from transformers import PreTrainedTokenizerFast

    file = str(released / "google/umt5-xxl/tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    cleaned = [clean_prompt(prompt) for prompt in prompts]
    options = {"padding": "max_length", "max_length": TEXT_LEN, "truncation": True, "add_special_tokens": True}
    out = tokenizer(cleaned, **options, return_tensors="pt")
    return out.input_ids, out.attention_mask


@torch.no_grad()
def transformers_rows(released: Path, prompts: list[str]) -> Tensor:
    """[B, TEXT_LEN, d_model] of transformers' own loading of its layout: padded, masked, zero after the last token."""
    from transformers import UMT5EncoderModel

    ids, mask = padded_ids(released, prompts)
    model = UMT5EncoderModel.from_pretrained(released / "text_encoder").eval()
    return model(ids, mask).last_hidden_state * mask[..., None]


def t5_rows(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """T5's encoder by the papers (arXiv:1910.10683, arXiv:2304.09151) on ids [L], from Wan's names: [L, d_model]."""
    heads, length = SIZES["num_heads"], len(ids)

    def norm(x: Tensor, name: str) -> Tensor:
        return weights[f"{name}.weight"] * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T

    def bucket(distance: int) -> int:
        """16 of the 32 buckets per direction: 8 for exact distances, the others logarithmic up to 128."""
        side, near = (16 if distance > 0 else 0), abs(distance)
        far = 8 + math.floor(math.log(max(near, 1) / 8) / math.log(128 / 8) * 8)
        return side + (near if near < 8 else min(far, 15))

    buckets = torch.tensor([[bucket(key - query) for key in range(length)] for query in range(length)])
    x = weights["token_embedding.weight"][ids]
    for i in range(SIZES["num_layers"]):
        block = f"blocks.{i}"
        bias = weights[f"{block}.pos_embedding.embedding.weight"][buckets].permute(2, 0, 1)  # [heads, L, L]
        h = norm(x, f"{block}.norm1")
        q, k, v = (linear(h, f"{block}.attn.{p}").view(length, heads, -1).transpose(0, 1) for p in "qkv")
        attended = (q @ k.transpose(1, 2) + bias).softmax(-1) @ v  # T5 does not scale the scores
        x = x + linear(attended.transpose(0, 1).flatten(1), f"{block}.attn.o")
        h = norm(x, f"{block}.norm2")
        gate = F.gelu(linear(h, f"{block}.ffn.gate.0"), approximate="tanh")
        x = x + linear(gate * linear(h, f"{block}.ffn.fc1"), f"{block}.ffn.fc2")
    return norm(x, "norm")


@pytest.mark.parametrize("source", [WAN_FILE, "text_encoder"])
def test_either_layout_gives_what_transformers_gives_padded_to_the_end(released: Path, tmp_path: Path, source: str):
    rows = opened(imported(released, tmp_path / "artifact", source), tmp_path / "cache").encode(PROMPTS)
    assert rows.shape == (len(PROMPTS), TEXT_LEN, SIZES["d_model"])
    assert_close(rows, transformers_rows(released, PROMPTS), FORWARD)
    real = padded_ids(released, PROMPTS)[1].bool()
    assert (rows[real].abs().amax(-1) > 0).all()
    assert (rows[~real] == 0).all()
    assert real.sum(1).tolist() == [8, 1, 4, 37, 11]


def test_wans_names_are_t5s_parts(released: Path, artifact: Path, tmp_path: Path):
    """The papers' equations on the tensors under Wan's names, without code of transformers or filmstill."""
    weights = {name: t.float() for name, t in torch.load(released / WAN_FILE, weights_only=True).items()}
    ids, mask = padded_ids(released, PROMPTS)
    theirs = torch.stack(
        [F.pad(t5_rows(weights, row[:n]), (0, 0, 0, TEXT_LEN - n)) for row, n in zip(ids, mask.sum(1), strict=True)]
    )
    assert_close(opened(artifact, tmp_path).encode(PROMPTS), theirs, FORWARD)


def test_distances_beyond_the_last_bucket(released: Path, tmp_path: Path):
    """200 tokens use the logarithmic buckets and the last one, for distances from 128 on."""
    folder = imported(released, tmp_path / "artifact", text_len=256)
    weights = {name: t.float() for name, t in torch.load(released / WAN_FILE, weights_only=True).items()}
    encoder = opened(folder, tmp_path / "cache")
    prompt = " ".join(["a blue zebra"] * 30)
    ids = torch.tensor(encoder._tokenizer.encode(prompt).ids)
    assert len(ids) > 200
    assert_close(encoder.encode([prompt])[0, : len(ids)], t5_rows(weights, ids), FORWARD)


def test_shards_and_a_second_copy_of_the_embedding_are_read(released: Path, tmp_path: Path):
    weights = {**random_weights(0), TIED: random_weights(0)["shared.weight"].clone()}
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    where = {name: f"model-{1 + i % 2}-of-2.safetensors" for i, name in enumerate(weights)}
    for file in set(where.values()):
        save_file({name: weights[name] for name in weights if where[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    import_umt5(folder, released / "google/umt5-xxl/tokenizer.json", tmp_path / "ours", TEXT_LEN)
    rows = opened(tmp_path / "ours", tmp_path / "cache").encode(PROMPTS)
    assert_close(rows, transformers_rows(released, PROMPTS), FORWARD)


@pytest.mark.parametrize(
    ("pasted", "cleaned"),
    [
        ("  a\tcat \n\n on\u00a0 a mat ", "a cat on a mat"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("<i> salt &amp;amp; pepper", "<i> salt & pepper"),  # a tag keeps ftfy from unescaping
        ("it&#39;s", "it's"),
        ("cafÃ© â€œnoirâ€\x9d", 'café "noir"'),
        ("ＣＡＴ　１２", "CAT 12"),
        ("&amp;nbsp;end&nbsp;", "end"),
        ("", ""),
    ],
)
def test_cleaning(pasted: str, cleaned: str):
    assert clean_prompt(pasted) == cleaned


def logged(log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """(level, message) of filmstill's log records."""
    return [(record.levelname, record.getMessage()) for record in log.records if record.name.startswith("filmstill")]


def test_long_prompts_are_cut_as_transformers_cuts_them_and_counted_once(
    released: Path,
    artifact: Path,
    tmp_path: Path,
    filmstill_log: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):
    long = ["red " * 100, "blue " * (TEXT_LEN - 1), "down " * TEXT_LEN]
    encoder = opened(artifact, tmp_path)
    encoder.prepare([*PROMPTS, *long])
    message = "2 of 8 prompts are longer than 48 tokens and were cut; the longest has 101"
    assert logged(filmstill_log) == [("WARNING", message)]
    filmstill_log.clear()
    capsys.readouterr()
    rows = encoder.encode(long)
    assert logged(filmstill_log) == []  # the warning came when they were encoded
    assert capsys.readouterr().err == ""
    assert_close(rows, transformers_rows(released, long), FORWARD)


def test_the_embedding_is_held_once(artifact: Path, tmp_path: Path):
    network = opened(artifact, tmp_path)._loaded()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == sum(tensor.numel() for tensor in random_weights(0).values())


def line_of(error: pytest.ExceptionInfo[FilmstillError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def broken(weights: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    q = "blocks.1.attn.q.weight"
    rest = {name: tensor for name, tensor in weights.items() if name != q}
    return {
        "misnamed": {**rest, "blocks.1.attn.query.weight": weights[q]},
        "misshaped": {**rest, q: weights[q][:-1]},
        "one block less": {name: tensor for name, tensor in weights.items() if not name.startswith("blocks.0.")},
        "no bias": {name: t for name, t in weights.items() if name != "blocks.0.pos_embedding.embedding.weight"},
        "prefixed": {f"model.{name}": tensor for name, tensor in weights.items()},
        "of eight bits": {**weights, q: weights[q].to(torch.float8_e4m3fn)},
        "a VAE": {"encoder.conv1.weight": weights[q], "conv2.bias": weights[q][0]},
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("misnamed", r"1 missing: blocks\.1\.attn\.q\.weight; 1 unknown: blocks\.1\.attn\.query\.weight"),
        ("misshaped", r"1 misshaped: blocks\.1\.attn\.q\.weight \[23, 32\] for \[24, 32\]"),
        ("one block less", r"blocks\.0\.pos_embedding\.embedding\.weight is missing or not a matrix"),
        ("no bias", r"blocks\.0\.pos_embedding\.embedding\.weight is missing or not a matrix"),
        ("prefixed", r"not a UMT5 encoder under Wan's or Hugging Face's names; it contains model\.blocks\.0"),
        (
            "of eight bits",
            r"blocks\.1\.attn\.q\.weight: is torch\.float8_e4m3fn, allowed: F64, F32, BF16, F16",
        ),
        ("a VAE", r"not a UMT5 encoder under .*; it contains conv2\.bias, encoder\.conv1\.weight, …"),
    ],
)
def test_weights_that_are_not_the_encoder(released: Path, tmp_path: Path, how: str, message: str):
    torch.save(broken(torch.load(released / WAN_FILE, weights_only=True), how), tmp_path / "wrong.pth")
    with pytest.raises(FilmstillError, match=message) as error:
        import_umt5(tmp_path / "wrong.pth", released / "google/umt5-xxl", tmp_path / "ours")
    assert line_of(error).startswith(str(tmp_path / "wrong.pth"))
    assert not (tmp_path / "ours").exists()


def test_sources_that_cannot_be_read(released: Path, tmp_path: Path):
    good, tokenizer = released / WAN_FILE, released / "google/umt5-xxl"
    cut, empty = tmp_path / "cut.pth", tmp_path / "empty"
    cut.write_bytes(good.read_bytes()[:-2000])
    empty.mkdir()
    endless = json.loads((tokenizer / "tokenizer.json").read_text())
    (tmp_path / "endless.json").write_text(json.dumps({**endless, "post_processor": None}))
    small = {**torch.load(good, weights_only=True), "token_embedding.weight": torch.zeros(90, 32)}
    torch.save(small, tmp_path / "small.pth")
    for source, tokens, message in (
        (tmp_path / "nowhere", tokenizer, "nowhere: no such file or folder"),
        (empty, tokenizer, r"empty: expected one weights file or a \*\.index\.json, found 0"),
        (cut, tokenizer, r"cut\.pth: is truncated: a file of torch\.save without its end, \d+ bytes are there"),
        (good, empty, r"empty/tokenizer\.json: not a fast tokenizer's file \(No such file"),
        (good, released / "text_encoder/config.json", r"config\.json: not a fast tokenizer's file"),
        (good, tmp_path / "endless.json", r"endless\.json: does not end every prompt with </s>"),
        (tmp_path / "small.pth", tokenizer, r"tokenizer\.json: \d+ tokens, the encoder's embedding has 90"),
    ):
        with pytest.raises(FilmstillError, match=message) as error:
            import_umt5(source, tokens, tmp_path / "ours")
        line_of(error)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(("key", "value"), [("num_heads", 4), ("feed_forward_proj", "relu"), ("d_ff", 1024)])
def test_a_config_that_contradicts_its_weights(released: Path, tmp_path: Path, key: str, value: object):
    write_encoder(tmp_path / "text_encoder", "diffusers", seed=0)
    config = json.loads((tmp_path / "text_encoder/config.json").read_text())
    (tmp_path / "text_encoder/config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(FilmstillError, match=rf"config\.json: .*: {key} {value} \(needed: {config[key]}\)$"):
        import_umt5(tmp_path / "text_encoder", released / "google/umt5-xxl", tmp_path / "ours")


def test_the_names_are_one_to_one():
    names = wan_names(24)
    assert len(names) == len(set(names.values())) == 2 + 24 * 10
