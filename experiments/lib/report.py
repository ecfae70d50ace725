"""A page with what an experiment found: one file, pictures inside, no network."""

import base64
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence

import jax
import jinja2
import pandas as pd
from ml_collections import ConfigDict

from gdm_jax.runtime import distributed
from gdm_jax.training.workdir import versions

TEMPLATE = jinja2.Environment(
  loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
).get_template('report.html')

Table = Sequence[Mapping[str, object]]


def publish(
  folder: pathlib.Path,
  doc: str,
  table: Table,
  findings: Sequence[str],
  pictures: Sequence[pathlib.Path],
  rows: Sequence[Mapping[str, str]],
  config: ConfigDict,
  printed: Table = (),
):
  """Writes folder/report.html (see `write_html`) and prints table and findings, by process 0.

  printed: the rows of the table to print, if all would be too long.
  """
  if distributed.is_primary():
    file = folder / 'report.html'
    write_html(file, doc, table, findings, pictures, rows, config)
    print(to_text(printed or table), *findings, f'see {file}', sep='\n')


def write_html(
  file: pathlib.Path,
  doc: str,
  table: Table,
  findings: Sequence[str],
  pictures: Sequence[pathlib.Path],
  rows: Sequence[Mapping[str, str]],
  config: ConfigDict,
):
  """Writes report.html.

  doc: the experiment's docstring, whose first line is the title; table: the results, a row each;
  findings: sentences; pictures: PNG or GIF files; rows: the measurements, whose common columns are
  the settings; config: of the (last) model, as it was trained and evaluated.
  """
  title, _, about = doc.strip().partition('\n')
  devices = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  packages = (f'{name} {version}' for name, version in versions().items())
  page = TEMPLATE.render(
    title=title,
    about=about.strip(),
    findings=findings,
    pictures=[_picture(picture) for picture in pictures],
    table=table,
    command=f'python -m experiments.{pathlib.Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}',
    settings=_shared(rows),
    versions=', '.join([devices, *packages]),
    config=config.to_json(indent=2),
  )
  file.write_text(page + '\n')


def _shared(rows):
  """The columns that have one value in all rows, which is not empty; and the number of rows."""
  data = pd.DataFrame(rows)
  shared = {key: data[key][0] for key in data if data[key].nunique() == 1 and data[key][0]}
  return [{'setting': key, 'value': value} for key, value in {**shared, 'cells': len(rows)}.items()]


def _picture(file):
  data = base64.b64encode(file.read_bytes()).decode()
  return {'name': file.stem, 'kind': file.suffix.removeprefix('.'), 'data': data}


def by_budget(
  metric: str, lines: Mapping[str, Mapping[int, str]], budgets: Sequence[int]
) -> list[dict[str, str]]:
  """A table of lines of text against evaluations of the network."""
  table = pd.DataFrame(lines).T.reindex(columns=budgets).fillna('')
  table.columns = [f'{budget} evaluations' for budget in budgets]
  return [{metric: label, **row.to_dict()} for label, row in table.iterrows()]


def to_text(table: Table) -> str:
  """The table for a terminal, columns aligned at the left."""
  data = pd.DataFrame(table).astype(str)
  columns = [[name, *data[name]] for name in data]
  widths = [max(map(len, column)) for column in columns]
  return '\n'.join(
    '  '.join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
    for line in zip(*columns, strict=True)
  )
