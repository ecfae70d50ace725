"""The architecture that docs/design.md states: imports go down only, modules stay short."""

import ast
import pathlib
import sys

import pytest

from tests.support.runs import ROOT

METHOD = (
  *(
    'ordering',
    'conditionals',
    'allocation',
    'autoregression',
    'caching',
    'likelihood',
    'sampling',
    'latents',
    'losses',
  ),
  'solvers',
  *('process', 'grouping', 'schedule', 'basis', 'path'),
)
LAYERS = (
  *('main', 'pretrained', 'modes', 'explore', 'evaluation', 'training', 'generation'),
  *('build', 'strategies', 'config', 'conditioning'),
  *METHOD,
  *('models', 'figures', 'data', 'runtime', 'typing'),
)
"""Modules and packages of gdm_jax, from top to bottom."""

THIRD_PARTY = {
  **{module: {'jax', 'numpy', 'jaxtyping'} for module in METHOD},
  'solvers': {'jax', 'numpy', 'jaxtyping', 'diffrax'},
  'typing': {'jax', 'numpy', 'jaxtyping'},
  'models': {'jax', 'numpy', 'jaxtyping', 'flax'},
  'figures': {'numpy', 'jaxtyping', 'matplotlib', 'PIL'},
  'config': {'numpy', 'jaxtyping', 'ml_collections'},
}
"""Packages that the modules may import besides the standard library and gdm_jax."""

MODULE_LINES, BODY_LINES, COMMENTED_LINES = 350, 60, 40


def source_files(*folders):
  return [file for folder in folders for file in sorted((ROOT / folder).rglob('*.py'))]


def name_of(file: pathlib.Path) -> str:
  parts = file.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {name_of(file): file for file in source_files('gdm_jax', 'experiments')}


def imports_of(source: str) -> set[str]:
  """Everything that a module imports, also inside functions, by dotted name."""
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def module_of(name: str) -> str:
  """The module of the project that an imported name is, or is in; '' for others."""
  while name and name not in MODULES:
    name = name.rpartition('.')[0]
  return name


def layer_of(module: str) -> str:
  return [*module.split('.'), '__init__'][1]


def violations(module: str, source: str) -> list[str]:
  """The imports of a module of gdm_jax that are not allowed, as sentences."""
  layer, wrong = layer_of(module), []
  allowed = THIRD_PARTY.get(layer)
  for name in sorted(imports_of(source)):
    target, package = module_of(name), name.split('.')[0]
    if package in ('experiments', 'configs', 'tests'):
      wrong.append(f'{module} imports {name}')
    elif package == 'gdm_jax':
      below = layer_of(target)
      if below != '__init__' and LAYERS.index(below) < LAYERS.index(layer):
        wrong.append(f'{module} imports {target}, which is above it')
    elif allowed is not None and package not in allowed | sys.stdlib_module_names:
      wrong.append(f'{module} imports {package}')
  return wrong


LIBRARY = [module for module in MODULES if module.startswith('gdm_jax.')]


def test_every_module_has_a_layer():
  assert {layer_of(module) for module in LIBRARY} == set(LAYERS)


@pytest.mark.parametrize('module', LIBRARY)
def test_imports_go_down_only(module):
  assert violations(module, MODULES[module].read_text()) == []


def test_a_forbidden_import_is_found():
  assert violations('gdm_jax.path', 'from gdm_jax.process import Process')
  assert violations('gdm_jax.data.base', 'from gdm_jax import config')
  assert violations('gdm_jax.sampling', 'def f():\n  import flax')
  assert violations('gdm_jax.models.mlp', 'import gdm_jax.schedule')
  assert violations('gdm_jax.runtime.files', 'from experiments.lib import study')
  assert not violations('gdm_jax.process', 'from gdm_jax import path\nimport dataclasses')


def test_no_module_imports_itself_through_others():
  graph = {
    module: {module_of(name) for name in imports_of(file.read_text())} - {'', module}
    for module, file in MODULES.items()
  }
  # A package is imported with each of its modules, but holds no code of theirs.
  packages = {module for module, file in MODULES.items() if file.name == '__init__.py'}
  done = set()

  def visit(module, path):
    assert module not in path, ' -> '.join([*path, module])
    if module in done:
      return
    for target in sorted(graph[module] - packages):
      visit(target, [*path, module])
    done.add(module)

  for module in graph:
    visit(module, [])


def test_experiments_share_only_their_library():
  for module, file in MODULES.items():
    for name in imports_of(file.read_text()):
      target = module_of(name)
      if module.startswith('experiments.lib') and target.startswith('experiments'):
        assert target in ('experiments', 'experiments.lib', 'experiments.paper') or (
          target.startswith('experiments.lib.')
        ), f'{module} imports {target}'


def body_lines(function: ast.FunctionDef) -> int:
  """Lines of a function without its signature and docstring."""
  body = function.body
  if ast.get_docstring(function) is not None:
    body = body[1:]
  return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize('module', MODULES)
def test_modules_and_functions_are_short(module):
  source = MODULES[module].read_text()
  assert len(source.splitlines()) <= MODULE_LINES
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      assert body_lines(node) <= BODY_LINES, node.name


@pytest.mark.parametrize('module', MODULES)
def test_long_functions_have_comments(module):
  source = MODULES[module].read_text()
  lines = source.splitlines()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef) and body_lines(node) > COMMENTED_LINES:
      inside = lines[node.lineno : node.end_lineno]
      assert any(line.strip().startswith('#') for line in inside), node.name


def test_test_files_are_short():
  for file in source_files('tests'):
    assert len(file.read_text().splitlines()) <= MODULE_LINES, file
