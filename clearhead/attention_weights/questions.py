"""Questions about weights that need no matrix: their names, and the sums that each needs.

`definition.weights` defines their meaning.
"""

from collections.abc import Sequence

from clearhead.errors import InputError

NEEDS = {  # the sum that each answer is computed from, if any
    "entropy": "entropy",
    "effective": "entropy",
    "received_sum": "received_sum",
    "received_max": "received_max",
    "received_mean": "received_sum",
    "distance": "distance",
    "first": "first",
    "within": "within",
    "off_first": "off_first",
    "sink_share": None,
    "top": "top",
    "carriers": "carriers",
    "distances": "distances",
    "groups": "matches",
    "matches": "matches",
}
POSITIONAL = ("distance", "within", "first", "off_first", "distances")  # they take a key's position from its place
SHARES = ("distances", "groups", "matches")  # one number for each range, group or match
USUAL = tuple(name for name in NEEDS if name not in ("carriers", *SHARES))  # carriers are slow: each row is sorted
PER_KEY = ("received_sum", "received_max", "received_mean")
LISTS = ("top_weights", "top_keys", "carriers")
ANSWERED_BY = {  # questions whose answers have other names
    "top_weights": "top",
    "top_keys": "top",
    "group_names": "groups",
    "match_names": "matches",
    "distance_edges": "distances",
}
MAX_OVER_HEADS = ("received_max", "off_first")


def checked_questions(names: Sequence[str], *, placed: bool = True, also: Sequence[str] = ()) -> tuple[str, ...]:
    """Check the names of questions; without any, the usual ones. Unless keys are `placed`, none may read positions.

    `also` are further names that may be asked for.
    """
    for name in names:
        if name not in NEEDS:
            raise InputError(f"summary({name!r}) is unknown: ask for some of {', '.join((*NEEDS, *also))}.")
        if name in POSITIONAL and not placed:
            raise InputError(
                f"summary({name!r}) reads positions, but these weights are over the keys that a cache kept: read rows "
                "with w.row(i), whose columns stand at cache.positions()."
            )
    return tuple(names) or tuple(name for name in USUAL if placed or name not in POSITIONAL)
