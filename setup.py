"""Installs gdm_jax; `requirements.txt` pins what it is tested with."""

import pathlib
import re

from setuptools import find_packages, setup

root = pathlib.Path(__file__).parent
version = re.search(r"__version__ = '(.+)'", (root / 'gdm_jax/__init__.py').read_text())[1]

setup(
  name='gdm_jax',
  version=version,
  description='Groupwise diffusion models in JAX',
  long_description=(root / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=find_packages(include=('gdm_jax', 'gdm_jax.*')),
  install_requires=[
    'absl-py>=2.1',
    'clu>=0.0.12',
    'flax>=0.12',
    'grain>=0.2.15',
    'importlib_resources',  # tensorflow-datasets imports it without requiring it
    'jax>=0.8',
    'jaxtyping>=0.3',
    'matplotlib>=3.9',
    'ml_collections>=1.1',
    'numpy>=2.0',
    'optax>=0.2.5',
    'orbax-checkpoint>=0.11.25',
    'pillow>=10.4',
    'scikit-learn>=1.5',
    'tensorflow-datasets>=4.9.9',
    'tqdm>=4.66',
  ],
  extras_require={
    'tensorflow': ['tensorflow-cpu>=2.18'],
    'dev': ['hypothesis>=6.100', 'pytest>=8', 'ruff>=0.9', 'scipy>=1.13'],
  },
)
