"""The committed reports follow from the committed csv files, by today's code."""

import html.parser

import pandas as pd
import pytest

from experiments import (
  band_semantics,
  bases,
  choose,
  digit_pairs,
  even_pixels,
  generation_process,
  group_cost,
  group_count,
  group_influence,
  grouping_strategies,
  held_out_likelihood,
  image_mixing,
  image_variation,
  latent_interpolation,
  latent_traversal,
  loss_weighting,
  network_shapes,
  order_search,
  order_sweep,
  pixel_or_frequency_space,
  quality_against_evaluations,
  step_allocation,
  time_intervals,
  total_correlation,
)
from gdm_jax.solvers import get_solver
from tests.support.runs import ROOT

RESULTS = ROOT / 'experiments' / 'results'

REPORTS = {
  'band_semantics': (band_semantics, {}),
  'bases': (bases, {'count': 16}),
  'choose': (choose, {}),
  'digit_pairs': (digit_pairs, {}),
  'even_pixels': (even_pixels, {}),
  'even_pixels_causal': (even_pixels, {}),
  'generation_process': (generation_process, {}),
  'group_cost': (group_cost, {}),
  'group_count': (group_count, {'budgets': group_count.parse(group_count.BUDGETS)}),
  'group_influence': (group_influence, {}),
  'grouping_strategies': (grouping_strategies, {}),
  'held_out_likelihood': (held_out_likelihood, {}),
  'image_mixing': (image_mixing, {}),
  'image_variation': (image_variation, {}),
  'latent_interpolation': (latent_interpolation, {}),
  'latent_traversal': (latent_traversal, {}),
  'loss_weighting': (loss_weighting, {}),
  'network_shapes': (network_shapes, {}),
  'overlap': (group_count, {'budgets': [8, 16, 32, 64]}),
  'order_search': (order_search, {}),
  'order_sweep': (order_sweep, {}),
  'pixel_or_frequency_space': (pixel_or_frequency_space, {}),
  'quality_against_evaluations': (quality_against_evaluations, {}),
  'time_intervals': (time_intervals, {}),
  'total_correlation': (total_correlation, {'channels': 1}),
}
"""The experiment of each folder with a report.html, and what its `summarise` takes besides rows."""

WITHOUT_REPORT = {
  'step_allocation': 'writes no report; measured before evaluation.csv had its columns',
}


class Page(html.parser.HTMLParser):
  """The paragraphs with text and the first table of a report."""

  def __init__(self, text):
    super().__init__()
    self.paragraphs, self.table, self._open, self._tables = [], [], None, 0
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self._open = tag
    self._tables += tag == 'table'
    if tag == 'tr' and self._tables == 1:
      self.table.append([])
    if tag in ('td', 'th') and self._tables == 1:
      self.table[-1].append('')

  def handle_data(self, data):
    if self._open == 'p':
      self.paragraphs.append(data)
    if self._open in ('td', 'th') and self._tables == 1:
      self.table[-1][-1] += data

  def handle_endtag(self, tag):
    self._open = None


def read(file):
  return pd.read_csv(RESULTS / file, dtype=str, keep_default_na=False)


def with_todays_columns(rows):
  """Rows from before evaluation.csv had its columns."""
  empty = dict.fromkeys(('rho', 'kernel', 'median'), '')
  return rows.rename(columns={'fd_pixels': 'distance'}).assign(metric='FD (pixels)', **empty)


def test_every_committed_csv_is_tested():
  folders = {file.parent.name for file in RESULTS.glob('*/*.csv')}
  assert folders == REPORTS.keys() | WITHOUT_REPORT.keys()
  assert {file.parent.name for file in RESULTS.glob('*/report.html')} == REPORTS.keys()


@pytest.mark.parametrize('name', REPORTS)
def test_the_report_follows_from_the_rows(name):
  page = Page((RESULTS / name / 'report.html').read_text())
  module, options = REPORTS[name]
  table, findings = module.summarise(read(f'{name}/results.csv'), **options)
  assert [list(table), *table.astype(str).to_numpy().tolist()] == page.table
  *paragraphs, made_with = page.paragraphs
  assert findings == paragraphs
  assert made_with.startswith('This page was drawn with ')


@pytest.mark.parametrize('name', ['band_semantics', 'image_mixing', 'image_variation'])
def test_rows_of_cifar10_are_summarised(name):
  """They have no report: it is that of the digits."""
  rows = read(f'{name}/cifar10.csv')
  table, findings = REPORTS[name][0].summarise(rows)
  assert len(table) == len(rows)
  assert 'tfds:cifar10, test' in ' '.join(findings)


def test_rows_of_table_1_on_fashion_are_summarised():
  table, findings = grouping_strategies.summarise(read('grouping_strategies/fashion.csv'))
  assert len(table) == 4
  assert findings[0].endswith('right_left, bottom_top, cdm_inv, cdm.')


def test_rows_of_two_sets_are_summarised():
  rows = read('image_mixing/sets.csv')
  table, findings = image_mixing.summarise(rows)
  assert len(table) == len(rows)
  assert 'Exchanging [0, 9] makes 100.0% of the images another class' in ' '.join(findings)


@pytest.mark.parametrize('name', ['bands', 'blocks'])
def test_allocation_of_old_rows(name):
  rows = with_todays_columns(read(f'step_allocation/{name}.csv'))
  lines = step_allocation.summarise(rows)
  assert len(lines) == 2 * len(rows)
  for row, line, flags in zip(rows.itertuples(), lines[::2], lines[1::2], strict=True):
    assert line.endswith(f'{row.shares}: errors {row.errors}, FD (pixels) {row.distance}')
    assert flags.endswith(f' --config.sampling.steps={row.steps.replace("-", ",")}')
    steps = sum(map(int, row.steps.split('-')))
    assert steps == get_solver(row.solver).steps(int(row.evaluations))
