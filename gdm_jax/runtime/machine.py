"""What a run sets up on its machine before jax begins."""

import hashlib
import os
import pathlib
import platform
import sys

from gdm_jax.runtime.errors import ConfigError

HUGE_PAGES = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
MALLOC = 'glibc.malloc.hugetlb'  # 1: malloc asks for huge pages
YNNPACK = 'xla_cpu_experimental_ynn_fusion_type'  # the operations that XLA gives to YNNPACK
TRIED = (0, 10), (0, 12)  # versions of jax that know this flag
CACHE_BYTES = 2 * 2**30  # of compiled programs; those not used for longest go first
CACHED_SECONDS = 0.5  # of compilation, less is not worth a file


def use_huge_pages():
  """Re-executes the program, as the same process, so that malloc uses transparent huge pages.

  A training step on a CPU allocates and frees gigabytes: with pages of 4 KiB that is a tenth of its
  time. glibc reads its tunables only at the start of a program, and Linux must offer huge pages via
  madvise. An explicit GLIBC_TUNABLES takes precedence. Only what was started as `python -m MODULE`
  is restarted: not a notebook, a script or `runpy` that runs it, nor a program under a debugger.
  """
  if not started_as_module():
    return
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if MALLOC in tunables or sys.gettrace() or not huge_pages_on_request():
    return
  os.environ['GLIBC_TUNABLES'] = f'{tunables}:{MALLOC}=1'.lstrip(':')
  sys.stdout.flush()
  sys.stderr.flush()
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def started_as_module() -> bool:
  """Whether the program is `python -m MODULE`, which can be started again by the same words."""
  spec = getattr(sys.modules['__main__'], '__spec__', None)
  words = sys.orig_argv
  return spec is not None and any(
    words[i : i + 2] == ['-m', spec.name] for i in range(1, len(words) - 1)
  )


def huge_pages_on_request() -> bool:
  """Whether the kernel gives huge pages to programs that ask, and to them alone."""
  return HUGE_PAGES.exists() and '[madvise]' in HUGE_PAGES.read_text()


def split_cpu(devices: int):
  """Makes the CPU that many devices; a device count in XLA_FLAGS takes precedence.

  XLA runs convolutions of few channels on one core; two devices use two cores.
  """
  in_flags = 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
  if devices > 1 and not in_flags:
    import jax

    if jax.config.jax_num_cpu_devices == devices:
      return  # setting it again would fail once jax has begun
    jax.config.update('jax_num_cpu_devices', devices)


def choose_convolutions(devices: int):
  """Lets XLA's own convolutions run where they are faster; XLA_FLAGS take precedence.

  jax gives convolutions to YNNPACK. That is faster if each device has one core and AVX-512, slower
  and less exact otherwise (docs/performance.md has the measurements). Versions of jax that were not
  tried are left alone: XLA aborts at a flag that it does not know.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if YNNPACK in flags or (have_one_core(devices) and 'avx512f' in _processor()):
    return
  import jax

  first, last = TRIED
  if first <= jax.__version_info__[:2] <= last:
    os.environ['XLA_FLAGS'] = f'{flags} --{YNNPACK}=-individual_convolution'.strip()


def have_one_core(devices: int) -> bool:
  """Whether this process may use no more cores of the CPU than it has devices."""
  return _cores() <= devices


def _cores():
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def keep_programs(setting: str):
  """Keeps compiled programs between runs, where `machine.compilation_cache` says.

  'auto' is a folder of the user's cache, unless JAX_COMPILATION_CACHE_DIR names one, and none where
  the user has no place to write. Raises ConfigError for a folder that cannot be made.
  """
  import jax

  if not setting or (setting == 'auto' and jax.config.jax_compilation_cache_dir):
    return
  folder = user_cache() if setting == 'auto' else pathlib.Path(setting).expanduser()
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError) as error:
    if setting == 'auto':
      return
    raise ConfigError(f'machine.compilation_cache = {setting}: {error}') from None
  if setting == 'auto':
    if not os.access(folder, os.W_OK):
      return
    jax.config.update('jax_compilation_cache_max_size', CACHE_BYTES)
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', CACHED_SECONDS)


def user_cache() -> pathlib.Path:
  """The folder of compiled programs in the user's cache: one for each kind of processor.

  Several machines may share a home, and XLA compiles for the processor that it runs on.
  """
  root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(root) / 'gdm_jax' / hashlib.sha256(_processor().encode()).hexdigest()[:12]


def _processor():
  """What programs for this processor may depend on; on Linux with what it is capable of."""
  cpu = pathlib.Path('/proc/cpuinfo')
  lines = cpu.read_text().splitlines() if cpu.exists() else []
  known = [line for line in lines if line.startswith(('flags', 'Features', 'model name'))]
  return '\n'.join([platform.machine(), platform.processor(), *sorted(set(known))])


def devices() -> str:
  """The devices that jax computes on, such as '8 devices (NVIDIA H100 80GB HBM3)'."""
  import jax

  kinds = sorted({device.device_kind for device in jax.devices()})
  count, processes = jax.device_count(), jax.process_count()
  of = f' of {processes} processes' if processes > 1 else ''
  return f'{count} device{"s" * (count > 1)}{of} ({", ".join(kinds)})'
