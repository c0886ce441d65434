"""Pictures with captions: a drawn world, folders, and how they become batches."""

from bottega.data.batch import Batch as Batch
from bottega.data.batch import Source as Source
from bottega.data.canny import Canny as Canny
from bottega.data.contact_sheet import contact_sheet as contact_sheet
from bottega.data.degradations import DegradationRound as DegradationRound
from bottega.data.degradations import Degradations as Degradations
from bottega.data.emoji_world import EmojiWorld as EmojiWorld
from bottega.data.emoji_world import EmojiWorldConfig as EmojiWorldConfig
from bottega.data.emoji_world import SceneMixture as SceneMixture
from bottega.data.emoji_world import WorldSource as WorldSource
from bottega.data.folders import FolderReport as FolderReport
from bottega.data.folders import FolderSource as FolderSource

__all__ = [
    "Batch",
    "Canny",
    "DegradationRound",
    "Degradations",
    "EmojiWorld",
    "EmojiWorldConfig",
    "FolderReport",
    "FolderSource",
    "SceneMixture",
    "Source",
    "WorldSource",
    "contact_sheet",
]
