"""Wan's text encoder gives transformers' numbers from either layout, encodes a prompt once, and says what is wrong."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from filmstill.errors import FilmstillError
from filmstill.models.prompt_cache import PromptCache
from filmstill.models.umt5 import TIED, WEIGHTS, Umt5, clean_prompt, import_umt5, wan_names
from filmstill.runtime.files import save_tensors
from goldens import assert_close
from tiny_umt5 import SIZES, WAN_FILE, random_weights, write_encoder, write_tokenizer

CPU = torch.device("cpu")
TEXT_LEN, FORWARD = 48, 2e-5
PROMPTS = ["a red three bobs up and down", "", "blue 7", "a " * 30 + "zebra", "digits & Zürich"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A second one only waits, for matrices as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both released layouts of the same weights, and the tokenizer where Wan keeps it."""
    folder = tmp_path_factory.mktemp("released")
    write_tokenizer(folder / "google/umt5-xxl/tokenizer.json", [*PROMPTS[0].split(), "blue", "digits"])
    write_encoder(folder / WAN_FILE, "wan", seed=0)
    write_encoder(folder / "text_encoder", "diffusers", seed=0)
    return folder


def imported(released: Path, folder: Path, source: str = WAN_FILE, text_len: int = TEXT_LEN) -> Path:
    import_umt5(released / source, released / "google/umt5-xxl", folder, text_len)
    return folder


@pytest.fixture(scope="module")
def artifact(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported(released, tmp_path_factory.mktemp("artifact"))


def opened(folder: Path, cache: Path, placement: str = "cpu", dtype: torch.dtype = torch.float32) -> Umt5:
    return Umt5.load(folder, cache, placement, CPU, dtype)


def padded_ids(released: Path, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """(ids, mask) [B, TEXT_LEN] as the released code asks them of transformers."""
    from transformers import PreTrainedTokenizerFast

    file = str(released / "google/umt5-xxl/tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    cleaned = [clean_prompt(prompt) for prompt in prompts]
    options = {"padding": "max_length", "max_length": TEXT_LEN, "truncation": True, "add_special_tokens": True}
    out = tokenizer(cleaned, **options, return_tensors="pt")
    return out.input_ids, out.attention_mask


@torch.no_grad()
def transformers_rows(released: Path, prompts: list[str]) -> Tensor:
    """[B, TEXT_LEN, d_model] of transformers' own loading of its layout, padded, masked, zeroed past the length."""
    from transformers import UMT5EncoderModel

    ids, mask = padded_ids(released, prompts)
    model = UMT5EncoderModel.from_pretrained(released / "text_encoder").eval()
    return model(ids, mask).last_hidden_state * mask[..., None]


def t5_rows(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """T5's encoder as in the papers (1910.10683, 2304.09151) on ids [L], over Wan's names: [L, d_model]."""
    heads, length = SIZES["num_heads"], len(ids)

    def norm(x: Tensor, name: str) -> Tensor:
        return weights[f"{name}.weight"] * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T

    def bucket(distance: int) -> int:
        """Half the 32 buckets a direction; of these the first 8 exact, the others logarithmic up to 128."""
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
    """The file's tensors by their Wan names through the papers' equations, with no code of transformers or ours."""
    weights = {name: t.float() for name, t in torch.load(released / WAN_FILE, weights_only=True).items()}
    ids, mask = padded_ids(released, PROMPTS)
    theirs = torch.stack(
        [F.pad(t5_rows(weights, row[:n]), (0, 0, 0, TEXT_LEN - n)) for row, n in zip(ids, mask.sum(1), strict=True)]
    )
    assert_close(opened(artifact, tmp_path).encode(PROMPTS), theirs, FORWARD)


def test_distances_beyond_the_last_bucket(released: Path, tmp_path: Path):
    """200 tokens: the logarithmic buckets and the one that holds all from 128 on."""
    folder = imported(released, tmp_path / "artifact", text_len=256)
    weights = {name: t.float() for name, t in torch.load(released / WAN_FILE, weights_only=True).items()}
    encoder = opened(folder, tmp_path / "cache")
    prompt = " ".join(["a blue zebra"] * 30)
    ids = torch.tensor(encoder._tokenizer.encode(prompt).ids)
    assert len(ids) > 200
    assert_close(encoder.encode([prompt])[0, : len(ids)], t5_rows(weights, ids), FORWARD)


def test_a_prompts_bits_do_not_depend_on_its_company(artifact: Path, tmp_path: Path):
    together = opened(artifact, tmp_path / "together").encode(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        assert torch.equal(opened(artifact, tmp_path / str(i)).encode([prompt])[0], together[i])
    assert torch.equal(
        opened(artifact, tmp_path / "together").encode(PROMPTS[::-1] * 2), together.flip(0).repeat(2, 1, 1)
    )


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


def test_prompts_that_clean_alike_share_their_vectors(artifact: Path, tmp_path: Path):
    rows = opened(artifact, tmp_path).encode(["a red three", " a  red\nthree"])
    assert torch.equal(rows[0], rows[1])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_what_is_cached_needs_no_network(artifact: Path, tmp_path: Path):
    folder, cache = Path(shutil.copytree(artifact, tmp_path / "artifact")), tmp_path / "cache"
    first = opened(folder, cache)
    first.prepare(PROMPTS)
    assert first._network is None
    rows = first.encode(PROMPTS)
    assert first._network is None  # training holds no encoder
    (folder / WEIGHTS).unlink()
    assert torch.equal(opened(folder, cache).encode(PROMPTS), rows)
    opened(folder, cache).prepare(PROMPTS)
    with pytest.raises(FilmstillError, match=r"encoder\.safetensors: cannot be read \(No such file"):
        opened(folder, cache).encode(["a prompt of another day"])


def test_a_damaged_entry_is_made_again(artifact: Path, tmp_path: Path):
    rows = opened(artifact, tmp_path).encode(PROMPTS)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == len(PROMPTS)
    assert {len(file.parent.name) for file in files} == {2}
    good = files[0].read_bytes()
    for damage in (good[:-7], good[:-1] + bytes([good[-1] ^ 1]), b"", b"no tensors"):
        files[0].write_bytes(damage)
        assert torch.equal(opened(artifact, tmp_path).encode(PROMPTS), rows)
        assert files[0].read_bytes() == good


def test_every_flipped_byte_is_noticed(tmp_path: Path):
    cache, rows = PromptCache(tmp_path, "encoder"), torch.arange(4.0).view(2, 2)
    cache.put("a prompt", rows)
    [file] = tmp_path.rglob("*.safetensors")
    good = file.read_bytes()
    for i in range(len(good)):
        file.write_bytes(good[:i] + bytes([good[i] ^ 0x15]) + good[i + 1 :])
        [found] = cache.get(["a prompt"])
        assert found is None or torch.equal(found, rows), f"byte {i}"


def test_encoders_share_a_folder_and_no_entry(released: Path, artifact: Path, tmp_path: Path):
    """Other weights, another length and another dtype each have their own; the same encoder imported twice has not."""
    write_encoder(tmp_path / WAN_FILE, "wan", seed=1)
    import_umt5(tmp_path / WAN_FILE, released / "google/umt5-xxl", tmp_path / "other", TEXT_LEN)
    cache, prompt = tmp_path / "cache", ["a red three"]
    encoders = [
        opened(artifact, cache),
        opened(tmp_path / "other", cache),
        opened(imported(released, tmp_path / "short", text_len=9), cache),
        opened(artifact, cache, dtype=torch.bfloat16),
        opened(imported(released, tmp_path / "again"), cache),
    ]
    rows = [encoder.encode(prompt) for encoder in encoders]
    assert len(list(cache.rglob("*.safetensors"))) == 4
    assert not torch.allclose(rows[0], rows[1])
    assert rows[3].dtype == torch.bfloat16
    assert_close(rows[3].float(), rows[0], 0.05)
    assert torch.equal(rows[4], rows[0])


def test_two_processes_may_write_the_same_prompts_at_once(tmp_path: Path):
    def write(i: int) -> None:
        PromptCache(tmp_path, "x").put(f"prompt {i % 4}", torch.full((3, 5), i % 4.0))

    script = (
        "import sys, torch; from pathlib import Path; from filmstill.models.prompt_cache import PromptCache\n"
        "for i in range(40): PromptCache(Path(sys.argv[1]), 'x').put(f'prompt {i % 4}', torch.full((3, 5), i % 4.0))"
    )
    cache, prompts, rounds = PromptCache(tmp_path, "x"), [f"prompt {i}" for i in range(4)], 0
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    while other.poll() is None:
        write(rounds)
        for i, rows in enumerate(cache.get(prompts[: rounds + 1])):
            assert rows is not None
            assert torch.equal(rows, torch.full((3, 5), float(i)))
        rounds += 1
    assert other.returncode == 0
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4


def test_long_prompts_are_cut_as_transformers_cuts_them_and_counted_once(
    released: Path, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    long = ["red " * 100, "blue " * (TEXT_LEN - 1), "down " * TEXT_LEN]
    encoder = opened(artifact, tmp_path)
    encoder.prepare([*PROMPTS, *long])
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert told == ["warning: 2 of 8 prompts are longer than 48 tokens and were cut; the longest has 101"]
    rows = encoder.encode(long)
    assert capsys.readouterr().err == ""  # it was said when they were encoded
    assert_close(rows, transformers_rows(released, long), FORWARD)


@pytest.mark.parametrize("placement", ["cpu", "gpu", "offload"])
def test_the_network_is_let_go_of_unless_it_is_to_stay(artifact: Path, tmp_path: Path, placement: str):
    rows = opened(artifact, tmp_path / "one").encode(PROMPTS)
    encoder = opened(artifact, tmp_path / "two", placement)
    assert torch.equal(encoder.encode(PROMPTS), rows)
    assert torch.equal(encoder.encode(["up", *PROMPTS])[1:], rows)
    for _ in range(2):
        assert (encoder._network is not None) == (placement == "gpu")
        encoder.prepare(["down"])


def test_a_damaged_entry_does_not_bring_the_network_back_for_good(artifact: Path, tmp_path: Path):
    """`prepare` sees that a file is there, `encode` that it is whole: training must not hold the encoder after that."""
    encoder = opened(artifact, tmp_path)
    rows = encoder.encode(PROMPTS)
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    encoder.prepare(PROMPTS)
    assert torch.equal(encoder.encode(PROMPTS), rows) and encoder._network is None


def test_the_embedding_is_held_once(artifact: Path, tmp_path: Path):
    network = opened(artifact, tmp_path)._placed()
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
    ("how", "said"),
    [
        ("misnamed", r"1 missing: blocks\.1\.attn\.q\.weight; 1 unknown: blocks\.1\.attn\.query\.weight"),
        ("misshaped", r"1 misshaped: blocks\.1\.attn\.q\.weight \[23, 32\] for \[24, 32\]"),
        ("one block less", r"blocks\.0\.pos_embedding\.embedding\.weight is missing or no matrix"),
        ("no bias", r"blocks\.0\.pos_embedding\.embedding\.weight is missing or no matrix"),
        ("prefixed", r"not a UMT5 encoder under Wan's or Hugging Face's names; it holds model\.blocks\.0"),
        (
            "of eight bits",
            r"blocks\.1\.attn\.q\.weight is of torch\.float8_e4m3fn; one of F64, F32, BF16, F16 is needed",
        ),
        ("a VAE", r"not a UMT5 encoder under .*; it holds conv2\.bias, encoder\.conv1\.weight, …"),
    ],
)
def test_weights_that_are_not_the_encoder(released: Path, tmp_path: Path, how: str, said: str):
    torch.save(broken(torch.load(released / WAN_FILE, weights_only=True), how), tmp_path / "wrong.pth")
    with pytest.raises(FilmstillError, match=said) as error:
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
    for source, tokens, said in (
        (tmp_path / "nowhere", tokenizer, "nowhere: no such file or folder"),
        (empty, tokenizer, "empty: holds 0 files of weights"),
        (cut, tokenizer, r"cut\.pth: not a whole file of torch\.save"),
        (good, empty, r"empty/tokenizer\.json: not a fast tokenizer's file \(No such file"),
        (good, released / "text_encoder/config.json", r"config\.json: not a fast tokenizer's file"),
        (good, tmp_path / "endless.json", r"endless\.json: ends no prompt with </s>"),
        (tmp_path / "small.pth", tokenizer, r"tokenizer\.json: \d+ tokens, the encoder's embedding has 90"),
    ):
        with pytest.raises(FilmstillError, match=said) as error:
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


def test_an_artifact_that_was_touched(released: Path, artifact: Path, tmp_path: Path):
    """Whole files that are not the ones the folder was written with would fill the cache with others' vectors."""
    folder = Path(shutil.copytree(artifact, tmp_path / "artifact"))
    save_tensors(folder / WEIGHTS, random_weights(1))
    with pytest.raises(FilmstillError, match=r"artifact: its files are not those encoder\.json was written for"):
        opened(folder, tmp_path / "cache").encode(["a"])
    (folder / "encoder.json").write_text('{"kind": "hashed_words"}')
    with pytest.raises(FilmstillError, match=r"encoder\.json: kind 'hashed_words', not a whole 'umt5'"):
        opened(folder, tmp_path / "cache")
    with pytest.raises(FilmstillError, match=r"encoder\.json: no such file"):
        opened(tmp_path, tmp_path / "cache")


def test_the_names_are_one_to_one():
    names = wan_names(24)
    assert len(names) == len(set(names.values())) == 2 + 24 * 10
