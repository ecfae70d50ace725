"""The committed reports follow from the committed csv files, by today's code."""

import csv
import functools
import html.parser

import pytest

from experiments import (
  band_semantics,
  bases,
  generation_process,
  group_count,
  grouping_strategies,
  image_mixing,
  image_variation,
  latent_interpolation,
  latent_traversal,
  order_sweep,
  pixel_or_frequency_space,
  time_intervals,
  total_correlation,
)
from experiments.lib import study
from tests.support.runs import ROOT

RESULTS = ROOT / 'experiments' / 'results'
HELD_OUT = 'digits, train[80%:]'


class Page(html.parser.HTMLParser):
  """The paragraphs and the first table of a report."""

  def __init__(self, text):
    super().__init__()
    self.findings, self.table, self._open, self._tables = [], [], None, 0
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self._open = tag
    self._tables += tag == 'table'
    if tag == 'p':
      self.findings.append('')
    if tag == 'tr' and self._tables == 1:
      self.table.append([])
    if tag in ('td', 'th') and self._tables == 1:
      self.table[-1].append('')

  def handle_data(self, data):
    if self._open == 'p':
      self.findings[-1] += data
    if self._open in ('td', 'th') and self._tables == 1:
      self.table[-1][-1] += data

  def handle_endtag(self, tag):
    self._open = None


def read(name):
  with (RESULTS / name / 'results.csv').open(newline='') as f:
    return list(csv.DictReader(f))


def nested(rows, *columns):
  """Rows by the values of one column, then of the next, as lists of lists."""
  if not columns:
    return rows
  return [nested(group, *columns[1:]) for group in study.by(rows, columns[0]).values()]


def strategies(rows):
  return grouping_strategies.summarise(study.by(rows, 'strategy'))


def counts(rows):
  by_budget = {
    f'k = {name.removeprefix("k")}': {
      int(budget): group for budget, group in study.by(line, 'evaluations').items()
    }
    for name, line in study.by(rows, 'strategy').items()
  }
  return group_count.summarise(by_budget, [8, 16, 32, 64, 128])


def intervals(rows):
  lines = study.by(rows, 'model')
  return time_intervals.summarise([nested(line, 'cuts') for line in lines.values()])


def orders(rows):
  return order_sweep.summarise(nested(rows, 'order'))


def spaces(rows):
  names = {row['model'] for row in rows}
  by_space = {
    space: [row for row in rows if row['model'].startswith(space)]
    for space in pixel_or_frequency_space.SPACES
  }
  assert names == {row['model'] for group in by_space.values() for row in group}
  return pixel_or_frequency_space.summarise(by_space)


SUMMARIES = {
  'grouping_strategies': strategies,
  'group_count': counts,
  'time_intervals': intervals,
  'order_sweep': orders,
  'pixel_or_frequency_space': spaces,
  'generation_process': lambda rows: generation_process.summarise(study.by(rows, 'model')),
  'latent_interpolation': latent_interpolation.summarise,
  'latent_traversal': functools.partial(latent_traversal.summarise, about=HELD_OUT),
  'image_mixing': functools.partial(image_mixing.summarise, about=HELD_OUT),
  'image_variation': functools.partial(image_variation.summarise, about=HELD_OUT),
  'band_semantics': functools.partial(band_semantics.summarise, about=HELD_OUT, size=64),
  'total_correlation': functools.partial(total_correlation.summarise, about=HELD_OUT, channels=1),
  'bases': lambda rows: (bases.summarise(rows), []),
}
WITHOUT_REPORT = {
  'quality_against_evaluations': 'its csv is of before evaluation.csv had its columns',
  'step_allocation': 'prints its rows; its csv files are of before evaluation.csv had its columns',
}


def test_every_committed_csv_is_tested():
  folders = {file.parent.name for file in RESULTS.glob('*/*.csv')}
  assert folders == SUMMARIES.keys() | WITHOUT_REPORT.keys()
  for name in WITHOUT_REPORT:
    assert not (RESULTS / name / 'report.html').exists()


@pytest.mark.parametrize('name', SUMMARIES)
def test_the_report_follows_from_the_rows(name):
  page = Page((RESULTS / name / 'report.html').read_text())
  table, findings = SUMMARIES[name](read(name))
  assert [list(table[0]), *([str(v) for v in row.values()] for row in table)] == page.table
  for finding in findings:
    assert finding in page.findings
