"""How much memory a device has, and how many copies of a program's work fit into it."""

import os

import jax

from gdm_jax.runtime.errors import ConfigError

SHARE = 0.6  # of a device's memory that a program may plan with; the rest is others' and fragments


def capacity(device: jax.Device) -> int:
  """The bytes that programs may use on a device; the devices of a CPU share its memory."""
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return int(stats['bytes_limit'])
  return host_memory() // jax.local_device_count()


def host_memory() -> int:
  """The bytes of this machine's memory; 8 GiB where the system does not say."""
  try:
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  except (AttributeError, ValueError, OSError):  # Windows has no sysconf
    return 8 * 2**30


def require(what: str, needed: float, hint: str = ''):
  """Raises ConfigError if `what` takes more bytes than this machine has."""
  if needed > (there := host_memory()):
    raise ConfigError(
      f'{what} takes {needed / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f}{hint}'
    )


def how_many_fit(one: jax.stages.Compiled, device: jax.Device, most: int) -> int:
  """How many copies of a compiled program's work fit side by side, 1 to `most`.

  XLA's plan of the memory for one is taken to grow in proportion.
  """
  plan = one.memory_analysis()
  each = plan.temp_size_in_bytes + plan.output_size_in_bytes if plan else 0
  return max(1, min(most, int(SHARE * capacity(device)) // max(each, 1)))
