"""Painting: a cascade and its encoders become a painter; pictures carry what made them and can be made again."""

from bottega.pipelines.adapters import Adapters as Adapters
from bottega.pipelines.canvas import Canvas as Canvas
from bottega.pipelines.canvas import parse_aspect as parse_aspect
from bottega.pipelines.canvas import parse_canvas as parse_canvas
from bottega.pipelines.cascade import MANIFEST as MANIFEST
from bottega.pipelines.cascade import SHIPPED as SHIPPED
from bottega.pipelines.cascade import CascadeManifest as CascadeManifest
from bottega.pipelines.cascade import StageEntry as StageEntry
from bottega.pipelines.cascade import assemble as assemble
from bottega.pipelines.cascade import file_digests as file_digests
from bottega.pipelines.cascade import find_model as find_model
from bottega.pipelines.cascade import load_stages as load_stages
from bottega.pipelines.cascade import model_part as model_part
from bottega.pipelines.cascade import read_manifest as read_manifest
from bottega.pipelines.controls import Guide as Guide
from bottega.pipelines.edit import FromPicture as FromPicture
from bottega.pipelines.edit import Inpaint as Inpaint
from bottega.pipelines.enlarging import Enlarger as Enlarger
from bottega.pipelines.enlarging import load_enlarger as load_enlarger
from bottega.pipelines.explain import Explanation as Explanation
from bottega.pipelines.loading import load as load
from bottega.pipelines.output import check_writable as check_writable
from bottega.pipelines.output import open_picture as open_picture
from bottega.pipelines.output import save_picture as save_picture
from bottega.pipelines.output import sheet as sheet
from bottega.pipelines.painter import Painter as Painter
from bottega.pipelines.painter import PaintStep as PaintStep
from bottega.pipelines.provenance import Provenance as Provenance
from bottega.pipelines.provenance import read_provenance as read_provenance
from bottega.pipelines.provenance import sheet_of as sheet_of
from bottega.pipelines.regions import Box as Box
from bottega.pipelines.regions import Region as Region
from bottega.pipelines.replay import Replay as Replay
from bottega.pipelines.replay import paint_again as paint_again
from bottega.pipelines.replay import repaint as repaint
from bottega.pipelines.stage import Stage as Stage
from bottega.pipelines.stage import StageSettings as StageSettings
from bottega.pipelines.stored import DenoiserConfig as DenoiserConfig
from bottega.pipelines.stored import load_denoiser as load_denoiser
from bottega.pipelines.stored import save_denoiser as save_denoiser

__all__ = [
    "MANIFEST",
    "SHIPPED",
    "Adapters",
    "Box",
    "Canvas",
    "CascadeManifest",
    "DenoiserConfig",
    "Enlarger",
    "Explanation",
    "FromPicture",
    "Guide",
    "Inpaint",
    "PaintStep",
    "Painter",
    "Provenance",
    "Region",
    "Replay",
    "Stage",
    "StageEntry",
    "StageSettings",
    "assemble",
    "check_writable",
    "file_digests",
    "find_model",
    "load",
    "load_denoiser",
    "load_enlarger",
    "load_stages",
    "model_part",
    "open_picture",
    "paint_again",
    "parse_aspect",
    "parse_canvas",
    "read_manifest",
    "read_provenance",
    "repaint",
    "save_denoiser",
    "save_picture",
    "sheet",
    "sheet_of",
]
