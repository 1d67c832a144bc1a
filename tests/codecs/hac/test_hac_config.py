import json

import pytest

from codectool.codecs.hac.config import parse_config
from codectool.errors import ConfigError
from codectool.schema import read_json, to_json
from tests.hac_models import CONFIGS, load_preset

PRESETS = ["hac", "hac-v01", "hac-tiny", "hac-3.6-v12", "hac-3.6-v13"]


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json_byte_for_byte(name):
    values = read_json(CONFIGS / f"{name}.json")["model"]
    config = parse_config(values)
    assert json.dumps(to_json(config)) == json.dumps(values)
    assert parse_config(json.loads(json.dumps(to_json(config)))) == config


def test_versions_of_the_model_card_share_the_network():
    assert load_preset("hac") == load_preset("hac-v01")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cubist"}, "`kind` must be one of 'waveform', 'spectral', not 'cubist'"),
        ({"width": 3}, "unknown key `width`"),
        ({"kernal": 3}, "unknown key `kernal`; did you mean `kernel`?"),
        ({"kernel": "7"}, "`kernel` must be an integer, not '7'"),
        ({"kernel": True}, "`kernel` must be an integer, not True"),
        ({"kernel": 0}, "`kernel` must be an integer >= 1, not 0"),
        ({"kernel": 65_537}, "`kernel` must be an integer <= 65536, not 65537"),
        ({"lookahead": -1}, "`lookahead` must be an integer >= 0, not -1"),
        ({"lookahead": 76}, "`lookahead` must be an integer <= 75, not 76"),
        ({"num_bits": 25}, "`num_bits` must be an integer <= 24, not 25"),
        ({"strides": 8}, "`strides` must be a list, not 8"),
        ({"strides": [1] * 17}, "`strides` must be a list .*16"),
        ({"strides": [8, 5, 8]}, "equal lengths: strides 3"),
        ({"encoder_dilations": [1, 1, 1, 1]}, r"`encoder_dilations\[0\]` must be a list, not 1"),
        ({"encoder_dilations": [[0], [1], [1], [1]]}, r"`encoder_dilations\[0\]\[0\]` must be"),
    ],
)
def test_invalid_waveform_configs_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({**to_json(load_preset("hac")), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 500}, "window 500 is not an even multiple of hop_length 120"),
        ({"strides": [4, 4, 4]}, "do not divide the 240 frequencies"),
        ({"strides": [4, 3]}, "strides must have 3 numbers, one less than channels, not 2"),
        ({"frequency_kernel": 4}, "frequency_kernel 4 is not odd"),
        ({"mixing": 1}, "`mixing` must be true or false, not 1"),
        ({"hidden": [1, 2]}, "equal lengths: channels 4, hidden 2"),
        ({"encoder_units": [1, 1, 2, 65]}, r"`encoder_units\[3\]` must be an integer <= 64"),
    ],
)
def test_invalid_spectral_configs_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({**to_json(load_preset("hac-3.6-v12")), **change})


@pytest.mark.parametrize("name", ["taps", "kind"])
def test_missing_key_is_named(name):
    values = to_json(load_preset("hac"))
    del values[name]
    with pytest.raises(ConfigError, match=f"key `{name}` is missing"):
        parse_config(values)


def test_config_is_frozen():
    with pytest.raises(AttributeError):
        load_preset("hac").kernel = 9
