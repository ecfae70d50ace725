"""Measurements, one row each, in a CSV file that is added to and never repeats one."""

import csv
import io
import pathlib
from collections.abc import Iterable, Sequence

from gdm_jax.runtime import distributed
from gdm_jax.runtime.errors import ConfigError


class Cells:
  """The rows of a CSV file. Run again, a command measures only what is not there yet.

  keys: the columns that say what was measured; values: those that say what came out. A line that
  was not written to its end is dropped. Raises ConfigError where the file has other columns.
  """

  def __init__(self, file: pathlib.Path, keys: Sequence[str], values: Sequence[str]):
    self._file, self._keys, self._columns = file, tuple(keys), (*keys, *values)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text() if file.exists() else ''
    whole = text[: text.rfind('\n') + 1] or _lines([self._columns])
    if whole != text and distributed.is_primary():
      file.write_text(whole)
    reader = csv.DictReader(io.StringIO(whole))
    if tuple(reader.fieldnames or ()) != self._columns:
      raise ConfigError(f'{file} has the columns {reader.fieldnames}, not {list(self._columns)}')
    self.rows: list[dict[str, str]] = list(reader)

  def __contains__(self, key: dict) -> bool:
    return self.get(key) is not None

  def get(self, key: dict) -> dict[str, str] | None:
    """The row of a key, as text, whatever else is in `key`; None where it is not there."""
    wanted = [str(key[name]) for name in self._keys]
    return next((r for r in self.rows if [r[name] for name in self._keys] == wanted), None)

  def add(self, *rows: dict):
    """Adds rows; process 0 writes them, at once."""
    texts = [{name: str(row[name]) for name in self._columns} for row in rows]
    if distributed.is_primary():
      with self._file.open('a', newline='') as f:
        f.write(_lines(text.values() for text in texts))
    self.rows += texts


def _lines(rows: Iterable[Iterable]) -> str:
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows(rows)
  return text.getvalue()
