"""A browser on the page of --mode=explore."""

import os
import pathlib
import shutil

import axe_core_python
import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = (shutil.which(name) for name in ('chromium', 'chromedriver'))
REQUIRED = 'GDM_JAX_BROWSER_TESTS'  # set by .ci/run, which installs both
needs_browser = pytest.mark.skipif(
  not (CHROMIUM and DRIVER) and REQUIRED not in os.environ,
  reason='needs chromium and chromedriver (Debian: chromium, chromium-driver)',
)
FLAGS = ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu')
WAIT = 60  # seconds, on a busy machine


class Page:
  """A browser on the page."""

  def __init__(self, driver, downloads):
    self.driver, self.downloads = driver, downloads

  def open(self, address: str, fragment: str = ''):
    self.driver.get('about:blank')
    self.driver.get(f'{address}#{fragment}')
    self.wait('Done')

  def find(self, selector: str):
    return self.driver.find_element(By.CSS_SELECTOR, selector)

  def js(self, script: str, *args):
    return self.driver.execute_script(script, *args)

  def status(self) -> str:
    return self.find('#status').text

  def wait(self, beginning: str):
    """Until the status begins so."""
    self.until(lambda: self.status().startswith(beginning), lambda: self.status())

  def until(self, condition, told=lambda: ''):
    WebDriverWait(self.driver, WAIT, 0.05).until(lambda _: condition(), told())

  def changing(self, action):
    """Does something after which a new picture is made, not only a draft, and waits for it."""
    before = self.js("return document.getElementById('picture').dataset.count")
    action()
    self.until(
      lambda: self.js(
        "const p = document.getElementById('picture').dataset;"
        "return p.count !== arguments[0] && p.draft === 'false' && !running && !waiting",
        before,
      ),
      self.status,
    )

  def pixels(self, selector: str = '#picture') -> np.ndarray:
    """What a canvas shows, [h, w]."""
    width, data = self.js(
      'const c = document.querySelector(arguments[0]);'
      "return [c.width, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]",
      selector,
    )
    return np.array(data, np.uint8).reshape(-1, width, 4)[..., 0]

  def keys(self, selector: str, *keys):
    self.find(selector).send_keys(*keys)

  def drag(self, selector: str):
    """From the middle of a slider to beyond its right end."""
    slider = self.find(selector)
    right = slider.rect['width'] // 2 + 10
    chain = ActionChains(self.driver, duration=20).click_and_hold(slider)
    chain.move_by_offset(right // 2, 3).move_by_offset(right - right // 2, 0).release().perform()

  def click(self, selector: str):
    self.js("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
    self.find(selector).click()

  def downloaded(self, name: str) -> pathlib.Path:
    file = self.downloads / name
    self.until(file.exists)
    return file

  def violations(self) -> list[tuple[str, list[str]]]:
    """What axe-core finds that keeps people from using the page."""
    self.js((pathlib.Path(axe_core_python.__file__).parent / 'axe.min.js').read_text())
    found = self.driver.execute_async_script(
      'const done = arguments[0]; axe.run().then(r => done(r.violations))'
    )
    return [(v['id'], [node['html'] for node in v['nodes']]) for v in found]


def start(downloads: pathlib.Path) -> Page:
  """A page in a new browser, which must be quit (`Page.driver`)."""
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for flag in FLAGS:
    options.add_argument(flag)
  options.add_experimental_option('prefs', {'download.default_directory': str(downloads)})
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
  driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
  driver.set_window_size(1200, 900)
  return Page(driver, downloads)
