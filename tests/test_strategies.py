"""What trains under each strategy, and that everything else stays bit-identical."""

from pathlib import Path
from types import SimpleNamespace

import any_whisper
import pytest
from test_pipeline import write_pipeline

from speechft import config
from speechft.adapt import strategies
from speechft.adaptation import recipe_of
from speechft.errors import InputError
from speechft.run import Run

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


def layers_of(names: list[str], *stacks: str) -> set[str]:
    """All parameters of layers such as "decoder.layers.3", and the decoder's last norm."""
    wanted = (*(f"model.{stack}." for stack in stacks), "model.decoder.layer_norm.")
    return {name for name in names if name.startswith(wanted)}


def test_upper_is_the_top_layers_and_the_last_norm(names: list[str]) -> None:
    assert chosen(names, "upper", upper_layers=2) == layers_of(names, "decoder.layers.2", "decoder.layers.3")


def test_progressive_thaws_from_the_top(names: list[str]) -> None:
    def thawed(epoch: int, **options) -> set[str]:
        return chosen(names, "progressive", epoch=epoch, epochs=4, **options)

    decoder = chosen(names, "decoder")
    assert thawed(0) == layers_of(names, "decoder.layers.3")
    assert thawed(1) == layers_of(names, "decoder.layers.2", "decoder.layers.3")
    assert thawed(2) == layers_of(names, "decoder.layers.1", "decoder.layers.2", "decoder.layers.3")
    assert thawed(3) == decoder  # the tokens and positions with the lowest layer
    assert thawed(3, thaw_encoder_layers=1) == decoder | layers_of(names, "encoder.layers.3")


def test_lora_trains_none_of_the_models_own(names: list[str]) -> None:
    assert chosen(names, "lora") == set()


def test_unknown_strategy(names: list[str]) -> None:
    with pytest.raises(InputError, match="nonsense"):
        chosen(names, "nonsense")


def test_rates_fall_with_size() -> None:
    rates = [strategies.size_defaults(width).learning_rate for width in (192, 384, 512, 768, 1024, 1280)]
    assert rates == sorted(rates, reverse=True)
    assert strategies.size_defaults(4096) == strategies.size_defaults(1280)


@pytest.mark.parametrize(
    ("strategy", "rate"),
    [
        ("decoder", 4e-5),
        ("upper", 4e-5),
        ("full", 4e-5 / 3),
        ("progressive", 4e-5 / 3),
        ("lora", 2e-4),
        ("scratch", 2e-4),
    ],
)
def test_rates_of_small(strategy: str, rate: float) -> None:
    """Hugging Face's notes on fine-tuning give 1.25e-5 for all of small; decoders alone and adapters bear more."""
    assert strategies.size_defaults(768, strategy).learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(("encoder_layers", "like"), [(0, "decoder"), (1, "full")])
def test_progressive_takes_the_rate_of_what_it_reaches(tmp_path: Path, encoder_layers: int, like: str) -> None:
    """From decoder layers alone the decoder's, with some of the encoder's that of all."""
    whisper = SimpleNamespace(model=any_whisper.model(51864, d_model=768, layers=2))
    asked = ["finetune.strategy=progressive", f"finetune.encoder_layers={encoder_layers}"]
    recipe = recipe_of(Run(config.load(write_pipeline(tmp_path), asked), tmp_path), whisper)
    wanted = strategies.size_defaults(768, like)
    assert (recipe.learning_rate, recipe.batch_clips) == (wanted.learning_rate, 8)  # clips as the pipeline says
    assert recipe.previous_share == 0.1


@pytest.mark.parametrize(("asked", "share"), [((), 0.0), (("finetune.previous_share=0.2",), 0.2)])
def test_nano_is_given_no_text_before_unless_asked(tmp_path: Path, asked: tuple[str, ...], share: float) -> None:
    """Which it has never seen; and a share of none that a pipeline asks for is no missing one."""
    whisper = SimpleNamespace(model=any_whisper.model(51864, d_model=192, layers=2))
    assert recipe_of(Run(config.load(write_pipeline(tmp_path), asked), tmp_path), whisper).previous_share == share
    big = SimpleNamespace(model=any_whisper.model(51864, d_model=768, layers=2))
    none = Run(config.load(write_pipeline(tmp_path), ["finetune.previous_share=0"]), tmp_path)
    assert recipe_of(none, big).previous_share == 0.0
