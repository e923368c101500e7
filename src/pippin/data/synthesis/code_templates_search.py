"""Templates of programming problems: sets, graphs, optimisation."""

from __future__ import annotations

from itertools import combinations, product

from pippin.data.synthesis.code_problems import Template
from pippin.data.synthesis.code_templates import whole
from pippin.data.world_words import Draw


def _graph(draw: Draw) -> tuple[dict[int, list[int]]]:
    n = 3 + draw.below(4)
    return ({i: [j for j in range(n) if j != i and draw.below(3) == 0] for i in range(n)},)


def _steps(graph: dict[int, list[int]]) -> int:
    """From 0 to the largest node, by the sets that are reached after so many steps."""
    reached, steps = {0}, 0
    while max(graph) not in reached:
        further = reached | {j for i in reached for j in graph[i]}
        if further == reached:
            return -1
        reached, steps = further, steps + 1
    return steps


def _fewest(amount: int, a: int, b: int) -> int:
    """By trying every number of each coin."""
    options = [x + y + z for x, y in product(range(amount // b + 1), range(amount // a + 1))
               if (z := amount - b * x - a * y) >= 0]  # fmt: skip
    return min(options)


def _intervals(draw: Draw) -> tuple[list[list[int]]]:
    return ([[start := draw.below(30), start + 1 + draw.below(8)] for _ in range(1 + draw.below(5))],)


def _merged(intervals: list[list[int]], g: int) -> list[list[int]]:
    """By joining any two that are near, until none are."""
    rows = [list(row) for row in intervals]
    while True:
        near = [(a, b) for a, b in combinations(rows, 2) if a[0] <= b[1] + g and b[0] <= a[1] + g]
        if not near:
            return sorted(rows)
        a, b = near[0]
        rows.remove(a)
        rows.remove(b)
        rows.append([min(a[0], b[0]), max(a[1], b[1])])


def _most_apart(intervals: list[list[int]]) -> int:
    """By trying every subset."""
    for size in range(len(intervals), 0, -1):
        for chosen in combinations(sorted(intervals), size):
            if all(a[1] <= b[0] for a, b in zip(chosen, chosen[1:], strict=False)):
                return size
    return 0


SEARCH: tuple[Template, ...] = (
    Template(
        "set operations", "only_in_one(a, b)",
        "Return the sorted list of the values that stand in exactly one of two lists, each once.",
        {}, lambda a, b: sorted(n for n in {*a, *b} if (n in a) != (n in b)),
        lambda draw: (whole(draw, 0, 6, 0, 9), whole(draw, 0, 6, 0, 9)), (([], []), ([1, 1], []), ([2, 1], [1, 3])),
        (
            "return sorted(set(a) ^ set(b))",
            "out = []\nfor n in sorted(a + b):\n    if (n in a) != (n in b) and n not in out:\n"
            "        out.append(n)\nreturn out",
        ),
        ("return sorted(set(a) - set(b))", "return sorted(n for n in a + b if (n in a) != (n in b))"),
    ),
    Template(
        "breadth-first search", "fewest_steps(graph)",
        "A directed graph is a dictionary from each node, a number, to the list of the nodes that follow it. Return "
        "the fewest steps from node 0 to the node with the largest number, or -1 if there is no way.",
        {}, _steps, _graph, (({0: []},), ({0: [], 1: [0]},), ({0: [1], 1: [2], 2: [3], 3: []},),
                              ({0: [1, 2], 1: [3], 2: [4], 3: [4], 4: [0]},)),
        (
            "from collections import deque\nwaiting, seen = deque([(0, 0)]), {0}\nwhile waiting:\n"
            "    node, steps = waiting.popleft()\n    if node == max(graph):\n        return steps\n"
            "    for other in graph[node]:\n        if other not in seen:\n            seen.add(other)\n"
            "            waiting.append((other, steps + 1))\nreturn -1",
            "far = {node: float('inf') for node in graph}\nfar[0] = 0\nfor _ in graph:\n    for a in graph:\n"
            "        for b in graph[a]:\n            far[b] = min(far[b], far[a] + 1)\n"
            "best = far[max(graph)]\nreturn -1 if best == float('inf') else best",
        ),
        (
            "seen = set()\ndef walk(node):\n    if node == max(graph):\n        return 0\n    seen.add(node)\n"
            "    for other in graph[node]:\n        if other not in seen:\n            steps = walk(other)\n"
            "            if steps >= 0:\n                return steps + 1\n    return -1\nreturn walk(0)",
            "steps, node = 0, 0\nwhile node != max(graph):\n    if not graph[node] or steps > len(graph):\n"
            "        return -1\n    node, steps = graph[node][0], steps + 1\nreturn steps",
        ),
    ),
    Template(
        "coin change and knapsacks", "fewest_coins(amount)",
        "Return the fewest coins that make up an amount from any number of coins of 1, $a and $b.",
        {"a": (6, 9), "b": (10, 10)}, _fewest, lambda draw: (1 + draw.below(60),),
        ((0,), (12,), (14,), (16,), (18,)),
        (
            "best = [0]\nfor n in range(1, amount + 1):\n"
            "    best.append(1 + min(best[n - c] for c in (1, $a, $b) if c <= n))\nreturn best[amount]",
            "reached, count = {0}, 0\nwhile amount not in reached:\n"
            "    reached |= {n + c for n in reached for c in (1, $a, $b) if n + c <= amount}\n    count += 1\n"
            "return count",
        ),
        (
            "count = 0\nfor coin in ($b, $a, 1):\n    count += amount // coin\n    amount %= coin\nreturn count",
            "best = [0]\nfor n in range(1, amount + 1):\n"
            "    best.append(1 + min(best[n - c] for c in (1, $b) if c <= n))\nreturn best[amount]",
        ),
    ),
    Template(
        "merging intervals", "merged(intervals)",
        "Intervals are lists of a start and an end. Merge those that overlap, touch or lie at most $g apart, until "
        "none are left to merge, and return them in order.",
        {"g": (1, 3)}, _merged, _intervals,
        (([],), ([[1, 9], [2, 3]],), ([[5, 6], [1, 2]],), ([[0, 4], [6, 7], [20, 21]],)),
        (
            "out = []\nfor start, end in sorted(intervals):\n    if out and start <= out[-1][1] + $g:\n"
            "        out[-1][1] = max(out[-1][1], end)\n    else:\n        out.append([start, end])\nreturn out",
            "points = sorted([(s, -1) for s, e in intervals] + [(e + $g, 1) for s, e in intervals])\n"
            "out, depth = [], 0\nfor at, sign in points:\n    if depth == 0:\n        out.append([at, at])\n"
            "    depth -= sign\n    if depth == 0:\n        out[-1][1] = at - $g\nreturn out",
        ),
        (
            "out = []\nfor start, end in sorted(intervals):\n    if out and start <= out[-1][1] + $g:\n"
            "        out[-1][1] = end\n    else:\n        out.append([start, end])\nreturn out",
            "out = []\nfor start, end in intervals:\n    if out and start <= out[-1][1] + $g:\n"
            "        out[-1][1] = max(out[-1][1], end)\n    else:\n        out.append([start, end])\nreturn out",
        ),
    ),
    Template(
        "greedy scheduling", "most_meetings(meetings)",
        "Meetings are lists of a start and an end. Return the largest number of them that one person can attend; a "
        "meeting may begin when another ends.",
        {}, _most_apart, _intervals, (([],), ([[0, 10], [1, 2], [2, 3]],), ([[1, 5], [4, 7], [6, 9]],)),
        (
            "count, free = 0, -1\nfor start, end in sorted(meetings, key=lambda m: m[1]):\n    if start >= free:\n"
            "        count, free = count + 1, end\nreturn count",
            "meetings = sorted(meetings)\ndef most(i, free):\n    if i == len(meetings):\n        return 0\n"
            "    start, end = meetings[i]\n    take = 1 + most(i + 1, end) if start >= free else 0\n"
            "    return max(take, most(i + 1, free))\nreturn most(0, -1)",
        ),
        (
            "count, free = 0, -1\nfor start, end in sorted(meetings):\n    if start >= free:\n"
            "        count, free = count + 1, end\nreturn count",
            "count, free = 0, -1\nfor start, end in sorted(meetings, key=lambda m: m[1]):\n    if start > free:\n"
            "        count, free = count + 1, end\nreturn count",
        ),
    ),
    Template(
        "backtracking over subsets", "subsets_with_sum(numbers)",
        "Return how many ways there are to choose positions of a list so that the numbers there add up to $t. "
        "Choosing none adds up to 0.",
        {"t": (5, 12)},
        lambda numbers, t: sum(sum(c) == t for n in range(len(numbers) + 1) for c in combinations(numbers, n)),
        lambda draw: (whole(draw, 3, 8, 0, 7),), (([],), ([5, 6, 7, 8, 9, 10, 11, 12],), ([3, 3, 3, 2, 2, 4, 1],)),
        (
            "def ways(i, left):\n    if i == len(numbers):\n        return int(left == 0)\n"
            "    return ways(i + 1, left) + ways(i + 1, left - numbers[i])\nreturn ways(0, $t)",
            "counts = {0: 1}\nfor n in numbers:\n    more = dict(counts)\n    for total, ways in counts.items():\n"
            "        more[total + n] = more.get(total + n, 0) + ways\n    counts = more\nreturn counts.get($t, 0)",
        ),
        (
            "counts = {0}\nfor n in numbers:\n    counts |= {total + n for total in counts}\n"
            "return int($t in counts)",
            "def ways(i, left):\n    if left == 0:\n        return 1\n    if i == len(numbers):\n        return 0\n"
            "    return ways(i + 1, left) + ways(i, left - numbers[i] - 1)\n"
            "return ways(0, $t) if len(numbers) > 1 else 0",
        ),
    ),
)  # fmt: skip
