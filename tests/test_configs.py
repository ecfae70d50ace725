"""The committed configs: all of them build, and none departs from the paper without saying so."""

import importlib

import jax
import pytest

from gdm_jax import build
from tests.support.runs import ROOT

CONFIGS = sorted(file.stem for file in (ROOT / 'configs').glob('*.py') if file.stem != '__init__')


def config_of(name):
  return importlib.import_module(f'configs.{name}').get_config()


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_describes_a_system_and_a_table(name):
  config = config_of(name)
  system = build.system(config)
  table = jax.eval_shape(lambda: build.sampling_table(config, system))
  assert table.shape[1] == system.process.grouping.num_groups
  build.optimizer(config)
  build.sampling_guidance(config, system)


NOT_OF_THE_PAPER = ('even_pixels', 'even_pixels_causal')


@pytest.mark.parametrize('name', NOT_OF_THE_PAPER)
def test_other_studies_say_what_they_train_on(name):
  assert config_of(name).train.weighting == 'active'
  assert 'active group alone' in importlib.import_module(f'configs.{name}').__doc__


@pytest.mark.parametrize('name', [name for name in CONFIGS if name not in NOT_OF_THE_PAPER])
def test_every_study_trains_on_the_papers_loss(name):
  # Eq. 8; autoregression on Eq. 22, which is Eq. 7 at discrete times.
  expected = 'velocity' if config_of(name).train.times == 'discrete' else 'unweighted'
  assert config_of(name).train.weighting == expected


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'frequency' in name])
def test_every_frequency_config_has_the_papers_basis(name):
  basis = config_of(name).basis
  assert basis.name == 'blur'
  assert basis.blur.to_dict() == {'sigma': 0.4, 'boundary': 'zero'}


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_says_its_command(name):
  doc = importlib.import_module(f'configs.{name}').__doc__
  assert name == 'default' or f'--config=configs/{name}.py' in doc
