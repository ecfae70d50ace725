"""The page of --mode=explore in a real browser: every kind of control, by mouse and by keys."""

import base64
import io
import json
import shlex

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from gdm_jax import main
from gdm_jax.explore.server import Server
from tests.explore.browser import needs_browser, start
from tests.explore.client import last_pictures, served

pytestmark = needs_browser


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  page = start(tmp_path_factory.mktemp('downloads'))
  yield page
  page.driver.quit()


def expected(served, **changes):
  return last_pictures(served.client.generate(**{'steps': 4, 'label': 0, **changes}))[0, ..., 0]


def groups(*pairs):
  return [{'from': start, 'to': 6, 'at': at} for start, at in pairs]


START = 'groups=5~6~0~0_5~6~0~0_5~6~0~0_5~6~0~0'


def test_sliders_dice_and_locks(page, labelled):
  page.open(labelled.server.address, START)
  np.testing.assert_array_equal(page.pixels(), expected(labelled))

  page.changing(lambda: page.drag('[data-group="1"]'))
  np.testing.assert_array_equal(
    page.pixels(), expected(labelled, groups=groups((5, 0), (5, 1), (5, 0), (5, 0)))
  )
  page.changing(lambda: page.keys('[data-group="2"]', Keys.ARROW_RIGHT, Keys.ARROW_RIGHT))
  np.testing.assert_array_equal(
    page.pixels(), expected(labelled, groups=groups((5, 0), (5, 1), (5, 0.02), (5, 0)))
  )
  assert '--config.sampling.latents=5,6,5:6:0.02,5' in page.find('#command').text

  page.find('[aria-label="Lock group 1"]').send_keys(Keys.SPACE)
  assert page.status().startswith('group 1 is locked')
  page.changing(lambda: page.find('#new').send_keys(Keys.ENTER))
  state = page.js('return state.groups.map(g => [g.from, g.at])')
  assert state[1] == [5, 1]
  assert state[0] == state[2] == state[3] != [5, 0]
  page.changing(lambda: page.click('[data-dice="3"]'))
  assert page.js('return state.groups[3].from') != state[3][0]
  address = page.driver.current_url

  # A link brings back the picture.
  before = page.pixels()
  page.open(address.split('#')[0], address.split('#')[1])
  np.testing.assert_array_equal(page.pixels(), before)


def test_order_settings_and_their_command(page, labelled, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  page.open(labelled.server.address, START)
  page.changing(lambda: page.keys('[data-place="0"]', Keys.ARROW_RIGHT))
  assert page.js('return state.order') == [1, 0, 2, 3]
  assert page.js('return document.activeElement.dataset.place') == '1'
  first, last = page.find('[data-place="3"]'), page.find('[data-place="0"]')
  chain = ActionChains(page.driver, duration=20)
  page.changing(lambda: chain.drag_and_drop(first, last).perform())
  assert page.js('return state.order') == [3, 1, 0, 2]

  page.changing(lambda: page.keys('#label', '3'))
  page.changing(lambda: page.keys('#guidance', Keys.BACKSPACE, '2', Keys.TAB))
  page.changing(lambda: page.keys('#steps', Keys.BACKSPACE, '7', Keys.TAB))
  page.changing(lambda: page.keys('#solver', 'heun'))
  shown = page.pixels()
  wanted = {'order': [3, 1, 0, 2], 'label': 3, 'guidance': 2, 'steps': 7, 'solver': 'heun'}
  np.testing.assert_array_equal(shown, expected(labelled, **wanted))

  # The copied command makes it.
  page.driver.execute_cdp_cmd(
    'Browser.grantPermissions', {'permissions': ['clipboardReadWrite', 'clipboardSanitizedWrite']}
  )
  page.click('#copy-command')
  page.wait('The command is copied')
  copied = page.driver.execute_async_script(
    'const done = arguments[0]; navigator.clipboard.readText().then(done)'
  )
  words = shlex.split(copied)
  assert words[:3] == ['python', '-m', 'gdm_jax.main']
  assert main.main(['', *words[3:]]) == 0
  folder = words[-1].split('=')[1]
  made = np.asarray(Image.open(labelled.workdir / folder / '000005.png'))
  np.testing.assert_array_equal(made, shown)


def test_generation_step_by_step(page, labelled):
  page.open(labelled.server.address, START)
  final = page.pixels()
  page.keys('#scrub', Keys.HOME)
  assert page.find('#moment').text == 'Step 0 of 4: noise'
  noise = page.pixels()
  assert (noise != final).mean() > 0.5
  page.keys('#scrub', Keys.ARROW_RIGHT)
  assert page.find('#moment').text == 'Step 1 of 4: group 0 moves'
  assert (page.pixels()[4:] == noise[4:]).all()
  page.click('#play')
  page.until(lambda: page.find('#moment').text == 'Step 4 of 4: the picture')
  np.testing.assert_array_equal(page.pixels(), final)


def test_complete_by_hand(page, labelled):
  page.open(labelled.server.address, START)
  page.click('#sketch')
  page.keys('#sketch', Keys.SPACE)
  page.click('input[value=known]')
  # A stroke over the upper right corner, of which the mask becomes the group.
  box = page.find('#sketch').rect
  page.js("arguments[0].scrollIntoView({block: 'center'})", page.find('#sketch'))
  side = int(box['width'])
  chain = ActionChains(page.driver, duration=20)
  chain.move_to_element_with_offset(page.find('#sketch'), side // 4, -side // 4).click().perform()
  assert page.js('return [...sketch.known]') == [1]
  page.click('[data-known="2"]')
  page.click('#complete')
  page.wait('Completed: 4 variants, of the seeds from 0 on')
  canvases = page.driver.find_elements(By.CSS_SELECTOR, '#variants canvas')
  assert len(canvases) == 4
  sketch = np.array(page.js('return [...sketch.pixels]'), np.uint8).reshape(8, 8)
  assert sketch.max() == 255
  for v in range(4):
    variant = page.pixels(f'#variants button:nth-child({v + 1}) canvas')
    np.testing.assert_array_equal(variant[:4, 4:], sketch[:4, 4:])
    np.testing.assert_array_equal(variant[4:, :4], sketch[4:, :4])
  assert '--mode=complete' in page.find('#command').text

  # The picture itself keeps what is known, and the sliders change the rest.
  page.changing(lambda: page.click('#keep'))
  before = page.pixels()
  np.testing.assert_array_equal(before[:4, 4:], sketch[:4, 4:])
  page.changing(lambda: page.keys('[data-group="3"]', Keys.END))
  assert (page.pixels()[4:, 4:] != before[4:, 4:]).any()
  np.testing.assert_array_equal(page.pixels()[:4, 4:], sketch[:4, 4:])
  assert '--config.sampling.latents=5,5,5,6' in page.find('#command').text
  page.click('#save-sketch')
  saved = np.asarray(Image.open(page.downloaded('known.png')).convert('L'))
  np.testing.assert_array_equal(saved, sketch)


def test_drop_a_picture(page, labelled, tmp_path):
  array = np.random.default_rng(5).integers(0, 256, (8, 8), np.uint8)
  file = io.BytesIO()
  Image.fromarray(array).save(file, 'png')
  page.open(labelled.server.address, START)
  drop = (
    'const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));'
    "const data = new DataTransfer(); data.items.add(new File([bytes], 'mine.png'));"
    "document.getElementById('drop').dispatchEvent("
    "new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))"
  )
  content = base64.b64encode(file.getvalue()).decode()
  page.changing(lambda: page.js(drop, content))
  np.testing.assert_array_equal(page.pixels(), array)
  assert 'comes back to' in page.find('#returns').text
  assert page.js('return state.solver') == 'reversible_heun'

  other = tmp_path / 'other.png'
  Image.fromarray(255 - array).save(other)
  page.changing(lambda: page.keys('#file', str(other)))
  page.changing(lambda: page.keys('[data-group="0"]', Keys.END))
  assert (page.pixels() != array).any()
  bad = tmp_path / 'bad.png'
  bad.write_text('no picture')
  page.keys('#file', str(bad))
  page.wait('cannot read bad.png')


def test_save_the_page(page, labelled):
  page.open(labelled.server.address, START)
  picture = page.pixels()
  page.click('#save-page')
  saved = page.downloaded('run.html')
  page.driver.get(f'file://{saved}')
  page.until(lambda: page.js("return document.getElementById('picture').naturalWidth") == 8)
  drawn = (
    "const i = document.getElementById('picture'), c = document.createElement('canvas');"
    "c.width = c.height = 8; c.getContext('2d').drawImage(i, 0, 0);"
    "return [...c.getContext('2d').getImageData(0, 0, 8, 8).data]"
  )
  np.testing.assert_array_equal(np.array(page.js(drawn))[::4].reshape(8, 8), picture)
  page.keys('input', Keys.END)
  assert page.find('#status').text == 'group 0 at 1.00'
  assert not page.violations()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_everybody_can_use_it(scheme, page, labelled, bands):
  page.driver.execute_cdp_cmd(
    'Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]}
  )
  metrics = {'width': 360, 'height': 740, 'deviceScaleFactor': 1, 'mobile': False}
  for fixture in (labelled, bands):
    page.open(fixture.server.address)
    page.js("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert not page.violations()
    page.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    assert page.js('return document.documentElement.scrollWidth') <= 360
    assert not page.violations()
    page.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_bands_have_ranks_and_one_order(page, bands):
  page.open(bands.server.address, START)
  assert 'trained on this order alone' in page.find('#order-hint').text
  page.keys('[data-place="0"]', Keys.ARROW_RIGHT)
  assert page.js('return state.order') == [0, 1, 2, 3]
  page.js("document.querySelector('details').open = true")
  page.changing(lambda: page.keys('#rank-0', Keys.END))
  assert page.js('return state.ranks') == {'0': 3}
  found = last_pictures(bands.client.generate(steps=4, ranks={'0': 3}))[0, ..., 0]
  np.testing.assert_array_equal(page.pixels(), found)
  page.click('[data-known="1"]')
  assert page.js('return [...sketch.known]') == [0, 1]  # what comes first is known first


def test_two_tabs(page, labelled):
  page.open(labelled.server.address, START)
  first = page.driver.current_window_handle
  page.driver.switch_to.new_window('tab')
  page.open(labelled.server.address, START.replace('5~6', '9~6'))
  page.keys('[data-group="1"]', Keys.END)
  page.driver.switch_to.window(first)
  page.changing(lambda: page.keys('[data-group="0"]', Keys.END))
  mixed = groups((5, 1), (5, 0), (5, 0), (5, 0))
  np.testing.assert_array_equal(page.pixels(), expected(labelled, groups=mixed))
  page.driver.switch_to.window(page.driver.window_handles[1])
  page.until(lambda: page.js('return !running && !waiting'))
  mixed = groups((9, 0), (9, 1), (9, 0), (9, 0))
  np.testing.assert_array_equal(page.pixels(), expected(labelled, groups=mixed))
  page.driver.close()
  page.driver.switch_to.window(first)


def test_a_server_that_is_gone(page, labelled):
  server = Server('127.0.0.1', 0)
  server.answers = labelled.server.answers
  stop, server.answers.stop = server.answers.stop, lambda: None
  with served(server):
    page.open(server.address, START)
  labelled.server.answers.stop = stop
  page.keys('[data-group="0"]', Keys.END)
  page.wait('The server does not answer')


def test_no_request_leaves_the_page(page, labelled):
  page.driver.get_log('performance')
  page.open(labelled.server.address, START)
  page.changing(lambda: page.keys('[data-group="0"]', Keys.END))
  asked = [
    json.loads(entry['message'])['message']['params'].get('request', {}).get('url', '')
    for entry in page.driver.get_log('performance')
    if 'Network.requestWillBeSent"' in entry['message']
  ]
  outside = [
    url for url in asked
    if not url.startswith((f'http://{labelled.client.host}/', 'data:', 'blob:'))
  ]  # fmt: skip
  assert asked
  assert not outside
  severe = [e for e in page.driver.get_log('browser') if e['level'] == 'SEVERE']
  assert all('400' in e['message'] or 'ERR_' in e['message'] for e in severe), severe
