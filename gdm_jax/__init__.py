"""Groupwise diffusion models (GDM): sequential generation over groups of data, in JAX.

Read the method first, in this order; it needs jax and numpy alone:

  grouping     the partition of the data into groups S_j
  schedule     when each group diffuses (Eq. 10), and tables of signal levels
  basis        the orthogonal U of GDM-F (Section 3.4)
  path         how signal and noise mix (Eq. 1, 2)
  process      the three together: x_t and one step of the ODE (Eq. 6, 9)
  losses       what a network is trained on (Eq. 7, 8)
  solvers      step rules, Euler to adaptive
  sampling     generation, encoding, completion, sweeps of orders
  likelihood   log p(x), group by group
  latents      edits of latents, band by band (Section 4)
  allocation   how many steps each group gets

Then a run: `conditioning` (what the network is shown), `config` and `build`, and its parts:
`models`, `data`, `generation`, `training`, `evaluation`, `modes`. `runtime` is what these need of
the machine.
"""

__version__ = '0.1.0'
