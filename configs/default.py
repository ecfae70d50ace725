"""Every field with its meaning: what the other configs start from.

On its own it trains one group (rectified flow) on digits; see `digits.py` for the first run.
Batch sizes are global and durations are in images. The first sections say what is trained; in one
workdir they must not change. The others say what is asked of it, and on which machine.
"""

from ml_collections import ConfigDict


def strategy(
  grouping: str,
  groups: tuple = (),
  order: tuple = (),
  cuts: tuple = (),
  overlap: float = 0.0,
  start: tuple = (),
  end: tuple = (),
) -> ConfigDict:
  """One way to split and order the data, for `config.strategies`."""
  s = ConfigDict()
  s.grouping = grouping  # of gdm_jax.grouping: whole, rows, blocks, bands, ... or file:LABELS.png
  s.groups = groups  # rows, columns, cascade, channels: (k,); blocks: per axis; bands: rank edges
  s.order = order  # order[i] is the group generated i-th; () draws one at random per example
  s.cuts = cuts  # the k-1 interior time boundaries, ascending; () makes the intervals equal
  s.overlap = overlap  # of the intervals: 0.0 is one group after another, 1.0 all at once
  s.start = start  # instead of order, cuts and overlap: the time at which each group is clean,
  s.end = end  # and that at which it is all noise, by the groups' numbers
  return s


def get_config() -> ConfigDict:
  config = ConfigDict()
  _set_trained(config)
  _set_requests(config)
  return config


def _set_trained(config):
  """What is trained: data, process, network and recipe."""
  config.seed = 0  # of parameters, data order, training noise and dropout

  data = config.data = ConfigDict()
  # digits, digit_pairs, fashion, mixture, signals, volumes, even_pixels, tfds:NAME; your own:
  # folder:PATH[,PATH], npz:FILE, idx:FOLDER
  data.name = 'digits'
  data.split = 'train'  # the split to train on, or a part of it such as train[:90%]
  data.shape = (8, 8, 1)  # of one example: (*grid, channels)
  data.skip_broken = False  # leave out pictures of a folder that cannot be decoded
  data.flip = False  # mirror a random half of the images left to right
  data.augment = 0.0  # probability of each of EDM's geometric augmentations; 0: none

  basis = config.basis = ConfigDict()
  basis.name = 'pixel'  # of gdm_jax.basis: pixel, or cosine and blur (GDM-F)
  basis.blur = ConfigDict()
  basis.blur.sigma = 0.4  # standard deviation, pixels; 0.4 is that of Lee et al. 2022
  basis.blur.boundary = 'zero'  # outside the image: zero, as in Lee et al. 2022, or reflect

  config.path = 'linear'  # of gdm_jax.path: linear (Eq. 6) or variance_preserving (Eq. 1)
  config.strategies = ConfigDict({'main': strategy('whole', order=(0,))})  # drawn uniformly

  model = config.model = ConfigDict()
  # Of gdm_jax.models: ddpmpp for images, mlp for points; or group_causal and, for images,
  # context_unet, whose cost of generation grows little, or not, with the number of groups.
  model.name = 'ddpmpp'
  model.dtype = 'float32'  # of the computation: float32 or bfloat16; parameters are float32
  model.precision = 'float32'  # of float32 products; cheaper: tensorfloat32 (GPUs), bfloat16 (TPUs)
  model.classes = 0  # of the labels that the network is given, as many as the data have; 0: none
  model.space = 'pixel'  # where the network works under a frequency basis: pixel, or frequency
  model.ddpmpp = ConfigDict()
  model.ddpmpp.channels = 128  # base width
  model.ddpmpp.multipliers = (2, 2, 2)  # width per resolution, in channels; each halves the grid
  model.ddpmpp.blocks = 4  # residual blocks per resolution
  model.ddpmpp.attention = (16,)  # resolutions with self-attention, pixels; the bottleneck has it
  model.ddpmpp.dropout = 0.13  # probability
  model.group_causal = ConfigDict()
  model.group_causal.patch = 2  # side of a token, positions
  model.group_causal.width = 128  # features of a token
  model.group_causal.depth = 6  # blocks
  model.group_causal.heads = 2  # of attention; they share the width
  model.group_causal.dropout = 0.0  # probability
  model.context_unet = ConfigDict()  # sees the known groups once a group:
  model.context_unet.channels = 128  # as of model.ddpmpp, and the next three
  model.context_unet.multipliers = (2, 2, 2)
  model.context_unet.blocks = 4
  model.context_unet.attention = (16,)
  model.context_unet.features = 64  # that it leaves at every position
  # The denoiser sees one group at every step. As of model.ddpmpp:
  model.context_unet.denoiser_channels = 64
  model.context_unet.denoiser_multipliers = (1, 2)
  model.context_unet.denoiser_blocks = 1
  model.context_unet.dropout = 0.13  # of both, probability
  model.mlp = ConfigDict()
  model.mlp.width = 128  # features of every layer
  model.mlp.depth = 4  # residual layers

  train = config.train = ConfigDict()
  train.batch = 512  # images per step, over all devices
  train.duration = 200_000_000  # images; a run may be made longer later
  train.weighting = 'unweighted'  # unweighted (Eq. 8), velocity (Eq. 7), active, denoising (Eq. 3)
  train.times = 'continuous'  # or discrete: the ends of intervals, t = l/d of Appendix C.1
  train.low_discrepancy = True  # training times on a comb over the batch, or independent
  train.label_dropout = 0.1  # probability of hiding a label, so that sampling can be guided
  train.learning_rate = 1e-3  # of Adam, after the ramp
  train.ramp = 10_000_000  # images over which the learning rate rises from 0
  train.anneal = 0  # images at which the rate, falling linearly, reaches 0; 0: EDM's, no fall
  train.ema_halflife = 500_000  # images after which old parameters weigh half in the average
  train.ema_ramp = 0.05  # the half-life is at most this fraction of the images seen; 0: no ramp
  # Parameters to begin with: an export (folder, name or hf:USER/MODEL), or a workdir; '': none.
  train.start = ''


def _set_requests(config):
  """What is asked of a model, and on which machine."""
  machine = config.machine = ConfigDict()
  machine.cpu_devices = 1  # devices that a CPU is split into; a small network uses one core of each
  machine.convolutions = 'auto'  # auto: Winograd's where faster, on CPUs; direct: always XLA's own
  # Folder that keeps compiled programs between runs: auto is one in the user's cache; '' is none.
  machine.compilation_cache = 'auto'
  machine.microbatches = 1  # parts of a batch, one after another, to save memory
  machine.fsdp = 1  # devices that parameters and their moments are divided over; 1: all on each
  # How devices average gradients: auto, as XLA does; float32 or bfloat16, in one array of that
  # type, which is faster where an exchange is slow to start. That needs fsdp = 1.
  machine.all_reduce = 'auto'
  machine.remat = 'none'  # activations recomputed to save memory: none, cheap or blocks
  machine.data_dir = ''  # where TFDS keeps prepared data; '' is TFDS_DATA_DIR or TFDS's default
  machine.memory_gib = 4.0  # data sets up to this size, GiB, are decoded once and kept

  checkpoint = config.checkpoint = ConfigDict()
  checkpoint.every = 2_000_000  # images between checkpoints
  checkpoint.keep = 3  # how many of the newest to keep
  checkpoint.load = 0  # the step that the modes after training read; 0 is the newest
  # The export that they read instead: a folder, a name or hf:USER/MODEL; --model sets it.
  checkpoint.model = ''

  log = config.log = ConfigDict()
  log.every = 50_000  # images between lines of metrics.jsonl
  log.samples_every = 2_000_000  # images between sample grids
  log.validation = ''  # held-out split, as train[90%:], whose loss is logged group by group
  log.validation_every = 0  # images between its evaluations; 0 is log.samples_every
  log.grid = 8  # rows and columns of a sample grid, images

  sampling = config.sampling = ConfigDict()
  sampling.strategy = ''  # which of the strategies; '' is the first
  sampling.order = ()  # () is the strategy's own, or 0..k-1 if that is random
  sampling.cuts = ()  # interior time boundaries for generation; () is the strategy's own
  sampling.steps = (128,)  # (total,), or one number per group in the order of generation
  # After i of a group's n steps its noise level is (1 - i / n)^rho: 1, even; 1.5, denser near data.
  sampling.rho = 1.0
  # Keep known groups as context, if the network can; the samples are the same.
  sampling.cache = True
  sampling.solver = 'euler'  # of gdm_jax.solvers: euler, midpoint, heun, adams_bashforth2, ...
  sampling.adaptive = ConfigDict()
  sampling.adaptive.rtol = 1e-5  # relative error of a step of the solver adaptive
  sampling.adaptive.atol = 1e-5  # absolute error of a step, data are about 1
  sampling.seeds = '0-63'  # one image a seed: numbers and ranges, such as 0,5,10-99
  # Where latents come from, one entry or one a group, by their numbers: a seed, 'seed' for the
  # image's own, a picture, or FROM:TO:FRACTION along the great circle, as in 5,seed,5:8:0.3,a.png.
  sampling.latents = ''  # '' is the image's own seed
  sampling.ranks = ''  # coefficients of a frequency basis that are set, as in RANK=VALUE,0=-2.5
  sampling.labels = ()  # classes assigned to seeds cyclically; -1 is none, () uses all classes
  # w of u_none + w (u_label - u_none), two evaluations; 1: one, as trained. (w,), or one a group in
  # the order of generation.
  sampling.guidance = (1.0,)
  sampling.batch = 256  # images generated at once, over all devices
  sampling.format = 'png'  # png: a file an image; npz: one for all, also for what is no image
  sampling.folder = 'samples'  # in the workdir; holds samples of one kind

  complete = config.complete = ConfigDict()
  complete.images = ''  # the given images: a file, a folder or a pattern such as 'mine/*.png'
  complete.groups = ()  # the known groups by number, or
  complete.mask = ''  # a picture of the image's size, white where it is known
  complete.variants = 4  # of each image; they take the steps that are left after the known groups
  complete.folder = 'completed'  # in the workdir

  edit = config.edit = ConfigDict()
  edit.operation = 'reconstruct'  # reconstruct, mix, interpolate, traverse or vary
  edit.images = ''  # files, folders and patterns, such as 'a.jpg,b.jpg'; of any size
  edit.groups = ()  # what is mixed, interpolated, or kept by vary: groups by number, or
  edit.band = ()  # ranks (first, last), last excluded; neither: each group in turn
  edit.weights = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the second image, for interpolate
  edit.spherical = True  # interpolate along the great circle, or along the line
  edit.ranks = (0, 1, 2, 3)  # elements that traverse sets, one a line
  edit.channel = 0  # the channel of these elements
  edit.strengths = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # their values; latents are N(0, 1)
  edit.variants = 4  # of each image, for vary; their noise has the first of sampling.seeds
  edit.encode_label = -1  # the class that images are encoded under; -1: none
  edit.decode_label = -1  # the class that latents are decoded under; another one translates
  edit.solver = 'reversible_heun'  # along the table of config.sampling
  edit.folder = 'edited'  # in the workdir

  explore = config.explore = ConfigDict()
  explore.host = '127.0.0.1'  # address to listen at; another than this one is open to the network
  explore.port = 8765  # 0 takes any that is free
  explore.browser = True  # open the page in a browser, where there is a screen
  explore.draft_steps = 8  # while a slider moves; at rest they are sampling.steps
  explore.draft_solver = 'adams_bashforth2'  # while a slider moves; at rest it is sampling.solver
  explore.variants = 4  # completions side by side, and pictures of a saved page made at once
  explore.upload_mib = 16.0  # largest picture that may be dropped, MiB

  likelihood = config.likelihood = ConfigDict()
  likelihood.split = ''  # of the data; '' is data.split
  likelihood.num = 256  # examples of the split, the first ones
  likelihood.solver = 'rk4'  # not reversible_heun; along the table of config.sampling
  likelihood.probes = 1  # Hutchinson probes an example; 0: the exact trace
  likelihood.seed = 0  # of the dequantisation and the probes

  evaluation = config.evaluation = ConfigDict()
  evaluation.features = 'classifier'  # of the data's labels; pixels; lite0, vgg16, inception (FID)
  evaluation.weights = ''  # npz of the network's, by python -m gdm_jax.evaluation.weights
  evaluation.seeds = '0-9999'  # one image a seed
  evaluation.split = ''  # of the data that they are compared with; '' is data.split
  evaluation.reference = ''  # its statistics, of --mode=reference; '' makes and keeps them here
  evaluation.every = 0  # images of training between evaluations; 0: none

  export = config.export = ConfigDict()
  export.folder = 'export'  # in the workdir; a trained model for others (docs/share.md)
  export.dtype = 'float32'  # that parameters are stored in: float32, float16 or bfloat16
  export.grid = 8  # rows and columns of grid.png, samples; 0: none
  export.program = True  # sampler.stablehlo, for programs without gdm_jax; needs flatbuffers
