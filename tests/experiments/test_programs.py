"""What is read from XLA's text of a program, against a program written by hand and a real one."""

import jax
import jax.numpy as jnp

from experiments.benchmarks import programs
from tests.support import experiments, runs

TEXT = """HloModule jit_step, entry_computation_layout={(f32[4,8]{1,0})->f32[4,8]{1,0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: f32[4,8]) -> bf16[4,8] {
  %p = f32[4,8]{1,0:T(8,128)} parameter(0)
  ROOT %c = bf16[4,8]{1,0} convert(%p)
}

%body (s: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %s = (s32[], f32[4,8]{1,0:T(8,128)}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%s), index=1
  %i = s32[] get-tuple-element(%s), index=0
  %small = bf16[4,8]{1,0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/norm"}
  %all = f32[4,8]{1,0} all-reduce(%x), replica_groups={}, to_apply=%add
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%i, %all)
}

%condition (s: (s32[], f32[4,8])) -> pred[] {
  %s = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[4,8]{1,0}) tuple(%zero, %x)
  %loop = (s32[], f32[4,8]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %out = f32[4,8]{1,0} get-tuple-element(%loop), index=1
  %flag = pred[16]{0} constant({...})
  %two = (f32[4,8]{1,0}, pred[16]{0}) all-reduce-start(%out, %flag), to_apply=%add
  %g = (f32[4,8]{1,0}, f32[8,8]{1,0}) all-gather-start(%out), dimensions={0}
  ROOT %done = f32[8,8]{1,0} all-gather-done(%g)
}
"""


def test_loops_count_as_often_as_they_run():
  found = [one for one in programs.read(TEXT) if one.kind in ('all-reduce', 'all-gather', 'fusion')]
  fusion, reduced, two, gathered = found
  assert fusion == programs.Instruction('fusion', 64, 64 + 128, 3, 'norm')
  assert (reduced.result, reduced.times) == (128, 3)
  assert (two.result, two.times) == (128 + 16, 1)  # its type has results alone
  assert (gathered.result, gathered.times) == (256, 1)  # its type has the operand too


def test_products_of_a_compiled_loop_are_counted():
  def five_times(x, w):
    return jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ w), x)

  text = jax.jit(five_times).lower(jnp.ones((3, 8)), jnp.ones((8, 8))).compile().as_text()
  products = [one.times for one in programs.read(text) if one.source.endswith('dot_general')]
  assert sum(products) == 5


def test_the_command_writes_its_table_into_a_page(tmp_path, monkeypatch, capsys):
  page = tmp_path / 'page.md'
  page.write_text('<!-- programs -->\n<!-- end -->\n')
  flags = *runs.TINY, f'--into={page}'
  experiments.start(programs, monkeypatch, 'digits', tmp_path, *flags, trained=False)
  assert 'training step' in capsys.readouterr().out
  assert page.read_text().count('\n| ') == 2 + len(programs.PROGRAMS)
