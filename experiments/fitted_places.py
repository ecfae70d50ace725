"""Where in a group's interval the steps should end: fitted to the model, against even and rho.

  python -m experiments.fitted_places --model=digits

For each of --solvers and each budget of evaluations, --budgets, fits the places that groups share
(`allocation.fit_places`) on --latents latents in a few orders, if the model knows all of them, and
measures on as many others how far the data are from the adaptive solver's: the path error, of
single examples the mean and the median. Beside it rows that are even, and denser towards data
(`sampling.rho`). The budget is shared out equally, and the path must be the linear one.

A table with such places is one of jax alone, for `sampling.sample`; --config.sampling has rho.
"""

import functools
import itertools
import pathlib

import jax
import numpy as np
import pandas as pd
import tqdm
from jax.tree_util import Partial

from experiments.lib import command, report
from experiments.lib.study import Model, Study
from experiments.quality_against_evaluations import TOLERANCE, fewest_steps, orders_of
from gdm_jax import allocation, build, figures, sampling
from gdm_jax.config import blaming
from gdm_jax.evaluation import evaluator
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.solvers import Solver, adaptive, get_solver

KEYS = ('model', 'parameters', 'strategy', 'cuts', 'guidance', 'labels')
KEYS += ('solver', 'evaluations', 'rows', 'latents')
VALUES = ('places', 'mean', 'median')
ROWS = {'even': 1.0, 'rho 1.5': 1.5, 'fitted': 1.0}
"""How the rows lie within an interval, and `sampling.rho`."""
ITERATIONS = 8  # of BFGS
SWEEP = jax.jit(sampling.sweep, static_argnames=('solver', 'at_once'))
SOLVERS = 'euler,midpoint,adams_bashforth2,multistep_midpoint'


def run(
  config,
  workdir: pathlib.Path,
  *,
  solvers: str = SOLVERS,
  budgets: str = '8,16',
  latents: int = 32,
):
  """Fits and measures. Raises ConfigError for wrong flags and a model that it does not suit."""
  evaluations = command.numbers('budgets', budgets)
  with blaming('--solvers', solvers):
    chosen = [get_solver(name) for name in dict.fromkeys(solvers.split(','))]
    if free := [solver.name for solver in chosen if not solver.order]:
      raise ValueError(f'{free[0]!r} chooses its own steps')
  study, model = Study('fitted_places', workdir, KEYS, VALUES), Model(config, workdir, workdir)
  if model.config.path != 'linear':
    raise ConfigError(f'path = {model.config.path!r}: must be linear')
  walks, rows = Walks(model, latents), []
  cells = list(itertools.product(chosen, evaluations, ROWS))
  for solver, budget, name in tqdm.tqdm(cells, 'path errors', disable=None):
    steps = solver.steps(budget)
    if steps > walks.fewest:  # else one step an interval: nothing to place
      key = {
        'model': model.name,
        **evaluator.provenance(model.config, model.system, model.checkpoint),
        **{'solver': solver.name, 'evaluations': budget, 'rows': name, 'latents': latents},
      }
      rows.append(study.cells.measure(key, functools.partial(walks.measure, name, solver, steps)))
  if not rows:
    raise ConfigError(f'--budgets={budgets}: too few for two steps in a group')
  rows = pd.DataFrame(rows)
  picture = study.folder / 'figure.png'
  draw(picture, rows)
  study.publish(__doc__, *summarise(rows), [picture], rows, model.config)


class Walks:
  """Two sets of latents, and where the adaptive solver takes them in every order."""

  def __init__(self, model: Model, latents: int):
    self.orders, self._model = orders_of(model.config, model.system), model
    numbers = np.arange(2 * latents, dtype=np.uint32)
    z = np.asarray(sampling.latents(numbers, tuple(model.config.data.shape)))
    self._labels = build.sampling_labels(model.config, numbers[:latents])
    self.fewest = fewest_steps(model.config, model.system)
    self._z, tables = np.split(z, 2), self._tables(self.fewest)
    exact = adaptive(TOLERANCE, TOLERANCE)
    self._targets = [self._walk(tables, z, exact) for z in self._z]

  @functools.cached_property
  def _predict(self):
    system, config = self._model.system, self._model.config
    guidance = build.sampling_guidance(config, system)

    def predict(params, labels, x_t, alpha):
      return system.predictor.bind(params, labels, guidance)(x_t, alpha)

    return Partial(predict, self._model.checkpoint.params, self._labels)

  def _tables(self, steps, rho=1.0):
    """The table of each order."""
    seeds = self._model.config.evaluation.seeds
    return np.stack(
      [
        build.sampling_table(
          self._model.with_sampling(seeds, order=order, steps=(steps,), rho=rho),
          self._model.system,
        )
        for order in self.orders
      ]
    )

  def _walk(self, tables, z, solver):
    process = self._model.system.process
    return np.asarray(SWEEP(self._predict, process, tables, z, solver, at_once=1))

  def measure(self, name: str, solver: Solver, steps: int) -> dict[str, object]:
    """The path errors of the second set of latents; places are fitted to the first."""
    tables, places = self._tables(steps, ROWS[name]), ''
    if name == 'fitted':
      process = self._model.system.process
      found = allocation.fit_places(
        self._predict, process, tables, self._z[0], self._targets[0], solver, ITERATIONS
      )
      tables = np.stack([allocation.place(table, found) for table in tables])
      places = ' '.join(f'{place:.3f}' for place in found)
    gaps = self._walk(tables, self._z[1], solver) - self._targets[1]
    errors = np.sqrt(np.mean(np.square(gaps), axis=tuple(range(2, gaps.ndim))))
    return {'places': places, 'mean': float(errors.mean()), 'median': float(np.median(errors))}


def summarise(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
  """The table, and what the fit gained."""
  columns = ['solver', 'evaluations', 'rows', 'mean', 'median', 'places']
  numbers = rows.astype({'mean': float, 'median': float, 'evaluations': int})
  findings = []
  for (solver, budget), cell in numbers.groupby(['solver', 'evaluations'], sort=False):
    mean = cell.set_index('rows')['mean']
    findings.append(
      f'{solver}, {budget} evaluations: the fitted places have {mean["fitted"] / mean["even"]:.2f} '
      f'times the mean path error of even rows, rho 1.5 {mean["rho 1.5"] / mean["even"]:.2f} times.'
    )
  shown = numbers[columns].assign(
    **{c: numbers[c].map('{:.4f}'.format) for c in ('mean', 'median')}
  )
  return shown, findings


def draw(file: pathlib.Path, rows: pd.DataFrame):
  """A line for each solver and way to lay the rows."""
  rows = rows.assign(line=rows['solver'] + ', ' + rows['rows'])
  lines = report.points_by(rows, 'line', ('evaluations', 'mean'))
  figures.plot_lines(
    file,
    lines,
    sorted(set(rows['evaluations'].astype(int))),
    **{'xlabel': 'evaluations of the network', 'ylabel': 'mean path error'},
    **{'xscale': 'log', 'yscale': 'log'},
  )


if __name__ == '__main__':
  command.start(run, __doc__)
