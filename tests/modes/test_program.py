"""sampler.stablehlo: one program for every table and batch, where this package is not installed."""

import re

import jax
import numpy as np
import pytest

from gdm_jax import build, sampling
from gdm_jax.runtime import exported
from tests.support import runs
from tests.support.exports import config_and_parameters, export

ORDERS = (0, 1, 2, 3), (3, 1, 0, 2)

ALONE = """
import sys
sys.modules['gdm_jax'] = None  # importing it fails
import jax, numpy as np
from safetensors.numpy import load_file
folder, calls, results = sys.argv[1:]
sampler = jax.export.deserialize(bytearray(open(f'{folder}/sampler.stablehlo', 'rb').read()))
assert sampler.platforms == ('cpu', 'cuda', 'tpu')
tensors, calls = load_file(f'{folder}/model.safetensors'), np.load(calls)
def call(i):
  arguments = [calls[name] for name in (f'table{i}', f'z{i}', f'labels{i}') if name in calls]
  return sampler.call(tensors, *arguments)
np.savez(results, *[call(i) for i in range(int(calls['count']))])
"""


def assert_the_program_is_the_library(workdir, folder, cases, tmp_path, *overrides):
  """Calls the program where this package cannot be imported; cases: (table, z, labels)."""
  calls = {'count': len(cases)}
  for i, (table, z, labels) in enumerate(cases):
    calls |= {f'table{i}': table, f'z{i}': z}
    calls |= {f'labels{i}': labels} if labels is not None else {}
  np.savez(tmp_path / 'calls.npz', **calls)
  files = folder, tmp_path / 'calls.npz', tmp_path / 'results.npz'
  script = tmp_path / 'alone.py'
  script.write_text(ALONE)
  runs.python(script, *files)
  _, system, params = config_and_parameters(workdir, *overrides)

  @jax.jit
  def sample(table, z, labels):
    return sampling.sample(system.predictor.bind(params, labels), system.process, table, z)

  with np.load(tmp_path / 'results.npz') as results:
    for case, x in zip(cases, results.values(), strict=True):
      np.testing.assert_allclose(x, sample(*case), rtol=0, atol=1e-6)


def tables(workdir, steps, order, *overrides):
  config, system, _ = config_and_parameters(
    workdir,
    f'--config.sampling.steps={steps}',
    f'--config.sampling.order={",".join(map(str, order))}',
    *overrides,
  )
  return np.asarray(build.sampling_table(config, system))


def folders_of_sources(program):
  """Of Python files that a serialised program names."""
  return re.findall(rb'[^\x00]*/[^\x00/]*\.py', program)


def test_one_program_is_every_order_batch_and_number_of_steps(trained, tmp_path):
  folder = export(trained, tmp_path / 'model', '--config.export.grid=0')
  rng, cases = np.random.default_rng(0), []
  for batch in (1, 7):
    for rows in (9, 33):
      for order in ORDERS:
        table = tables(trained, rows - 1, order)
        assert len(table) == rows
        z = rng.normal(size=(batch, 8, 8, 1)).astype(np.float32)
        cases += [(table, z, None), (table[::-1], z, None)]  # to data, and to latents
  assert_the_program_is_the_library(trained, folder, cases, tmp_path)
  program = (folder / exported.PROGRAM).read_bytes()
  assert b'sampling.py' in program
  assert folders_of_sources(program) == []


def test_the_program_of_a_labelled_model_takes_labels(labelled, tmp_path):
  classes = '--config.model.classes=10'
  folder = export(labelled, tmp_path / 'model', classes, '--config.export.grid=0')
  table = tables(labelled, 8, ORDERS[1], classes)
  z = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
  cases = [(table, z, np.array(labels, np.int32)) for labels in ([3, -1], [4, 4])]
  assert_the_program_is_the_library(labelled, folder, cases, tmp_path, classes)
  assert not (folder / 'grid.png').exists()


@pytest.mark.parametrize('model', sorted(path.name for path in exported.MODELS.iterdir()))
def test_the_programs_of_the_package_name_no_folder_of_this_machine(model):
  assert folders_of_sources((exported.MODELS / model / exported.PROGRAM).read_bytes()) == []
