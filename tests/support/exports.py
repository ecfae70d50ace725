"""Exports of tiny runs."""

from gdm_jax import build, main
from gdm_jax.runtime import sharding
from gdm_jax.training.workdir import load_ema
from tests.support import runs


def export(workdir, folder, *overrides):
  arguments = ['', *runs.arguments(workdir, '--mode=export', f'--config.export.folder={folder}')]
  assert main.main([*arguments, '--config.export.grid=2', *overrides]) == 0
  return folder


def config_and_parameters(workdir, *overrides):
  config = main.parse(['', *runs.arguments(workdir, *overrides)]).config
  system = build.system(config)
  return config, system, load_ema(config, workdir, system, sharding.mesh())[0]
