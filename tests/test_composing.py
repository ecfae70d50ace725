"""What `sampling.latents` and `sampling.ranks` say, and what they may not."""

import pytest

from configs import digits, digits_frequency
from gdm_jax import build
from gdm_jax.generation import composing
from gdm_jax.generation.composing import Pick
from gdm_jax.runtime.errors import ConfigError


def parse(module, **sampling):
  config = module.get_config()
  config.sampling.update(sampling)
  return composing.parse(config, build.system(config), 'main')


def test_latents_are_read():
  picks, ranks = parse(digits, latents='5, seed,a/b.png,5:c:d.png:0.25')
  expected = [(5, 5, 0.0), ('seed', 'seed', 0.0), ('a/b.png', 'a/b.png', 0.0)]
  assert picks[:3] == tuple(Pick(*pick) for pick in expected)
  assert (picks[3].at, ranks) == (0.25, {})
  assert ','.join(map(str, picks)) == '5,seed,a/b.png,' + str(picks[3])


def test_one_entry_is_for_all_groups():
  assert parse(digits, latents='7')[0] == (Pick(7, 7, 0.0),) * 4


def test_ranks_are_read():
  assert parse(digits_frequency, ranks='0=2.5,30.0=-3e-1')[1] == {(0, 0): 2.5, (30, 0): -0.3}


@pytest.mark.parametrize(
  ('module', 'key', 'value', 'said'),
  [
    (digits, 'latents', '1,2', '2 of them; must be 1, or one for each of the 4 groups'),
    (digits, 'latents', '1,,2,3', "'' must be a seed"),
    (digits, 'latents', '1:2:1.5', "'1:2:1.5' must be a seed"),
    (digits, 'latents', '1:2:nan', "'1:2:nan' must be a seed"),
    (digits, 'latents', '1:2:1e', "'1:2:1e' must be a seed"),
    (digits, 'latents', '4294967296', '4294967296 is no seed'),
    (digits, 'ranks', '0=1', 'no frequency basis'),
    (digits_frequency, 'ranks', '64=1', '64: there are 0 to 63'),
    (digits_frequency, 'ranks', '0.1=1', '0.1: the channels are 0 to 0'),
    (digits_frequency, 'ranks', '0=inf', "'0=inf' must be RANK=VALUE"),
    (digits_frequency, 'ranks', '0=1-2', "'0=1-2' must be RANK=VALUE"),
    (digits_frequency, 'ranks', '0', "'0' must be RANK=VALUE"),
  ],
)
def test_what_cannot_be_read_is_named(module, key, value, said):
  with pytest.raises(ConfigError) as error:
    parse(module, **{key: value})
  assert f'sampling.{key}' in str(error.value)
  assert said in str(error.value)
