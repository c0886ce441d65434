"""Pictures with captions: a drawn world, folders, and how they become batches."""

from bottega.data.batch import Batch as Batch
from bottega.data.batch import Source as Source
from bottega.data.buckets import Bucket as Bucket
from bottega.data.buckets import Buckets as Buckets
from bottega.data.buckets import Groups as Groups
from bottega.data.buckets import groups_of as groups_of
from bottega.data.canny import Canny as Canny
from bottega.data.contact_sheet import contact_sheet as contact_sheet
from bottega.data.degradations import DegradationRound as DegradationRound
from bottega.data.degradations import Degradations as Degradations
from bottega.data.emoji_world import EmojiWorld as EmojiWorld
from bottega.data.emoji_world import EmojiWorldConfig as EmojiWorldConfig
from bottega.data.emoji_world import SceneMixture as SceneMixture
from bottega.data.emoji_world import WorldSource as WorldSource
from bottega.data.folders import FolderSource as FolderSource
from bottega.data.places import pictures_in as pictures_in
from bottega.data.shards import ShardSource as ShardSource
from bottega.data.stored import FolderReport as FolderReport

__all__ = [
    "Batch",
    "Bucket",
    "Buckets",
    "Canny",
    "DegradationRound",
    "Degradations",
    "EmojiWorld",
    "EmojiWorldConfig",
    "FolderReport",
    "FolderSource",
    "Groups",
    "SceneMixture",
    "ShardSource",
    "Source",
    "WorldSource",
    "contact_sheet",
    "groups_of",
    "pictures_in",
]
