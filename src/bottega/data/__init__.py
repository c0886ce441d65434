"""Pictures with captions: a drawn world, folders, and how they become batches."""

from bottega.data.batch import Batch as Batch
from bottega.data.batch import Source as Source

__all__ = ["Batch", "Source"]
