"""The counts behind the floors of a step, against what one counts by hand and what XLA counts."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import digits
from experiments.benchmarks import roofline
from gdm_jax import build
from gdm_jax.training import flops
from tests.support import experiments


def products(function, *shapes):
  arrays = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
  return roofline.of_products(jax.make_jaxpr(function)(*arrays).jaxpr)


def convolve(x, kernel, **options):
  numbers = 'NHWC', 'HWIO', 'NHWC'
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=numbers, **options
  )


def test_of_a_matrix_product_inside_a_jitted_loop():
  @jax.jit
  def five_times(x, w):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=5)[0]

  counted = products(five_times, (3, 8), (8, 8))
  assert counted == (5 * 2 * 3 * 8 * 8, 5 * 4 * (3 * 8 + 8 * 8 + 3 * 8))


def test_of_a_convolution_and_its_gradients():
  x, kernel, y = (2, 4, 4, 5), (3, 3, 5, 7), (2, 4, 4, 7)
  taps = (2 + 3 + 3 + 2) ** 2  # of 4 x 4 outputs, without those that see padding
  forward = 2 * 2 * 7 * 5 * taps
  assert products(convolve, x, kernel)[0] == forward

  def backward(x, kernel, dy):
    return jax.vjp(convolve, x, kernel)[1](dy)

  flop, moved = products(backward, x, kernel, y)
  assert flop == 3 * forward
  assert moved == 3 * 4 * sum(map(np.prod, (x, kernel, y)))


def test_of_a_training_step_is_about_what_xla_counts():
  config = digits.get_config()
  config.train.batch = 8
  counts = roofline.count(config)
  counted = flops.training(config, build.system(config))  # with all the rest
  assert 0.9 < counts.flops / 8 / counted < 1
  halved = config.copy_and_resolve_references()
  halved.model.dtype = 'bfloat16'
  assert roofline.count(halved).bytes < 0.6 * counts.bytes


def test_the_largest_floor_is_the_least_time():
  counts = roofline.Counts(989e12, 3.35e12, 0)  # a second of either
  line = roofline.floors(counts, 100, 3_600_000, '1 H100')
  assert line['arithmetic, ms'] == line['memory, ms'] == '1e+03'
  assert line['network, ms'] == '0'
  assert line['images/s, at most'] == '100'
  assert line['3.6 Mimg, hours, at least'] == '10'
  of_eight = roofline.floors(counts, 100, 3_600_000, '8 H100')
  assert of_eight['images/s, at most'] == '800'


def test_the_command_writes_its_table_into_a_page(tmp_path, monkeypatch, capsys):
  page = tmp_path / 'page.md'
  page.write_text('<!-- roofline -->\n<!-- end -->\n')
  experiments.start(roofline, monkeypatch, 'digits', tmp_path, f'--into={page}', trained=False)
  assert 'GFLOP' in capsys.readouterr().out
  assert page.read_text().count('\n| ') == 2 + len(roofline.MACHINES)
