"""Every mode of the command exists, and --help explains it."""

import pytest

from gdm_jax import main, modes


@pytest.mark.parametrize('name', modes.MODES)
def test_a_mode_is_a_module_with_run(name):
  assert callable(modes.load(name))


def test_help_explains_every_mode(capsys):
  assert main.main(['', '--help']) == 0
  text = capsys.readouterr().out
  for name, mode in modes.MODES.items():
    assert f'{name}:' in text
    assert mode.help.splitlines()[0] in text
  assert '{' not in text


def test_only_training_ignores_the_config_of_the_workdir():
  assert [name for name, mode in modes.MODES.items() if not mode.trained] == ['train']
