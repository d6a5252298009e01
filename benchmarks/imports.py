"""The imports of a package: between its files, the circles among them, and a picture of those between its rooms.

A room is a folder or a module at the root of the package. Every import statement counts, also inside functions and
under `if TYPE_CHECKING`. `from package.folder import name` imports `folder/name.py` if there is such a file, else
`folder/__init__.py`; that Python also runs the `__init__.py` of the folders above does not count.
"""

import ast
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean

Graph = dict[str, set[str]]
"""What each file or room imports."""
ROUNDS = 20  # passes over the levels that put the rooms of each into an order with few crossings
GAP = 3.2  # horizontal distance of two rooms; the levels are 1 apart


def parse(root: Path) -> dict[str, ast.Module]:
    """Return the syntax tree of every Python file below a folder, by its path relative to the folder."""
    return {path.relative_to(root).as_posix(): ast.parse(path.read_text()) for path in sorted(root.rglob("*.py"))}


def room(file: str) -> str:
    """Return the room of a file: the folder at the root that holds it, or its own name."""
    return file.partition("/")[0].removesuffix(".py")


def file_imports(trees: dict[str, ast.Module], package: str) -> Graph:
    """Return which files of the package each of its files imports."""
    modules = {_module(file, package): file for file in trees}
    graph: Graph = {}
    for file, tree in trees.items():
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                folder = [package, *file.split("/")[:-1]]
                above = folder[: len(folder) + 1 - node.level] if node.level else []
                module = ".".join([*above, *([node.module] if node.module else [])])
                longer = [f"{module}.{alias.name}" for alias in node.names]
                names |= {name if name in modules else module for name in longer}
        graph[file] = {modules[name] for name in names if name in modules} - {file}
    return graph


def _module(file: str, package: str) -> str:
    """Return the dotted name of a file's module."""
    return ".".join([package, *file.removesuffix(".py").split("/")]).removesuffix(".__init__")


def room_imports(files: Graph) -> Graph:
    """Return which rooms each room imports; the package's own `__init__` and `__main__` are no rooms."""
    graph: Graph = {room(file): set() for file in files if not room(file).startswith("__")}
    for file, imported in files.items():
        if room(file) in graph:
            graph[room(file)] |= {room(other) for other in imported} & graph.keys() - {room(file)}
    return graph


def reachable(graph: Graph) -> Graph:
    """Return everything that each node imports, directly or through others."""
    found: Graph = {}
    for start in graph:
        found[start], left = set(), [*graph[start]]
        while left:
            if (node := left.pop()) not in found[start]:
                found[start].add(node)
                left += graph[node]
    return found


def circles(graph: Graph) -> list[list[str]]:
    """Return the strongly connected components of more than one node, sorted."""
    found = reachable(graph)
    groups = {tuple(sorted(other for other in found[node] if node in found[other])) for node in graph}
    return sorted([*group] for group in groups if len(group) > 1)


def levels(graph: Graph) -> dict[str, int]:
    """Return the level of each node: 0 imports nothing, others are one above the highest that they import.

    An import within a circle does not count.
    """
    found, known = reachable(graph), dict[str, int]()

    def level(node: str) -> int:
        if node not in known:
            below = [other for other in graph[node] if node not in found[other]]
            known[node] = max((level(other) + 1 for other in below), default=0)
        return known[node]

    return {node: level(node) for node in graph}


def essential(graph: Graph) -> Graph:
    """Return the graph without the imports that a longer path implies; those within a circle stay."""
    found = reachable(graph)
    kept: Graph = {}
    for node, imported in graph.items():
        apart = {other for other in imported if node not in found[other]}  # of no circle with the node
        implied = {far for other in apart for far in found[other] if other not in found[far]}
        kept[node] = (apart - implied) | (imported - apart)
    return kept


Point = tuple[str, int]
"""A room and its level, or an arrow and a level that it passes."""


def _paths(graph: Graph, level: dict[str, int]) -> list[list[Point]]:
    """Return the points that each arrow passes, one on each level, from the importing room to the imported one."""
    found = []
    for node, imported in graph.items():
        for other in sorted(imported):
            step = 1 if level[other] > level[node] else -1
            between = range(level[node] + step, level[other], step)
            found.append([(node, level[node]), *((f"{node}>{other}", at) for at in between), (other, level[other])])
    return found


def _places(rooms: Graph, level: dict[str, int], paths: list[list[Point]]) -> dict[Point, float]:
    """Return the horizontal place of every point: each level is ordered by the mean place of its neighbours."""
    rows: dict[int, list[Point]] = defaultdict(list)
    near: dict[Point, set[Point]] = defaultdict(set)
    points = [(name, level[name]) for name in sorted(rooms)] + [point for path in paths for point in path]
    for point in dict.fromkeys(points):
        rows[point[1]].append(point)
    for path in paths:
        for first, second in pairwise(path):
            near[first].add(second)
            near[second].add(first)
    width = {point: GAP if point[0] in rooms else GAP / 4 for point in points}
    place = dict.fromkeys(points, 0.0)

    def spread(row: list[Point]) -> None:
        left = -sum(width[point] for point in row) / 2
        for point in row:
            place[point] = left + width[point] / 2
            left += width[point]

    for row in rows.values():
        spread(row)
    for turn in range(ROUNDS):
        for at in sorted(rows, reverse=turn % 2 == 0):
            rows[at].sort(key=lambda point: fmean(place[other] for other in near[point]) if near[point] else 0.0)
            spread(rows[at])
    return place


def draw(files: Graph, path: Path) -> None:
    """Draw the imports between the rooms as a .png or .svg file: arrows point down, those of circles are red.

    An import that a longer path implies is left out.
    """
    from matplotlib.figure import Figure  # takes half a second

    rooms = room_imports(files)
    found, level = reachable(rooms), levels(rooms)
    paths = _paths(essential(rooms), level)
    place = _places(rooms, level, paths)
    left, right, top = min(place.values()) - GAP / 2, max(place.values()) + GAP / 2, max(level.values())
    figure = Figure(figsize=(0.4 * (right - left), 1.3 * top + 2), layout="constrained")
    axes = figure.add_subplot(xlim=(left, right), ylim=(-0.5, top + 0.5))
    axes.axis("off")
    boxes = {}
    for name in rooms:
        count = sum(room(file) == name for file in files)
        text = f"{name}\n{count} files" if count > 1 else name
        box = {"boxstyle": "round", "facecolor": "aliceblue" if count > 1 else "white", "edgecolor": "0.4"}
        x, y = place[name, level[name]], level[name]
        boxes[name] = axes.text(x, y, text, ha="center", va="center", fontsize=10, bbox=box).get_bbox_patch()
    for number, points in enumerate(paths):
        (start, _), (end, _) = points[0], points[-1]
        circle, far = start in found[end], len(points) > 2
        colour = "tab:red" if circle else f"C{number % 10}" if far else "0.5"  # far arrows are told apart by colour
        xs, ys = [place[point] for point in points], [at for _, at in points]
        axes.plot(xs[:-1], ys[:-1], color=colour, linewidth=1, zorder=1)
        arrow = {"arrowstyle": "-|>", "color": colour, "patchB": boxes[end], "shrinkA": 0, "shrinkB": 1}
        axes.annotate("", (xs[-1], ys[-1]), (xs[-2], ys[-2]), arrowprops=arrow, zorder=1)
    circle_names = "; ".join(" - ".join(each) for each in circles(rooms)) or "none"
    arrows = sum(map(len, rooms.values()))
    axes.set_title(f"{len(rooms)} rooms, {arrows} imports between them ({len(paths)} drawn); circles: {circle_names}")
    figure.savefig(path, dpi=130)
