"""Models of other kinds, on the page as they are."""

import base64
import json

import numpy as np
import pytest

from tests.explore.client import last_pictures, request
from tests.explore.conftest import serve

KNOWN = {'pixels': base64.b64encode(bytes(64)).decode(), 'seed': 0}
SMALL = ('--config.model.group_causal.width=16', '--config.model.group_causal.depth=1')


@pytest.mark.parametrize(
  ('config', 'k', 'settings', 'known', 'variants'),
  [
    ('digits_causal', 4, {'order': [2, 0, 1, 3], 'steps': 8}, [2], 2),
    ('digits_strategies', 2, {'strategy': 'cascade', 'steps': 8, 'label': 3}, [0], 1),
    ('digits_autoregressive', 64, {'steps': 64}, [0, 1], 1),
  ],
)
def test_other_models(config, k, settings, known, variants, tmp_path):
  for served in serve(tmp_path / 'run', *SMALL, config=config, steps=settings['steps']):
    model = served.client.ask('GET', '/model').json
    strategy = settings.get('strategy', 'main')
    assert len(model['strategies'][strategy]['groups']) == k
    groups = [{'from': 5, 'to': 6, 'at': 0.5 * (g == 1)} for g in range(k)]
    lines = served.client.generate(groups=groups, **settings)
    shown = last_pictures(lines)
    assert [line['row'] for line in lines if line['kind'] == 'frame'][-1] == settings['steps']
    assert max(last for _, last in lines[-1]['bars']) == settings['steps']
    again = last_pictures(served.client.generate(groups=groups, **settings))
    np.testing.assert_array_equal(shown, again)
    given = {**KNOWN, 'groups': known, 'variants': variants}
    lines = served.client.generate(groups=groups, known=given, **settings)
    labels = np.array(model['strategies'][strategy]['labels']).reshape(8, 8)
    assert (last_pictures(lines)[:, np.isin(labels, known)] == 0).all()
    if k == 2:
      given['groups'] = [1]
      body = json.dumps({**request(groups=groups, **settings), 'known': given})
      answer = served.client.ask('POST', '/generate', body.encode())
      assert (answer.status, answer.json['error'][:30]) == (400, 'groups (1,) do not come first ')


def test_drafts_of_groups_that_overlap_have_a_step_for_each_interval(tmp_path):
  overlap = '--config.strategies.main.groups=2,4', '--config.strategies.main.overlap=0.25'
  for served in serve(tmp_path / 'run', *overlap, steps=16):
    model = served.client.ask('GET', '/model').json
    least = model['strategies']['main']['least']
    assert least == 15 > max(8, model['draft']['steps'])  # more than there are groups
    answer = served.client.generate(steps=least, groups=[{'from': 5, 'to': 5, 'at': 0}] * 8)
    assert answer[-1]['kind'] != 'error'
