"""What trains under each strategy, and that everything else stays bit-identical."""

import any_whisper
import pytest

from speechft.adapt import strategies
from speechft.errors import InputError

LAYERS = 4


@pytest.fixture(scope="module")
def names() -> list[str]:
    model = any_whisper.model(51864, layers=LAYERS)
    return [name for name, _ in model.named_parameters()]


def chosen(names: list[str], strategy: str, **options) -> set[str]:
    return set(strategies.trainable(names, strategy, decoder_layers=LAYERS, encoder_layers=LAYERS, **options))


def test_decoder_is_all_of_the_decoder_and_nothing_else(names: list[str]) -> None:
    assert chosen(names, "decoder") == {n for n in names if n.startswith("model.decoder.")}


def test_full_leaves_only_the_constant_positions(names: list[str]) -> None:
    assert set(names) - chosen(names, "full") == {"model.encoder.embed_positions.weight"}


def test_head_is_the_tied_matrix_and_the_last_norm(names: list[str]) -> None:
    assert chosen(names, "head") == {
        "model.decoder.embed_tokens.weight",
        "model.decoder.layer_norm.weight",
        "model.decoder.layer_norm.bias",
    }


def test_upper_is_the_top_layers(names: list[str]) -> None:
    layers = {n.split(".")[3] for n in chosen(names, "upper", upper_layers=2) if ".layers." in n}
    assert layers == {"2", "3"}


def test_progressive_thaws_from_the_top(names: list[str]) -> None:
    def thawed(epoch: int, **options) -> set[tuple[str, str]]:
        found = chosen(names, "progressive", epoch=epoch, epochs=4, **options)
        return {(n.split(".")[1], n.split(".")[3]) for n in found if ".layers." in n}

    assert thawed(0) == {("decoder", "3")}
    assert thawed(1) == {("decoder", "2"), ("decoder", "3")}
    assert thawed(3) == {("decoder", str(i)) for i in range(4)}
    assert ("encoder", "3") in thawed(3, thaw_encoder_layers=1)
    assert ("encoder", "2") not in thawed(3, thaw_encoder_layers=1)


def test_lora_trains_none_of_the_models_own(names: list[str]) -> None:
    assert chosen(names, "lora") == set()


def test_unknown_strategy(names: list[str]) -> None:
    with pytest.raises(InputError, match="nonsense"):
        chosen(names, "nonsense")


def test_rates_fall_with_size() -> None:
    rates = [strategies.size_defaults(width).learning_rate for width in (192, 384, 512, 768, 1024, 1280)]
    assert rates == sorted(rates, reverse=True)
    assert strategies.size_defaults(4096) == strategies.size_defaults(1280)
