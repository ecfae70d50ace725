"""A CSV file of measurements: added to once, and readable after a run was killed."""

import re

import pytest

from gdm_jax.evaluation.cells import Cells
from gdm_jax.runtime.errors import ConfigError

KEYS, VALUES = ('solver', 'steps'), ('fd',)


def test_cells_are_added_once_and_survive_a_restart(tmp_path):
  file = tmp_path / 'new' / 'results.csv'
  cells = Cells(file, KEYS, VALUES)
  assert cells.rows == []
  cells.add({'fd': 0.5, 'solver': 'heun', 'steps': 8})
  again = Cells(file, KEYS, VALUES)
  assert {'solver': 'heun', 'steps': 8} in again
  assert {'solver': 'heun', 'steps': 16} not in again
  again.add({'solver': 'heun', 'steps': 16, 'fd': 0.25})
  assert file.read_text() == 'solver,steps,fd\nheun,8,0.5\nheun,16,0.25\n'


def test_several_rows_are_added_as_one(tmp_path):
  file = tmp_path / 'results.csv'
  cells = Cells(file, KEYS, VALUES)
  cells.add(*({'solver': 'euler', 'steps': n, 'fd': 1 / n} for n in (1, 2)))
  assert [row['steps'] for row in cells.rows] == ['1', '2']
  assert Cells(file, KEYS, VALUES).rows == cells.rows


@pytest.mark.parametrize('torn', ['heun', 'heun,16,', 'heun,16,0.25'])
def test_a_torn_last_line_is_dropped(torn, tmp_path):
  file = tmp_path / 'results.csv'
  whole = 'solver,steps,fd\nheun,8,0.5\n'
  file.write_text(whole + torn)  # of 0.25 nobody knows whether it was 0.251
  cells = Cells(file, KEYS, VALUES)
  assert [row['steps'] for row in cells.rows] == ['8']
  assert file.read_text() == whole
  cells.add({'solver': 'heun', 'steps': 16, 'fd': 0.125})
  assert file.read_text() == whole + 'heun,16,0.125\n'


@pytest.mark.parametrize('torn', ['', 'solver,st'])
def test_a_torn_header_is_written_again(torn, tmp_path):
  file = tmp_path / 'results.csv'
  file.write_text(torn)
  assert Cells(file, KEYS, VALUES).rows == []
  assert file.read_text() == 'solver,steps,fd\n'


@pytest.mark.parametrize('header', ['fd,steps', 'steps,solver,fd', 'solver,steps,fd,more'])
def test_other_columns_are_refused(header, tmp_path):
  file = tmp_path / 'results.csv'
  text = f'{header}\n{"1," * header.count(",")}1\n'
  file.write_text(text)
  with pytest.raises(ConfigError, match=re.escape(f'{file} has the columns {header.split(",")}')):
    Cells(file, KEYS, VALUES)
  assert file.read_text() == text


def test_a_row_is_found_by_its_key_alone(tmp_path):
  cells = Cells(tmp_path / 'results.csv', KEYS, VALUES)
  cells.add({'solver': 'heun', 'steps': 8, 'fd': 0.5, 'seconds': 3})
  row = {'solver': 'heun', 'steps': '8', 'fd': '0.5'}
  assert cells.rows == [row]
  assert cells.get({'steps': 8, 'solver': 'heun', 'fd': 7, 'seconds': 4}) == row
  assert cells.get({'steps': 8, 'solver': 'euler', 'fd': 0.5}) is None


def test_text_with_commas_and_quotes_comes_back(tmp_path):
  file = tmp_path / 'results.csv'
  text = 'train[:50%], "half"'
  Cells(file, KEYS, VALUES).add({'solver': text, 'steps': '1-2', 'fd': 1})
  assert {'solver': text, 'steps': '1-2'} in Cells(file, KEYS, VALUES)


def test_columns_of_newer_versions_are_added_empty(tmp_path):
  file = tmp_path / 'results.csv'
  file.write_text('solver,fd\neuler,1.5\nheun,2\n')
  cells = Cells(file, KEYS, VALUES)
  assert file.read_text() == 'solver,steps,fd\neuler,,1.5\nheun,,2\n'
  assert {'solver': 'euler', 'steps': 4} not in cells
  cells.add({'solver': 'euler', 'steps': 4, 'fd': 1})
  assert Cells(file, KEYS, VALUES).rows == cells.rows


def test_a_file_that_is_no_text_is_named(tmp_path):
  cells = Cells(tmp_path / 'a.csv', ['key'], ['value'])
  cells.add({'key': 1, 'value': 2})
  with cells._file.open('ab') as file:
    file.write(b'\xd5\xff\n')
  with pytest.raises(ConfigError, match=r'a\.csv is damaged: .*; delete it to measure again'):
    Cells(tmp_path / 'a.csv', ['key'], ['value'])
