import dataclasses
import json

import pytest

from codectool.codecs.hac.config import load_preset, parse_config
from codectool.errors import ConfigError

PRESETS = ["hac", "hac-v01", "hac-tiny", "hac-3.6-v12", "hac-3.6-v13"]


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip_through_json(name):
    config = load_preset(name)
    assert parse_config(json.loads(json.dumps(config.to_dict()))) == config


def test_both_versions_of_the_card_share_the_network():
    assert load_preset("hac") == load_preset("hac-v01")


def test_a_whole_preset_is_read_too():
    config = load_preset("hac")
    assert parse_config({"family": "hac", "model": config.to_dict()}) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cubist"}, 'must be "waveform" or "spectral", not \'cubist\''),
        ({"width": 3}, "unknown hyper-parameters of HAC: width"),
        ({"kernel": "7"}, "kernel of HAC must be int, not '7'"),
        ({"kernel": True}, "kernel of HAC must be int, not True"),
        ({"kernel": 0}, r"kernel of HAC must be in 1\.\.65536, not 0"),
        ({"lookahead": -1}, r"lookahead of HAC must be in 0\.\.65536, not -1"),
        ({"lookahead": 76}, "lookahead 76 is above 75"),
        ({"num_bits": 25}, r"num_bits of HAC must be in 1\.\.24, not 25"),
        ({"strides": 8}, "strides of HAC must be list of int, not 8"),
        ({"strides": [1] * 17}, "strides of HAC must be list of int"),
        ({"strides": [8, 5, 8]}, "stages of HAC disagree in number: strides 3"),
        ({"encoder_dilations": [1, 1, 1, 1]}, "must be list of int, not 1"),
    ],
)
def test_impossible_samples_configs(change, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({**load_preset("hac").to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 500}, "window 500 is not an even multiple of hop_length 120"),
        ({"strides": [4, 4, 4]}, "do not divide the 240 frequencies"),
        ({"strides": [4, 3]}, "strides has 2 numbers, one less than channels would be 3"),
        ({"frequency_kernel": 4}, "frequency_kernel 4 is not odd"),
        ({"mixing": 1}, "mixing of HAC must be bool, not 1"),
        ({"hidden": [1, 2]}, "stages of HAC disagree in number: channels 4, hidden 2"),
    ],
)
def test_impossible_spectral_configs(change, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({**load_preset("hac-3.6-v12").to_dict(), **change})


def test_missing_key_is_named():
    values = load_preset("hac").to_dict()
    del values["taps"]
    with pytest.raises(ConfigError, match="missing hyper-parameters of HAC: taps"):
        parse_config(values)


def test_unknown_preset():
    with pytest.raises(ConfigError, match="there is no preset 'hic'"):
        load_preset("hic")


def test_fields_cannot_be_set():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_preset("hac").kernel = 9
