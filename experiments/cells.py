"""Measurements, one row each, in a CSV file that an experiment adds to and never repeats."""

import csv
import pathlib
from collections.abc import Sequence


class Cells:
  """The rows of a CSV file. Rerun, an experiment measures only what is not there yet.

  keys: the columns that say what was measured; values: those that say what came out.
  """

  def __init__(self, file: pathlib.Path, keys: Sequence[str], values: Sequence[str]):
    self._file, self._keys, self._columns = file, keys, (*keys, *values)
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
      self._append(self._columns)

  @property
  def rows(self) -> list[dict[str, str]]:
    """All rows, as text."""
    with self._file.open(newline='') as f:
      return list(csv.DictReader(f))

  def __contains__(self, key: dict) -> bool:
    wanted = [str(key[name]) for name in self._keys]
    return any([row[name] for name in self._keys] == wanted for row in self.rows)

  def add(self, row: dict):
    """Writes a row at once."""
    self._append([row[name] for name in self._columns])

  def _append(self, values):
    with self._file.open('a', newline='') as f:
      csv.writer(f, lineterminator='\n').writerow(values)
