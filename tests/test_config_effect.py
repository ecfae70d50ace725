"""Keys that change nothing are named, and no others."""

import pytest

from configs import digits, digits_autoregressive, digits_causal, digits_context
from gdm_jax.config import without_effect
from gdm_jax.models import NETWORKS, GroupCausal


@pytest.mark.parametrize(
  ('module', 'mode', 'key', 'reason'),
  [
    (digits, 'train', 'model.mlp.width', 'model.name = ddpmpp'),
    (digits, 'train', 'sampling.cache', 'model.name = ddpmpp'),
    (digits, 'sample', 'complete.groups', '--mode=sample'),
    (digits, 'sample', 'sampling.adaptive.rtol', 'sampling.solver = euler'),
    (digits, 'train', 'basis.blur.sigma', 'basis.name = pixel'),
    (digits, 'train', 'machine.data_dir', 'data.name = digits'),
    (digits, 'complete', 'complete.groups', None),
    (digits, 'train', 'machine.remat', None),
    (digits_causal, 'train', 'machine.remat', 'model.name = group_causal'),
    (digits_causal, 'train', 'sampling.cache', None),
    (digits_context, 'train', 'sampling.cache', None),
    (digits_context, 'train', 'machine.remat', None),
    (digits_context, 'train', 'model.ddpmpp.channels', 'model.name = context_unet'),
    (digits_causal, 'train', 'model.group_causal.width', None),
    (digits, 'sample', 'machine.all_reduce', '--mode=sample'),
    (digits, 'evaluate', 'machine.microbatches', '--mode=evaluate'),
    (digits, 'train', 'machine.fsdp', None),
    (digits, 'edit', 'sampling.guidance', '--mode=edit'),
    (digits, 'edit', 'sampling.steps', None),
    (digits, 'likelihood', 'sampling.labels', '--mode=likelihood'),
    (digits, 'likelihood', 'likelihood.probes', None),
    (digits_autoregressive, 'likelihood', 'likelihood.probes', 'train.times = discrete'),
    (digits, 'sample', 'evaluation.seeds', '--mode=sample'),
    (digits, 'sample', 'sampling.folder', None),
    (digits, 'evaluate', 'evaluation.seeds', None),
    (digits, 'train', 'evaluation.seeds', None),
  ],
)
def test_a_key_without_effect_is_named_with_the_reason(module, mode, key, reason):
  expected = {key: reason} if reason else {}
  assert without_effect(module.get_config(), mode, {key}) == expected


@pytest.mark.parametrize('module', [digits, digits_context])
def test_a_resolution_of_attention_that_never_occurs_is_named(module):
  config = module.get_config()
  options = config.model[config.model.name]
  options.attention = (4, 16)
  key, reason = (
    f'model.{config.model.name}.attention',
    '[16] never occurs; the resolutions are [8, 4]',
  )
  assert without_effect(config, 'train', set()) == {key: reason}
  options.attention = (4,)
  assert without_effect(config, 'train', set()) == {}


def test_a_network_from_outside_has_a_cache_if_it_is_groupwise(monkeypatch):
  class Mine(GroupCausal):
    remat: str = 'none'

  monkeypatch.setitem(NETWORKS, 'mine', Mine)
  config = digits.get_config()
  config.model.name = 'mine'
  assert without_effect(config, 'train', {'sampling.cache', 'machine.remat'}) == {}
