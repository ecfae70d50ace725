"""Models that the modes after training share, trained for a moment."""

import pytest

from gdm_jax import main
from tests.support import runs


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
  """A workdir of digits in 2 x 2 blocks."""
  workdir = tmp_path_factory.mktemp('trained') / 'run'
  assert main.main(['', *runs.arguments(workdir, steps=8)]) == 0
  return workdir


@pytest.fixture(scope='session')
def labelled(tmp_path_factory):
  """The same, given labels."""
  workdir = tmp_path_factory.mktemp('labelled') / 'run'
  assert main.main(['', *runs.arguments(workdir, '--config.model.classes=10', steps=8)]) == 0
  return workdir
