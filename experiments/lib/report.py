"""A page that says what an experiment found: one file, pictures inside, no network."""

import base64
import html
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence

import jax
from ml_collections import ConfigDict

from gdm_jax.runtime import distributed
from gdm_jax.training.checkpoint import versions

STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { border-bottom: 1px solid #ccc; padding: 0.2em 0.8em; text-align: left }
img { max-width: 100% }
pre { background: #f4f4f4; padding: 0.8em; white-space: pre-wrap }
"""


def tell(
  folder: pathlib.Path,
  doc: str,
  table: Sequence[Mapping[str, object]],
  findings: Sequence[str],
  pictures: Sequence[pathlib.Path],
  rows: Sequence[Mapping[str, str]],
  config: ConfigDict,
  shown: Sequence[Mapping[str, object]] = (),
):
  """Writes folder/report.html (see `write`) and prints the table and the findings; process 0 does.

  shown: of the table what is printed, where all would be long.
  """
  if distributed.is_primary():
    file = folder / 'report.html'
    write(file, doc, table, findings, pictures, rows, config)
    print(text(shown or table), *findings, f'see {file}', sep='\n')


def write(
  file: pathlib.Path,
  doc: str,
  table: Sequence[Mapping[str, object]],
  findings: Sequence[str],
  pictures: Sequence[pathlib.Path],
  rows: Sequence[Mapping[str, str]],
  config: ConfigDict,
):
  """Writes report.html.

  doc: the experiment's docstring, whose first line is the title; table: what was found, a row
  each; findings: sentences; pictures: PNG or GIF files; rows: the cells, whose common columns are
  the settings; config: of the (last) model, as it was trained and evaluated.
  """
  title, _, about = doc.strip().partition('\n')
  common = {
    key: value for key, value in rows[0].items() if value and all(r[key] == value for r in rows)
  }
  settings = [
    {'setting': key, 'value': value} for key, value in {**common, 'cells': len(rows)}.items()
  ]
  devices = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
  drawn = ', '.join([devices, *(f'{name} {version}' for name, version in versions().items())])
  parts = [
    f'<h1>{html.escape(title)}</h1>',
    *(f'<p>{html.escape(finding)}</p>' for finding in findings),
    *(_picture(picture) for picture in pictures),
    _table(table),
    '<h2>How to repeat it</h2>',
    f'<pre>{html.escape(_command())}</pre>',
    f'<pre>{html.escape(about.strip())}</pre>',
    '<h2>What all cells share</h2>',
    _table(settings),
    f'<p>This page was drawn with {html.escape(drawn)}.</p>',
    '<h2>Config</h2>',
    f'<pre>{html.escape(config.to_json(indent=2))}</pre>',
  ]
  page = '\n'.join(parts)
  head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
  file.write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{page}</body></html>\n')


def by_budget(
  metric: str, lines: Mapping[str, Mapping[int, str]], budgets: Sequence[int]
) -> list[dict[str, str]]:
  """A table of lines of text against evaluations of the network."""
  return [
    {metric: label, **{f'{budget} evaluations': line.get(budget, '') for budget in budgets}}
    for label, line in lines.items()
  ]


def text(table: Sequence[Mapping[str, object]]) -> str:
  """The table for a terminal."""
  lines = [list(table[0]), *([str(value) for value in row.values()] for row in table)]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip()
    for line in lines
  )


def _command():
  module = pathlib.Path(sys.argv[0]).stem
  return f'python -m experiments.{module} {shlex.join(sys.argv[1:])}'


def _picture(file):
  data = base64.b64encode(file.read_bytes()).decode()
  kind = file.suffix.removeprefix('.')
  return f'<p><img alt="{html.escape(file.stem)}" src="data:image/{kind};base64,{data}"></p>'


def _table(rows):
  def line(values, tag):
    return f'<tr>{"".join(f"<{tag}>{html.escape(str(v))}</{tag}>" for v in values)}</tr>'

  body = ''.join(line(row.values(), 'td') for row in rows)
  return f'<table>{line(rows[0], "th")}{body}</table>'
