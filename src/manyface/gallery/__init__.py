"""Enrolled people: an index with names and versions, search, clusters. It knows no model."""

from manyface.gallery.agreement import Agreement, bcubed, pairwise
from manyface.gallery.clusters import cluster
from manyface.gallery.index import Change, Cropping, Limit, Maker, PeopleIndex
from manyface.gallery.people import Faces, People
from manyface.gallery.search import Match, Search, false_alarms

__all__ = [
    "Agreement",
    "Change",
    "Cropping",
    "Faces",
    "Limit",
    "Maker",
    "Match",
    "People",
    "PeopleIndex",
    "Search",
    "bcubed",
    "cluster",
    "false_alarms",
    "pairwise",
]
