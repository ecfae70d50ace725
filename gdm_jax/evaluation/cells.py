"""Measurements, one row each, in a CSV file that is added to and never repeats one."""

import csv
import io
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from gdm_jax.runtime import distributed, files
from gdm_jax.runtime.errors import ConfigError


class Cells:
  """The rows of a CSV file; a rerun of a command measures only those that are missing.

  keys: the columns that say what was measured; values: those with the results. An incomplete last
  line is dropped, and columns that an older version did not write are added, empty. Raises
  ConfigError if the file has other columns, or is damaged.
  """

  def __init__(self, file: pathlib.Path, keys: Sequence[str], values: Sequence[str]):
    self._file, self._keys, self._columns = file, tuple(keys), (*keys, *values)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
      content = file.read_bytes() if file.exists() else b''
      reader = csv.DictReader(io.StringIO(content[: content.rfind(b'\n') + 1].decode()))
      found, rows = tuple(reader.fieldnames or ()), list(reader)
    except (ValueError, csv.Error) as error:
      raise ConfigError(f'{file} is damaged: {error}; delete it to measure again') from None
    if found != tuple(column for column in self._columns if column in found):
      raise ConfigError(f'{file} has the columns {list(found)}, not {list(self._columns)}')
    self.rows: list[dict[str, str]] = []
    for row in rows:
      self.rows.append({column: row.get(column) or '' for column in self._columns})
    table = [self._columns, *(row.values() for row in self.rows)]
    if (complete := _lines(table).encode()) != content and distributed.is_primary():
      with files.atomic_write(file) as f:
        f.write(complete)

  def __contains__(self, key: Mapping) -> bool:
    return self.get(key) is not None

  def get(self, key: Mapping) -> dict[str, str] | None:
    """The row of a key, as text; None if there is none. `key` may hold more than the keys."""
    wanted = [str(key[name]) for name in self._keys]
    return next((r for r in self.rows if [r[name] for name in self._keys] == wanted), None)

  def measure(self, key: Mapping, function: Callable[[], Mapping | None]) -> dict[str, str] | None:
    """The row of a key; if there is none, its values are those of `function()`, and it is added.

    Floats are written with six digits. If the function returns None because it was stopped, nothing
    is added and None is returned.
    """
    if key not in self:
      values = function()
      if values is None:
        return None
      self.add({**key, **{name: _text(value) for name, value in values.items()}})
    return self.get(key)

  def add(self, *rows: Mapping):
    """Adds rows, without values where they are missing; process 0 writes them, at once."""
    texts = [{name: str(row.get(name, '')) for name in self._columns} for row in rows]
    if distributed.is_primary():
      with self._file.open('a', newline='') as f:
        f.write(_lines(text.values() for text in texts))
    self.rows += texts


def _text(value) -> str:
  return f'{value:.6g}' if isinstance(value, float) else str(value)


def _lines(rows: Iterable[Iterable]) -> str:
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows(rows)
  return text.getvalue()
