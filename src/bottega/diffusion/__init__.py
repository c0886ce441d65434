"""The mathematics of diffusion: everything between a network and a picture speaks ``Denoise``."""

from bottega.diffusion.augmentation import AugmentationLevels as AugmentationLevels
from bottega.diffusion.augmentation import augment_low_res as augment_low_res
from bottega.diffusion.augmentation import level_to_sigma as level_to_sigma
from bottega.diffusion.denoiser import Denoise as Denoise
from bottega.diffusion.denoiser import Denoiser as Denoiser
from bottega.diffusion.denoiser import DenoiserLike as DenoiserLike
from bottega.diffusion.denoiser import EDMPrecond as EDMPrecond
from bottega.diffusion.denoiser import Noise as Noise
from bottega.diffusion.denoiser import Scalings as Scalings
from bottega.diffusion.denoiser import Step as Step
from bottega.diffusion.grids import GRIDS as GRIDS
from bottega.diffusion.grids import explicit as explicit
from bottega.diffusion.grids import exponential as exponential
from bottega.diffusion.grids import find_grid as find_grid
from bottega.diffusion.grids import karras as karras
from bottega.diffusion.grids import log_snr as log_snr
from bottega.diffusion.guidance import autoguided as autoguided
from bottega.diffusion.guidance import guided as guided
from bottega.diffusion.guidance import guided_jointly as guided_jointly
from bottega.diffusion.loss import edm_loss as edm_loss
from bottega.diffusion.noise import LogNormal as LogNormal
from bottega.diffusion.parameterization import Spread as Spread
from bottega.diffusion.parameterization import TimestepDenoiser as TimestepDenoiser
from bottega.diffusion.samplers import SAMPLERS as SAMPLERS
from bottega.diffusion.samplers import ddim as ddim
from bottega.diffusion.samplers import ddpm as ddpm
from bottega.diffusion.samplers import deis as deis
from bottega.diffusion.samplers import deis_kutta as deis_kutta
from bottega.diffusion.samplers import dpmpp_2m as dpmpp_2m
from bottega.diffusion.samplers import dpmpp_2m_sde as dpmpp_2m_sde
from bottega.diffusion.samplers import euler as euler
from bottega.diffusion.samplers import euler_ancestral as euler_ancestral
from bottega.diffusion.samplers import find_sampler as find_sampler
from bottega.diffusion.samplers import heun as heun
from bottega.diffusion.samplers import imagen_ancestral as imagen_ancestral
from bottega.diffusion.schedules import Cosine as Cosine
from bottega.diffusion.schedules import Discrete as Discrete
from bottega.diffusion.schedules import Linear as Linear
from bottega.diffusion.schedules import linear_betas as linear_betas
from bottega.diffusion.schedules import scaled_linear_betas as scaled_linear_betas
from bottega.diffusion.schedules import squared_cosine_capped as squared_cosine_capped
from bottega.diffusion.thresholding import Dynamic as Dynamic
from bottega.diffusion.thresholding import Static as Static
from bottega.diffusion.thresholding import thresholded as thresholded
from bottega.diffusion.timesteps import SPACINGS as SPACINGS
from bottega.diffusion.timesteps import TimestepPlan as TimestepPlan
from bottega.diffusion.timesteps import TrainingNoise as TrainingNoise

__all__ = [
    "GRIDS",
    "SAMPLERS",
    "SPACINGS",
    "AugmentationLevels",
    "Cosine",
    "Denoise",
    "Denoiser",
    "DenoiserLike",
    "Discrete",
    "Dynamic",
    "EDMPrecond",
    "Linear",
    "LogNormal",
    "Noise",
    "Scalings",
    "Spread",
    "Static",
    "Step",
    "TimestepDenoiser",
    "TimestepPlan",
    "TrainingNoise",
    "augment_low_res",
    "autoguided",
    "ddim",
    "ddpm",
    "deis",
    "deis_kutta",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "edm_loss",
    "euler",
    "euler_ancestral",
    "explicit",
    "exponential",
    "find_grid",
    "find_sampler",
    "guided",
    "guided_jointly",
    "heun",
    "imagen_ancestral",
    "karras",
    "level_to_sigma",
    "linear_betas",
    "log_snr",
    "scaled_linear_betas",
    "squared_cosine_capped",
    "thresholded",
]
