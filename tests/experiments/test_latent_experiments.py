"""The experiments on GDM-F's latents: their measures in closed form, each on a model of two steps.

Checks properties that hold for any model: an empty band changes nothing, exchanging everything
gives the other image, and a latent that is fixed entirely does not vary.
"""

import numpy as np
import pandas as pd
import pytest
from jax import numpy as jnp
from scipy import stats

from experiments import (
  band_semantics,
  bases,
  generation_process,
  group_influence,
  image_mixing,
  image_variation,
  latent_interpolation,
  latent_traversal,
  pixel_or_frequency_space,
  total_correlation,
)
from experiments.lib import subject
from gdm_jax import basis, main
from gdm_jax.evaluation import classifier
from gdm_jax.runtime.errors import ConfigError
from tests.support import runs
from tests.support.experiments import check_report, rows, start, trained

CLASSIFIED = '--config.evaluation.features=classifier'
BANDS = ['[0, 2]', '[3, 9]', '[10, 24]', '[25, 63]']


@pytest.fixture(scope='module', autouse=True)
def quick_classifier():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(classifier, 'IMAGES', 6_400)
    yield


@pytest.fixture(scope='module')
def frequency(tmp_path_factory):
  return trained(tmp_path_factory, 'digits_frequency')


@pytest.fixture
def run(monkeypatch, frequency):
  """Runs an experiment twice, the second time without measuring; returns its rows and folder."""

  def run(module, *flags):
    name = module.__name__.split('.')[-1]
    start(module, monkeypatch, 'digits_frequency', frequency, *flags)
    file = frequency / name / 'results.csv'
    before = file.read_bytes()
    with monkeypatch.context() as patch:
      patch.setattr(subject.Subject, 'features_of', None)
      start(module, patch, 'digits_frequency', frequency, *flags)
    assert file.read_bytes() == before
    return rows(frequency, name), frequency / name

  return run


def column(measured, name):
  return np.array([float(row[name]) for row in measured])


def test_exchanging_nothing_and_everything(run):
  measured, folder = run(image_mixing, CLASSIFIED, '--pairs=40', '--shown=2')
  assert [row['band'] for row in measured] == ['nothing', *BANDS, 'everything']
  first, last = measured[0], measured[-1]
  assert float(first['changed']) == 0
  assert float(first['pixels']) < 1e-5
  # The classifier of a second mistakes some of the digits for one another.
  assert float(last['adopted']) == 1
  assert float(last['distance']) == pytest.approx(1, abs=1e-3)
  assert column(measured[1:-1], 'distance').min() > 0
  check_report(folder, '40 pairs of digits, train', 'another class', 'Fig. 7')


def test_exchange_between_two_sets_of_classes(run):
  flags = '--pairs=20', '--shown=1', '--config.evaluation.features=pixels'
  measured, _ = run(image_mixing, *flags, '--sets=1,7/0,8')
  assert {row['sets'] for row in measured if row['sets']} == {'1,7/0,8'}


def test_pairs_of_two_sets_are_of_their_classes(frequency, capsys):
  argv = ['', f'--config={runs.ROOT}/configs/digits_frequency.py', f'--workdir={frequency}']
  config = main.parse([*argv, *runs.TINY]).config
  chosen = subject.Subject('pairs', config, frequency, perceived=False)
  for numbers, classes in zip(chosen.choose_pairs(50, ([1, 7], [0])), ([1, 7], [0]), strict=True):
    assert set(chosen.load(numbers)[1].tolist()) == set(classes)
  with pytest.raises(ConfigError, match='there are no images of one of these classes'):
    chosen.choose_pairs(5, ([1], [12]))
  with pytest.raises(ConfigError, match=r'--sets=1,x/2: must be classes of two sets'):
    image_mixing.parse('1,x/2')


def test_groups_that_move_when_one_varies(run):
  measured, folder = run(group_influence, '--images=4', '--variants=3', '--shown=2')
  assert len(measured) == 5 * 4
  relative = group_influence.matrix(pd.DataFrame(measured))
  assert list(relative) == list(relative.index) == BANDS
  assert (relative.to_numpy().diagonal() > 0.3).all()
  check_report(folder, 'Proposition 3.3', 'varied / moves')


def test_only_distances_without_a_classifier(run):
  measured, _ = run(image_mixing, '--pairs=8', '--shown=1')
  pixels = measured[-6:]
  assert {row['features'] for row in pixels} == {'pixels'}
  assert {row[key] for row in pixels for key in ('changed', 'adopted')} == {''}
  # Pixels as features: the distances are of bytes, so known to half a level.
  np.testing.assert_allclose(float(pixels[0]['distance']), 0, atol=0.02)


def test_fixing_and_keeping_the_lowest_components(run):
  flags = '--counts=0,10,64', '--fixed=6', '--variants=5', '--reconstructed=10', '--shown=2'
  measured, folder = run(band_semantics, CLASSIFIED, *flags)
  assert [row['count'] for row in measured] == ['0', '10', '64']
  variance = column(measured, 'variance')
  # All fixed, the variants are equal but for the rounding of features in other rows of a batch,
  # which depends on the processor.
  assert variance[0] > variance[1] > 0
  assert variance[2] < 1e-12 * variance[0]
  assert column(measured, 'agreement')[-1] == column(measured, 'same')[-1] == 1
  assert column(measured, 'pixels')[-1] < 1e-5 < column(measured, 'pixels')[1]
  check_report(folder, 'Fig. 4', pictures=('figure', 'reconstruction'))


def test_variations_keep_ever_more(run):
  measured, folder = run(image_variation, CLASSIFIED, '--images=6', '--variants=4')
  assert [row['kept'] for row in measured] == [' '.join(BANDS[:n]) for n in (1, 2, 3)]
  assert (np.diff(column(measured, 'distance')) < 0).all()
  check_report(folder, 'Fig. 9', '6 images of digits')


def test_interpolation_starts_at_the_image(run):
  flags = CLASSIFIED, '--pairs=6', '--config.edit.weights=0.0,0.5,1.0'
  measured, folder = run(latent_interpolation, *flags)
  assert [(row['band'], row['weight']) for row in measured] == [
    (band, weight) for band in BANDS for weight in ('0.0', '0.5', '1.0')
  ]
  starts = column(measured, 'distance')[::3]
  np.testing.assert_array_equal(starts, 0)
  assert column(measured, 'distance')[2::3].min() > 0
  check_report(folder, 'great circle', pictures=('figure', 'distance'))


def test_traversal_moves_one_element(run, capsys):
  flags = (
    '--images=5',
    '--shown=1',
    '--config.edit.ranks=0,5',
    '--config.edit.strengths=-3.0,0.0,3.0',
  )
  measured, folder = run(latent_traversal, CLASSIFIED, *flags)
  assert [(row['rank'], row['strength']) for row in measured] == [
    (rank, strength) for rank in '05' for strength in ('-3.0', '0.0', '3.0')
  ]
  ends, middle = [measured[i] for i in (0, 2, 3, 5)], [measured[1], measured[4]]
  assert column(ends, 'distance').min() > 0
  assert not column(middle, 'distance').any()
  assert column(ends, 'common').max() <= 1
  check_report(folder, 'Fig. 6 and 8', pictures=('figure', 'real', 'distance'))


def test_an_element_that_is_not_there_is_refused(monkeypatch, frequency, capsys):
  with pytest.raises(SystemExit) as stop:
    start(latent_traversal, monkeypatch, 'digits_frequency', frequency, '--config.edit.ranks=64')
  assert stop.value.code == 2
  assert 'edit.ranks, edit.channel = ((64,), 0): band [64, 65)' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('module', 'flag', 'message'),
  [
    (band_semantics, '--counts=1,65', '--counts=1,65: numbers of 0 to 64'),
    (image_variation, '--images=1798', "1798 images wanted: evaluation.split = 'train' has 1797"),
    (total_correlation, '--images=60', 'must be at least 66, or --ranks=58'),
    (image_variation, '--variants=1', '--variants=1 must be at least 2'),
    (latent_interpolation, '--config.edit.weights=', 'edit.weights is empty'),
  ],
)
def test_misuse_is_named(module, flag, message, monkeypatch, frequency, capsys):
  with pytest.raises(SystemExit) as stop:
    start(module, monkeypatch, 'digits_frequency', frequency, flag)
  assert stop.value.code == 2
  assert message in capsys.readouterr().err


def test_bands_are_decided_one_after_another(tmp_path_factory, monkeypatch, frequency):
  monkeypatch.setattr(generation_process, 'ROWS', 8)
  group = '--config.strategies.main.grouping=whole', '--config.strategies.main.groups='
  whole = trained(tmp_path_factory, 'digits_frequency', *group, '--config.strategies.main.order=0')
  whole = whole.rename(whole.with_name('whole'))
  flags = f'--models={whole}', '--images=6', '--config.sampling.steps=16'
  start(generation_process, monkeypatch, 'digits_frequency', frequency, *flags)
  measured = rows(frequency, 'generation_process')
  assert len(measured) == 2 * 4 * 9
  done = {(row['model'], row['band'], int(row['row'])): float(row['done']) for row in measured}
  for model in ('whole', 'run'):
    for band in BANDS:
      assert done[model, band, 16] == pytest.approx(1, abs=1e-5)
  for i, band in enumerate(BANDS):  # a group's four steps end its band, and it has none before
    assert done['run', band, 4 * (i + 1)] == pytest.approx(1, abs=1e-4)
    for row in range(0, 4 * i, 2):
      assert done['run', band, row] == pytest.approx(0, abs=1e-5)
  assert all(abs(done['whole', band, 2]) > 0.1 for band in BANDS)  # k = 1 begins all at once
  folder = frequency / 'generation_process'
  check_report(folder, 'Fig. 2', pictures=('figure', 'bands'))


@pytest.mark.parametrize(
  'argument', ['--config.model.space=frequency', '--config.seed=3', '--config.basis.name=pixel']
)
def test_what_is_compared_cannot_be_set(argument, tmp_path, monkeypatch, capsys):
  args = pixel_or_frequency_space, monkeypatch, 'digits_frequency', tmp_path, argument
  with pytest.raises(SystemExit) as stop:
    start(*args, trained=False)
  assert stop.value.code == 2
  assert argument.split('.')[-1].split('=')[0] in capsys.readouterr().err


def test_spaces_are_trained_alike(tmp_path, monkeypatch):
  tiny = f'--config.train.duration={2 * runs.BATCH}', '--repeats=1', '--seeds=1'
  args = pixel_or_frequency_space, monkeypatch, 'digits_frequency', tmp_path, *tiny
  start(*args, trained=False)
  measured = rows(tmp_path, 'pixel_or_frequency_space')
  kinds = [f'{basis}-{space}-0' for basis in ('blur', 'cosine') for space in ('pixel', 'frequency')]
  assert [row['model'] for row in measured] == kinds
  assert len({row['distance'] for row in measured}) == 4
  folder = tmp_path / 'pixel_or_frequency_space'
  check_report(folder, 'in the paper that is pixel space', pictures=('figure', 'distance'))
  start(*args, trained=False)
  assert rows(tmp_path, 'pixel_or_frequency_space') == measured
  assert len(runs.metrics(tmp_path / 'trained' / 'blur-frequency-0')) == 2
  with pytest.raises(SystemExit):  # models that were trained otherwise are not taken for these
    start(*args, '--config.train.learning_rate=0.5', trained=False)


def test_total_correlation_of_latents(run):
  measured, folder = run(total_correlation, '--images=300', '--ranks=20')
  assert [row['of'] for row in measured] == ['data', 'latents', 'noise']
  excess = column(measured, 'excess_deviations')
  assert excess[0] > 100
  assert abs(excess[2]) < 3
  check_report(folder, '20 components of 300 images')


def test_total_correlation_is_that_of_gaussians():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(200_000, 2)) @ np.linalg.cholesky([[1, 0.8], [0.8, 1]]).T
  assert total_correlation.total_correlation(x * [3, 0.1]) == pytest.approx(
    -np.log(1 - 0.8**2) / 2, rel=0.01
  )


@pytest.mark.parametrize(('n', 'd'), [(30, 4), (60, 40)])
def test_total_correlation_of_independent_components(n, d):
  rng = np.random.default_rng(0)
  measured = [total_correlation.total_correlation(rng.normal(size=(n, d))) for _ in range(4000)]
  mean, deviation = total_correlation.if_independent(n, d)
  assert np.mean(measured) == pytest.approx(mean, abs=4 * deviation / 4000**0.5)
  assert np.std(measured) == pytest.approx(deviation, rel=0.05)


def test_marginals_of_noise_are_normal_and_others_are_not():
  rng = np.random.default_rng(0)
  noise = total_correlation.describe(rng.normal(size=(500, 100)))
  assert noise['not_normal'] < stats.binom.ppf(0.999, 100, 0.05) / 100
  assert abs(noise['kurtosis']) < 0.1
  uniform = total_correlation.describe(2 * rng.random((500, 20)) - 1)
  assert uniform['not_normal'] == 1
  assert uniform['kurtosis'] == pytest.approx(-1.2, abs=0.1)
  assert uniform['scale_error'] == pytest.approx(1 - 3**-0.5, abs=0.02)


def test_measures_in_closed_form():
  features = np.array([[[0.0, 0], [2, 0]], [[1, 1], [1, 5]]])
  assert subject.variance(features) == (2 + 8) / 2
  assert subject.agreement(np.array([[1, 1, 2, 1], [0, 3, 5, 7]])) == (6 / 12 + 0) / 2
  assert subject.distance(np.array([[3.0, 4], [0, 0]]), np.zeros((2, 2))) == 12.5**0.5
  assert subject.share(np.array([True, False, False, False])) == (0.25, (0.75 / 12) ** 0.5)
  # Variants that all agree with each other tell no more than one.
  clustered = np.array([True, False, False, False])[:, None].repeat(8, 1)
  assert subject.share(clustered) == subject.share(clustered[:, 0])


def test_agreement_does_not_depend_on_the_number_of_variants():
  rng = np.random.default_rng(0)
  for variants in (4, 16):
    measured = subject.agreement(rng.integers(10, size=(4000, variants)))
    assert measured == pytest.approx(0.1, abs=0.005)


def test_common_motion_is_all_or_nothing():
  rng = np.random.default_rng(0)
  assert latent_traversal.common_share(np.ones((5, 3))) == pytest.approx(1)
  assert latent_traversal.common_share(np.zeros((5, 3))) == 0
  independent = [latent_traversal.common_share(rng.normal(size=(20, 50))) ** 2 for _ in range(500)]
  assert np.mean(independent) < 0.02  # without the correction 1 / 20
  half = latent_traversal.common_share(np.ones(400) + rng.normal(size=(5000, 400)))
  assert half == pytest.approx(0.5**0.5, abs=0.01)


def test_bases_are_drawn_and_measured_once(tmp_path, monkeypatch):
  args = bases, monkeypatch, 'digits_frequency', tmp_path, '--shown=6', '--batch=2'
  start(*args, trained=False)
  measured = rows(tmp_path, 'bases')
  assert [row['basis'] for row in measured] == ['cosine', 'blur, reflect', 'blur, zero']
  assert column(measured, 'orthogonality_error').max() < 1e-6
  assert column(measured, 'share').min() > 0
  np.testing.assert_allclose(column(measured, 'flop'), 2 * 2 * 2 * 2 * 8**3, rtol=0.3)
  start(*args, trained=False)
  assert rows(tmp_path, 'bases') == measured
  check_report(tmp_path / 'bases', 'Fig. 12')


def test_orthogonality_error_is_that_of_the_whole_matrix():
  factors = [np.eye(3) + 1e-3 * np.random.default_rng(i).normal(size=(3, 3)) for i in range(2)]
  u = np.kron(*factors)
  broken = basis.Basis(tuple(factors), np.arange(9).reshape(3, 3))
  assert bases.orthogonality_error(broken) == pytest.approx(
    np.abs(u.T @ u - np.eye(9)).max(), rel=1e-3
  )
  low = bases.lowest(basis.cosine((4, 4)), 3)
  np.testing.assert_allclose(low[0], jnp.ones((4, 4, 1)), rtol=1e-6)
