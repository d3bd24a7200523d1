"""Eight made-up tables, each with a smaller one that it refers to. The last two are never trained on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table, and the smaller one that its column `group` refers to: an employee has a department."""

    name: str            # employees
    one: str             # employee
    key: str             # the column that tells the rows apart
    rows: tuple          # its values
    numbers: tuple       # columns of numbers
    group: str           # department
    groups: tuple        # its values: the names of the rows of the smaller table
    smaller: str         # departments
    details: tuple       # that one's columns of numbers

    def columns(self, both):
        """What a prompt says of it."""
        lines = [f"Table {self.name}: {', '.join((self.key, self.group, *self.numbers))}"]
        return "\n".join(lines + both * [f"Table {self.smaller}: {', '.join(('name', *self.details))}"])


def table(name, one, key, rows, numbers, group, groups, smaller, details):
    return Table(name, one, key, tuple(rows.split()), tuple(numbers.split()), group, tuple(groups.split()), smaller,
                 tuple(details.split()))


SEEN = (
    table("employees", "employee", "name", "Ada Ben Cleo Dan Eve Finn Gus Hana Ivo Jane Kai Lea", "salary bonus tenure",
          "department", "Sales Design Legal Support", "departments", "budget floor"),
    table("books", "book", "title", "Embers Harvest Mirrors Northwind Orchard Passage Quartz Rivers Saltwater Thistle "
          "Umbra Winter", "price length rating", "genre", "Crime Poetry Travel History", "genres", "shelf demand"),
    table("mountains", "mountain", "name", "Arden Brask Corvo Dunmore Eldin Fang Grayback Hollin Iskar Jotun "
          "Kells Loma", "height slope snowfall", "country", "Norway Chile Nepal Austria", "countries",
          "area population"),
    table("films", "film", "title", "Afterglow Borderline Carousel Daybreak Echoes Fireflies Gravel Homeward Inlet "
          "Jigsaw Kestrel Lantern", "runtime cost score", "studio", "Apex Bluebird Cobalt Dune", "studios",
          "staff income"),
    table("songs", "song", "title", "Amber Breeze Comet Drift Ember Fable Ghost Halo Indigo Jubilee Karma Lullaby",
          "duration tempo volume", "band", "Foxes Ravens Lynx Otters", "bands", "fee debut"),
    table("dogs", "dog", "name", "Ace Bella Coco Duke Echo Fido Gypsy Hugo Iris Jack Koda Luna", "weight height speed",
          "breed", "Beagle Collie Husky Poodle", "breeds", "lifespan strength"),
)
UNSEEN = (  # never trained on
    table("ships", "ship", "name", "Albatross Beacon Condor Dolphin Endeavour Falcon Gannet Heron Ibis Jester Kraken "
          "Leopard", "tonnage draught range", "port", "Oslo Cadiz Genoa Dover", "ports", "depth traffic"),
    table("planets", "planet", "name", "Aris Belos Cyra Doran Elara Fenix Goran Hydra Ione Jora Kepra Lyra",
          "mass gravity temperature", "star", "Vega Rigel Sirius Deneb", "stars", "brightness distance"),
)
