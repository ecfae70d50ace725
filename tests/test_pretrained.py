"""`gdm_jax.load`: every method is the library's function of that name, on the export's model."""

import jax
import numpy as np
import pytest

import gdm_jax
from gdm_jax import build, likelihood, sampling
from gdm_jax.data import sources
from gdm_jax.data.units import from_uint8
from gdm_jax.runtime import exported
from gdm_jax.runtime.errors import ConfigError
from tests.support import runs
from tests.support.exports import config_and_parameters, export

ORDER, STEPS = (3, 1, 0, 2), 8


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  from gdm_jax import main

  folder = tmp_path_factory.mktemp('pretrained') / 'run'
  assert main.main(['', *runs.arguments(folder, '--config.model.classes=10', steps=2)]) == 0
  return folder


@pytest.fixture(scope='module')
def model(workdir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('pretrained') / 'model'
  options = '--config.model.classes=10', '--config.export.program=False', '--config.export.grid=0'
  return gdm_jax.load(export(workdir, folder, *options))


@pytest.fixture(scope='module')
def library(workdir):
  """The process, the prediction of labels and guidance, and the table of ORDER and STEPS."""
  config, system, params = config_and_parameters(
    workdir,
    '--config.model.classes=10',
    f'--config.sampling.steps={STEPS}',
    f'--config.sampling.order={",".join(map(str, ORDER))}',
  )

  def bind(labels=(-1, -1), guidance=1.0):
    return system.predictor.bind(params, np.array(labels), guidance)

  return system.process, bind, np.asarray(build.sampling_table(config, system))


def test_facts_of_the_model(model):
  assert (model.shape, model.num_groups, model.step) == ((8, 8, 1), 4, 2)
  assert model.classes == tuple('0123456789')


def test_a_seed_is_a_sample_and_the_end_of_its_trajectory(model, library):
  process, bind, table = library
  z = sampling.latents(np.array([4, 9], np.uint32), model.shape)
  expected = jax.jit(lambda z: sampling.trajectory(bind(), process, table, z))(z)
  path = model.trajectory([4, 9], order=ORDER, steps=STEPS, labels=-1)
  np.testing.assert_allclose(path, expected, atol=1e-5)
  x = model.sample([4, 9], order=ORDER, steps=STEPS, labels=-1)
  np.testing.assert_allclose(x, expected[-1], atol=1e-5)


def test_encode_and_decode_are_inverse(model, library):
  process, bind, table = library
  x = np.asarray(sampling.latents(np.arange(2), model.shape)) / 2
  expected = jax.jit(lambda x: sampling.encode(bind(), process, table, x))(x)
  z = model.encode(x, order=ORDER, steps=STEPS)
  np.testing.assert_allclose(z, expected, atol=1e-5)
  options = {'order': ORDER, 'steps': STEPS, 'solver': 'reversible_heun', 'label': '3'}
  np.testing.assert_allclose(model.decode(model.encode(x, **options), **options), x, atol=1e-5)


def test_completion_keeps_what_is_given(model):
  x = np.asarray(sampling.latents(np.arange(3), model.shape)) / 2
  completed = model.complete(x, groups=(3,), steps=STEPS)
  np.testing.assert_array_equal(completed[:, 4:, 4:], x[:, 4:, 4:])
  assert (completed[:, :4] != x[:, :4]).all()


def test_log_likelihood_is_the_librarys(model, library):
  process, bind, table = library
  x = np.asarray(sampling.latents(np.arange(2), model.shape)) / 2
  probes = likelihood.rademacher(np.arange(2, dtype=np.uint32), 2, model.shape)
  run = jax.jit(lambda x: likelihood.log_likelihood(bind(), process, table, x, probes, 'euler'))
  options = {'order': ORDER, 'steps': STEPS, 'probes': 2, 'solver': 'euler'}
  np.testing.assert_allclose(model.log_likelihood(x, **options), run(x), rtol=1e-4)


def test_edits_are_lines_of_captions_and_pictures(model):
  x = np.asarray(sampling.latents(np.arange(2), model.shape)) / 2
  lines = model.edit(x, 'interpolate', groups=(0,), weights=[0.0, 1.0], steps=4)
  ((caption, pictures),) = lines
  assert caption == '0 to 1\ngroup 0'
  assert [name for name, _ in pictures] == ['0', '1']
  np.testing.assert_allclose(pictures[0][1], x[0], atol=1e-4)  # a weight of 0 changes nothing


def test_labels_by_number_name_and_default_are_those_of_the_mode(model):
  by_default = model.sample([3, 4], steps=STEPS)
  for labels in ([3, 4], ['3', 4], np.array([3, 4])):
    np.testing.assert_array_equal(model.sample([3, 4], steps=STEPS, labels=labels), by_default)


def test_guidance_is_the_librarys(model, library):
  process, bind, table = library
  z = sampling.latents(np.array([3, 4], np.uint32), model.shape)
  expected = jax.jit(lambda z: sampling.sample(bind((3, 4), 30.0), process, table, z))(z)
  options = {'order': ORDER, 'steps': STEPS, 'labels': (3, 4)}
  guided = model.sample([3, 4], **options, guidance=30.0)
  np.testing.assert_allclose(guided, expected, atol=1e-5)
  assert np.abs(guided - model.sample([3, 4], **options)).max() > 1e-3


def test_guidance_of_a_group_is_of_the_order_of_completion(model):
  x = model.sample([3], steps=STEPS, labels=3)
  options = {'steps': STEPS, 'labels': 3, 'seeds': [5]}
  plain = model.complete(x, (3,), **options)  # group 3 comes first: its guidance has no effect
  np.testing.assert_allclose(model.complete(x, (3,), guidance=(30, 1, 1, 1), **options), plain)
  guided = model.complete(x, (3,), guidance=(1, 30, 1, 1), **options)
  assert np.abs(guided - plain).max() > 1e-3


def test_nothing_is_asked_for(model):
  nothing = model.sample([])
  assert nothing.shape == (0, 8, 8, 1)
  for solver in ('heun', 'reversible_heun'):
    z = model.encode(nothing, solver=solver)
    assert {leaf.shape for leaf in jax.tree.leaves(z)} == {nothing.shape}
    assert model.decode(z, solver=solver).shape == nothing.shape


@pytest.mark.parametrize('name', exported.names())
def test_models_of_the_package_sample(name, monkeypatch, tmp_path):
  monkeypatch.setattr(exported, 'DEFAULTS', tmp_path / 'none')  # a package has no configs
  model = gdm_jax.load(name)
  data = from_uint8(sources.load(model.config.data.name, 'train', model.shape).x[:1000])
  x = model.sample([1, 5], steps=16)
  # Its samples are as bright as its data, and change as smoothly from pixel to pixel; untrained
  # networks give neither.
  assert abs(x.mean() - data.mean()) < 0.35
  differences, of_data = (np.abs(np.diff(y, axis=2)).mean() for y in (x, data))
  assert differences < 1.5 * of_data
  assert float(np.abs(x).max()) < 2


@pytest.mark.parametrize('name', exported.names())
def test_no_key_is_missing_where_there_are_no_configs(name, monkeypatch, tmp_path):
  with_configs = exported.Exported(name, exported.MODELS / name).config()
  monkeypatch.setattr(exported, 'DEFAULTS', tmp_path / 'none')
  assert exported.Exported(name, exported.MODELS / name).config() == with_configs


def test_the_package_has_small_models():
  assert {'digits', 'fashion', 'fashion_frequency'} <= {*exported.names()}
  files = [file for file in exported.MODELS.rglob('*') if file.is_file()]
  assert sum(file.stat().st_size for file in files) < 8e6


BAD = {
  'order': (lambda m: m.sample([0], order=(0, 0, 1, 2)), r'sampling\.order = \(0, 0, 1, 2\)'),
  'steps': (lambda m: m.sample([0], steps=2), r'sampling\.steps = \(2,\)'),
  'solver': (lambda m: m.sample([0], solver='rk9'), "solver 'rk9' is unknown"),
  'seed': (lambda m: m.sample([-1]), 'must be 0 to'),
  'label': (lambda m: m.sample([0], labels=10), 'must be -1, none, or below model.classes = 10'),
  'name': (lambda m: m.sample([0], labels='cat'), "'cat' is no class of the data"),
  'labels': (lambda m: m.sample([0], labels=[1, 2]), '2 of them for 1 examples'),
  'two names': (lambda m: m.sample([0], labels=['3,4']), "'3,4' is no class of the data"),
  'edit label': (
    lambda m: m.edit(np.zeros((2, 8, 8, 1)), encode_label=77),
    'edit.encode_label = 77: must be -1',
  ),
  'shape': (lambda m: m.encode(np.zeros((1, 4, 4, 1))), r'must be \(n, 8, 8, 1\)'),
  'groups': (lambda m: m.complete(np.zeros((1, 8, 8, 1)), (7,)), r'complete\.groups = \(7,\)'),
  'edit': (lambda m: m.edit(np.zeros((2, 8, 8, 1)), 'paint'), "operation = 'paint'"),
  'option': (lambda m: m.edit(np.zeros((2, 8, 8, 1)), 'mix', colour=3), 'edit.colour: there are'),
  'probes': (lambda m: m.log_likelihood(np.zeros((1, 8, 8, 1)), probes=-1), 'likelihood.probes'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_options_are_one_line(name, model):
  call, wanted = BAD[name]
  with pytest.raises(ConfigError, match=wanted) as error:
    call(model)
  assert len(str(error.value).splitlines()) == 1
