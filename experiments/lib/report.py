"""A page with what an experiment found: one file, pictures inside, no network."""

import base64
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence

import jax
import jinja2
import pandas as pd
from ml_collections import ConfigDict

from gdm_jax.runtime import distributed
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.workdir import versions

TEMPLATE = jinja2.Environment(
  loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
).get_template('report.html')

Table = pd.DataFrame | Sequence[Mapping[str, object]]
"""Anything that `pandas.DataFrame` takes; its index is not printed."""


def publish(
  folder: pathlib.Path,
  doc: str,
  table: Table,
  findings: Sequence[str],
  pictures: Sequence[pathlib.Path],
  rows: pd.DataFrame,
  config: ConfigDict,
  num_printed: int = 0,
):
  """Writes folder/report.html (see `write_html`) and prints table and findings, by process 0.

  num_printed: how many of the first and of the last rows of the table to print; 0 prints all.
  """
  if distributed.is_primary():
    file = folder / 'report.html'
    write_html(file, doc, table, findings, pictures, rows, config)
    table = pd.DataFrame(table)
    if 0 < 2 * num_printed < len(table):
      table = pd.concat([table.head(num_printed), table.tail(num_printed)])
    print(to_text(table), *findings, f'see {file}', sep='\n')


def write_html(
  file: pathlib.Path,
  doc: str,
  table: Table,
  findings: Sequence[str],
  pictures: Sequence[pathlib.Path],
  rows: pd.DataFrame,
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
    table=pd.DataFrame(table).to_dict('records'),
    command=f'python -m experiments.{pathlib.Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}',
    settings=_shared(rows),
    versions=', '.join([devices, *packages]),
    config=_portable(config).to_json(indent=2),
  )
  file.write_text(page + '\n')


def _portable(config):
  """Without the place of a model on this machine."""
  config = config.copy_and_resolve_references()
  config.checkpoint.model = pathlib.Path(config.checkpoint.model).name
  return config


def _shared(rows):
  """The columns that have one value in all rows, which is not empty; and the number of rows."""
  first = rows.iloc[0]
  shared = {key: first[key] for key in rows if rows[key].nunique() == 1 and first[key]}
  return [{'setting': key, 'value': value} for key, value in {**shared, 'cells': len(rows)}.items()]


def _picture(file):
  data = base64.b64encode(file.read_bytes()).decode()
  return {'name': file.stem, 'kind': file.suffix.removeprefix('.'), 'data': data}


def pivot(
  cells: pd.Series, corner: str, columns: Sequence[object], suffix: str = ''
) -> pd.DataFrame:
  """A table of texts with two index levels: the first down, the second across, '' if missing.

  corner: the name of the column with the first level; columns: the values of the second level, to
  which the suffix is added.
  """
  unique = cells[~cells.index.duplicated()].astype(object)
  table = unique.unstack().reindex(index=unique.index.unique(0), columns=columns).fillna('')
  table.columns = [f'{column}{suffix}' for column in columns]
  return table.rename_axis(corner).reset_index()


def points_by(
  rows: pd.DataFrame, column: str, coordinates: Sequence[str]
) -> dict[str, list[tuple[float, ...]]]:
  """The coordinates of rows, as numbers, by the values of a column: for `figures.plot_lines`."""
  groups = rows.groupby(column, sort=False)[list(coordinates)]
  return {
    name: list(group.astype(float).itertuples(index=False, name=None)) for name, group in groups
  }


def to_text(table: Table) -> str:
  """The table for a terminal, columns aligned at the left."""
  data = pd.DataFrame(table).astype(str)
  columns = [[name, *data[name]] for name in data]
  widths = [max(map(len, column)) for column in columns]
  return '\n'.join(
    '  '.join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
    for line in zip(*columns, strict=True)
  )


class Page:
  """A Markdown page with a part between `<!-- NAME -->` and `<!-- end -->` that holds a table."""

  def __init__(self, file: str, name: str):
    """Raises ConfigError for a file that is not there or has no such part."""
    self._file, self._start = pathlib.Path(file), f'<!-- {name} -->\n'
    if not self._file.is_file():
      raise ConfigError(f'--into={file}: no such file')
    self._part = re.compile(f'({re.escape(self._start)}).*?(<!-- end -->)', re.DOTALL)
    if not self._part.search(self._file.read_text()):
      raise ConfigError(f'--into={file}: has no lines <!-- {name} --> and <!-- end -->')

  def write(self, table: Table):
    """Replaces the table of that part."""
    text = to_markdown(table)
    page = self._part.sub(lambda m: m[1] + text + m[2], self._file.read_text(), count=1)
    self._file.write_text(page)


def to_markdown(table: Table) -> str:
  """The table for a Markdown page."""
  data = pd.DataFrame(table).astype(str)
  lines = [list(data), ['---'] * data.shape[1], *data.to_numpy().tolist()]
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)
