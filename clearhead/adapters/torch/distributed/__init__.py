"""Attention over a sequence that several processes share, with the bits of one process, on `torch.distributed`.

Responsible for the public names. `layout` says who has which rows, `peers` and `agreement` deal with the other
processes, `travel` moves segments, `attention` computes.
"""

from clearhead.adapters.torch.distributed.attention import sharded_attention
from clearhead.adapters.torch.distributed.decode import sharded_decode
from clearhead.adapters.torch.distributed.layout import Layout
from clearhead.adapters.torch.distributed.sharding import shard, unshard
from clearhead.errors import PeerError

__all__ = ["Layout", "PeerError", "shard", "sharded_attention", "sharded_decode", "unshard"]
