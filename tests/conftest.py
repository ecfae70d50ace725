"""Compile fast rather than well, and each program once: tests are small and XLA's time is not."""

import atexit
import os
import shutil
import tempfile

import pytest

from gdm_jax.runtime import machine

_cache = os.environ.get('GDM_JAX_TEST_CACHE')  # of the process that started this worker
if not _cache:
  _cache = tempfile.mkdtemp(prefix='gdm_jax_tests_')
  atexit.register(shutil.rmtree, _cache, ignore_errors=True)
# Read when jax is first imported, here and in the processes that tests start.
os.environ.update(
  JAX_PLATFORMS='cpu',
  GDM_JAX_TEST_CACHE=_cache,
  JAX_COMPILATION_CACHE_DIR=_cache,
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0.2',
  XLA_FLAGS='--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false',
)
machine.choose_convolutions(1)  # as a run does, so that both compute the same bits


@pytest.fixture(scope='module')
def float64():
  """float64 throughout a module: closed forms are compared in it."""
  import jax

  with jax.enable_x64(True):
    yield


@pytest.fixture(autouse=True, scope='module')
def _release_programs():
  """Frees the compiled programs of a module: of all modules they take gigabytes."""
  yield
  import jax

  jax.clear_caches()
