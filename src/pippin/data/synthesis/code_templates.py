"""Templates of programming problems: text, sequences, searching, matrices."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from pippin.data.synthesis.code_problems import Template
from pippin.data.world_words import Draw

_WORDS = ("amber", "river", "stone", "kite", "level", "noon", "cloud", "otter", "rotor", "salt", "tea", "elm", "radar")


def whole(draw: Draw, least: int = 1, most: int = 9, low: int = -20, high: int = 40) -> list[int]:
    """A list of `least` to `most` whole numbers."""
    return [low + draw.below(high - low + 1) for _ in range(least + draw.below(most - least + 1))]


def _sentence(draw: Draw) -> str:
    return " ".join(draw.pick(_WORDS) for _ in range(1 + draw.below(7)))


def _letters(draw: Draw) -> str:
    return "".join(draw.pick("aabbccd") for _ in range(1 + draw.below(12)))


def _runs(text: str, n: int) -> str:
    runs = [(letter, len(list(group))) for letter, group in groupby(text)]
    return "".join(f"{letter}{count}" if count >= n else letter * count for letter, count in runs)


def _caesar(text: str, k: int) -> str:
    table = {ord(c): (ord(c) - 97 + k) % 26 + 97 for c in "abcdefghijklmnopqrstuvwxyz"}
    return text.translate(table)


def _anagrams(words: list[str]) -> int:
    return sum(n * (n - 1) // 2 for n in Counter("".join(sorted(word)) for word in words).values())


def _rotated(rows: list[list[int]], q: int) -> list[list[int]]:
    for _ in range(q):
        rows = [list(column) for column in zip(*rows[::-1], strict=True)]
    return rows


def _matrix(draw: Draw) -> tuple[list[list[int]]]:
    height, width = 1 + draw.below(3), 1 + draw.below(4)
    return ([[draw.below(20) for _ in range(width)] for _ in range(height)],)


def _balanced(text: str) -> bool:
    before = None
    while text != before:
        before, text = text, text.replace("()", "").replace("[]", "").replace("{}", "")
    return text == ""


def _brackets(draw: Draw) -> tuple[str]:
    text = "".join(draw.pick(("()", "[]", "{}", "([])", "[()]", "{[]}", "()[]")) for _ in range(1 + draw.below(3)))
    if draw.below(2):
        at = draw.below(len(text))
        text = text[:at] + text[at + 1 :]
    return (text,)


TEXTS: tuple[Template, ...] = (
    Template(
        "splitting and joining text", "every_nth_upper(text)",
        "Return the words of a text, separated by single spaces, with every word whose position is a multiple of $n "
        "(the first word has position 1) in capitals.",
        {"n": (2, 4)},
        lambda text, n: " ".join(w.upper() if i % n == 0 else w for i, w in enumerate(text.split(), 1)),
        lambda draw: (_sentence(draw),), (("",), ("one  two three four five six seven eight",)),
        (
            "words = text.split()\nfor i in range($n - 1, len(words), $n):\n    words[i] = words[i].upper()\n"
            "return ' '.join(words)",
            "return ' '.join(w.upper() if (i + 1) % $n == 0 else w for i, w in enumerate(text.split()))",
        ),
        (
            "return ' '.join(w.upper() if i % $n == 0 else w for i, w in enumerate(text.split()))",
            "return ' '.join(w.upper() if (i + 1) % $n == 0 else w for i, w in enumerate(text.split(' ')))",
        ),
    ),
    Template(
        "palindromes", "is_loose_palindrome(text)",
        "Return whether a text reads the same in both directions when everything but letters and digits is left out "
        "and case does not count.",
        {},
        lambda text: (kept := [c for c in text.lower() if c.isalnum()]) == kept[::-1],
        lambda draw: (draw.pick((_sentence(draw), "Never odd or even", "Step on no pets!", "No lemon, no melon")),),
        (("",), ("Noon",), ("ab1b a",), ("Was it a car, or a cat I saw?",), ("abca",)),
        (
            "kept = ''.join(c for c in text if c.isalnum()).lower()\nreturn kept == kept[::-1]",
            "kept = [c.lower() for c in text if c.isalnum()]\ni, j = 0, len(kept) - 1\nwhile i < j:\n"
            "    if kept[i] != kept[j]:\n        return False\n    i += 1\n    j -= 1\nreturn True",
        ),
        (
            "return text == text[::-1]",
            "kept = [c for c in text if c.isalnum()]\nreturn kept == kept[::-1]",
            "kept = [c.lower() for c in text if c.isalpha()]\nreturn bool(kept) and kept[0] == kept[-1]",
        ),
    ),
    Template(
        "anagrams", "anagram_pairs(words)",
        "Return how many pairs of words in a list are anagrams of each other: made of the same letters equally "
        "often. Equal words are anagrams, too.",
        {}, _anagrams,
        lambda draw: ([draw.pick(("tea", "eat", "ate", "tan", "nat", "tee", "ten")) for _ in range(draw.below(8))],),
        (([],), (["tee", "tet"],), (["ab", "ba", "ab"],)),
        (
            "count = 0\nfor i in range(len(words)):\n    for j in range(i):\n"
            "        count += sorted(words[i]) == sorted(words[j])\nreturn count",
            "seen, pairs = {}, 0\nfor word in words:\n    key = ''.join(sorted(word))\n"
            "    pairs += seen.get(key, 0)\n"
            "    seen[key] = seen.get(key, 0) + 1\nreturn pairs",
        ),
        (
            "return sum(set(a) == set(b) for i, a in enumerate(words) for b in words[:i])",
            "return sum(sorted(a) == sorted(b) for a in words for b in words)",
            "return sum(sorted(a) == sorted(b) and a != b for i, a in enumerate(words) for b in words[:i])",
        ),
    ),
    Template(
        "counting characters and words", "most_common(text)",
        "Return the character that stands most often in a text of at least one character; of several such characters "
        "the first in alphabetical order.",
        {},
        lambda text: min(set(text), key=lambda c: (-text.count(c), c)),
        lambda draw: (_letters(draw),), (("ba",), ("abcc",), ("ddaab",)),
        (
            "best = ''\nfor c in sorted(set(text)):\n    if best == '' or text.count(c) > text.count(best):\n"
            "        best = c\nreturn best",
            "counts = {}\nfor c in text:\n    counts[c] = counts.get(c, 0) + 1\nmost = max(counts.values())\n"
            "return min(c for c, n in counts.items() if n == most)",
        ),
        (
            "return max(text, key=text.count)",
            "return max(set(text), key=lambda c: (text.count(c), c))",
            "return min(text)",
        ),
    ),
    Template(
        "run-length encoding", "encode_runs(text)",
        "Shorten a text: each run of $n or more equal characters becomes the character and the length of the run; "
        "shorter runs stay as they are.",
        {"n": (2, 4)}, _runs,
        lambda draw: ("".join(draw.pick("xyz") * (1 + draw.below(6)) for _ in range(1 + draw.below(4))),),
        (("",), ("aaaaaaaaaaaa",), ("aabbbcccc",), ("abab",)),
        (
            "out, i = '', 0\nwhile i < len(text):\n    j = i\n    while j < len(text) and text[j] == text[i]:\n"
            "        j += 1\n    out += text[i] + str(j - i) if j - i >= $n else text[i:j]\n    i = j\nreturn out",
            "from itertools import groupby\nparts = []\nfor c, group in groupby(text):\n    size = len(list(group))\n"
            "    parts.append(f'{c}{size}' if size >= $n else c * size)\nreturn ''.join(parts)",
        ),
        (
            "out, i = '', 0\nwhile i < len(text):\n    j = i\n    while j < len(text) and text[j] == text[i]:\n"
            "        j += 1\n    out += text[i] + str(j - i) if j - i > $n else text[i:j]\n    i = j\nreturn out",
            "out = ''\nfor c in sorted(set(text)):\n    n = text.count(c)\n"
            "    out += c + str(n) if n >= $n else c * n\n"
            "return out",
        ),
    ),
    Template(
        "simple ciphers", "shift_letters(text)",
        "Replace each lower-case letter of a text by the one $k places later in the alphabet, going on at a after z. "
        "Other characters stay.",
        {"k": (2, 12)}, _caesar,
        lambda draw: (_sentence(draw),), (("",), ("xyz ABC, abc!",), ("z",)),
        (
            "alphabet = 'abcdefghijklmnopqrstuvwxyz'\n"
            "return ''.join(alphabet[(alphabet.index(c) + $k) % 26] if c in alphabet else c for c in text)",
            "out = []\nfor c in text:\n    if 'a' <= c <= 'z':\n        c = chr((ord(c) - 97 + $k) % 26 + 97)\n"
            "    out.append(c)\nreturn ''.join(out)",
        ),
        (
            "return ''.join(chr(ord(c) + $k) if 'a' <= c <= 'z' else c for c in text)",
            "return ''.join(chr((ord(c) - 97 - $k) % 26 + 97) if 'a' <= c <= 'z' else c for c in text)",
            "return ''.join(chr((ord(c) - 97 + $k) % 26 + 97) for c in text)",
        ),
    ),
    Template(
        "prefix sums", "best_start(numbers)",
        "Return the largest sum of the first so many numbers of a list, taking at least none of them; leave out "
        "every number above $limit first.",
        {"limit": (15, 30)},
        lambda numbers, limit: max(
            sum([n for n in numbers if n <= limit][:i]) for i in range(len(numbers) + 1)
        ),
        lambda draw: (whole(draw),), (([],), ([-3, -2],), ([5, -9, 40, 6, 1],)),
        (
            "best = total = 0\nfor n in numbers:\n    if n <= $limit:\n        total += n\n"
            "        best = max(best, total)\nreturn best",
            "from itertools import accumulate\n"
            "return max([0, *accumulate(n for n in numbers if n <= $limit)])",
        ),
        (
            "return sum(n for n in numbers if n <= $limit)",
            "best = total = 0\nfor n in numbers:\n    total += n\n    best = max(best, total)\nreturn best",
            "best = total = 0\nfor n in numbers:\n    if n <= $limit:\n        total = max(0, total + n)\n"
            "        best = max(best, total)\nreturn best",
        ),
    ),
    Template(
        "sorting by a key", "sort_by_remainder(numbers)",
        "Sort whole numbers that are not negative by their remainder on division by $m, and numbers of the same "
        "remainder from the largest to the smallest.",
        {"m": (3, 9)},
        lambda numbers, m: sorted(numbers, key=lambda n: (n % m, -n)),
        lambda draw: (whole(draw, low=0),), (([],), ([9, 18, 27, 1, 10],)),
        (
            "return sorted(sorted(numbers, reverse=True), key=lambda n: n % $m)",
            "rows = [[] for _ in range($m)]\nfor n in numbers:\n    rows[n % $m].append(n)\n"
            "return [n for row in rows for n in sorted(row)[::-1]]",
        ),
        (
            "return sorted(numbers, key=lambda n: (n % $m, n))",
            "return sorted(numbers, key=lambda n: n % $m, reverse=True)",
        ),
    ),
    Template(
        "merging sorted lists", "merged_once(a, b)",
        "Merge two sorted lists of numbers into one sorted list in which no number stands twice.",
        {}, lambda a, b: sorted({*a, *b}),
        lambda draw: (sorted(whole(draw, 0, 6, 0, 12)), sorted(whole(draw, 0, 6, 0, 12))),
        (([], []), ([1, 1, 2], [2, 3]), ([5], [])),
        (
            "return sorted(set(a) | set(b))",
            "out, i, j = [], 0, 0\nwhile i < len(a) or j < len(b):\n"
            "    if j == len(b) or (i < len(a) and a[i] <= b[j]):\n        n, i = a[i], i + 1\n    else:\n"
            "        n, j = b[j], j + 1\n    if not out or out[-1] != n:\n        out.append(n)\nreturn out",
        ),
        (
            "return sorted(a + b)",
            "out, i, j = [], 0, 0\nwhile i < len(a) and j < len(b):\n    if a[i] <= b[j]:\n"
            "        n, i = a[i], i + 1\n"
            "    else:\n        n, j = b[j], j + 1\n    if not out or out[-1] != n:\n        out.append(n)\n"
            "return out",
        ),
    ),
    Template(
        "binary search", "first_at_least(numbers)",
        "Given a sorted list of numbers, return the position of the first one that is at least $x, or the length of "
        "the list if there is none.",
        {"x": (3, 15)},
        lambda numbers, x: next((i for i, n in enumerate(numbers) if n >= x), len(numbers)),
        lambda draw: (sorted(whole(draw, 1, 9, 0, 20)),), (([],), ([1, 2],), ([99],), (list(range(20)),)),
        (
            "low, high = 0, len(numbers)\nwhile low < high:\n    middle = (low + high) // 2\n"
            "    if numbers[middle] < $x:\n        low = middle + 1\n    else:\n        high = middle\nreturn low",
            "from bisect import bisect_left\nreturn bisect_left(numbers, $x)",
        ),
        (
            "from bisect import bisect_right\nreturn bisect_right(numbers, $x)",
            "for i, n in enumerate(numbers):\n    if n >= $x:\n        return i\nreturn -1",
        ),
    ),
    Template(
        "sliding windows", "best_window(numbers)",
        "Return the largest sum of $k numbers that stand next to each other in a list, or None if it has fewer than "
        "$k.",
        {"k": (2, 4)},
        lambda numbers, k: max((sum(numbers[i : i + k]) for i in range(len(numbers) - k + 1)), default=None),
        lambda draw: (whole(draw, 4, 9),), (([],), ([1],), ([-5, -1, -2, -9, -3],)),
        (
            "if len(numbers) < $k:\n    return None\ntotal = best = sum(numbers[:$k])\n"
            "for i in range($k, len(numbers)):\n    total += numbers[i] - numbers[i - $k]\n"
            "    best = max(best, total)\nreturn best",
            "sums = [sum(numbers[i:i + $k]) for i in range(len(numbers) - $k + 1)]\n"
            "return max(sums) if sums else None",
        ),
        (
            "best = 0\nfor i in range(len(numbers) - $k + 1):\n    best = max(best, sum(numbers[i:i + $k]))\n"
            "return best",
            "if len(numbers) < $k:\n    return None\nreturn sum(sorted(numbers)[-$k:])",
            "return max(numbers) * $k if len(numbers) >= $k else None",
        ),
    ),
    Template(
        "rotating and transposing matrices", "turned(rows)",
        "Turn a matrix, given as a list of rows of equal length, $q times clockwise by a right angle.",
        {"q": (1, 3)}, _rotated, _matrix, (([[1]],), ([[1, 2], [3, 4]],), ([[1, 2, 3]],)),
        (
            "for _ in range($q):\n    rows = [list(row) for row in zip(*rows[::-1])]\nreturn rows",
            "for _ in range($q):\n    height, width = len(rows), len(rows[0])\n"
            "    rows = [[rows[height - 1 - i][j] for i in range(height)] for j in range(width)]\nreturn rows",
        ),
        (
            "for _ in range(4 - $q if $q != 2 else 1):\n    rows = [list(row) for row in zip(*rows[::-1])]\n"
            "return rows",
            "return [list(row) for row in zip(*rows)]",
        ),
    ),
    Template(
        "stacks and matching brackets", "is_balanced(text)",
        "Return whether the brackets (), [] and {} in a text of brackets are matched and properly nested.",
        {}, _balanced, _brackets, (("",), ("([)]",), ("((",), ("))((",), ("{[()]}",)),
        (
            "pairs, stack = {')': '(', ']': '[', '}': '{'}, []\nfor c in text:\n    if c in pairs:\n"
            "        if not stack or stack.pop() != pairs[c]:\n            return False\n    else:\n"
            "        stack.append(c)\nreturn not stack",
            "while True:\n    shorter = text.replace('()', '').replace('[]', '').replace('{}', '')\n"
            "    if shorter == text:\n        return text == ''\n    text = shorter",
        ),
        (
            "return all(text.count(a) == text.count(b) for a, b in ('()', '[]', '{}'))",
            "pairs, stack = {')': '(', ']': '[', '}': '{'}, []\nfor c in text:\n    if c in pairs:\n"
            "        if not stack or stack.pop() != pairs[c]:\n            return False\n    else:\n"
            "        stack.append(c)\nreturn True",
        ),
    ),
    Template(
        "heaps and the largest elements", "largest(numbers)",
        "Return the $k largest numbers of a list, from the largest to the smallest; all of them if there are fewer.",
        {"k": (2, 5)}, lambda numbers, k: sorted(numbers, reverse=True)[:k],
        lambda draw: (whole(draw, 3, 9),), (([],), ([4, 4, 4, 1, 9, 9],)),
        (
            "import heapq\nreturn heapq.nlargest($k, numbers)",
            "left, out = list(numbers), []\nwhile left and len(out) < $k:\n    out.append(max(left))\n"
            "    left.remove(out[-1])\nreturn out",
        ),
        (
            "return sorted(numbers)[-$k:]",
            "return sorted(set(numbers), reverse=True)[:$k]",
        ),
    ),
    Template(
        "grouping with maps", "group_by_length(words)",
        "Return a dictionary from the length of words to the list of the words of that length, in their order; words "
        "shorter than $n are left out.",
        {"n": (2, 4)},
        lambda words, n: {
            size: [w for w in words if len(w) == size]
            for size in dict.fromkeys(len(w) for w in words if len(w) >= n)
        },
        lambda draw: (_sentence(draw).split(),), (([],), (["a", "of", "the", "tent", "it", "these"],)),
        (
            "out = {}\nfor w in words:\n    if len(w) >= $n:\n        out.setdefault(len(w), []).append(w)\n"
            "return out",
            "sizes = {len(w) for w in words if len(w) >= $n}\n"
            "return {size: [w for w in words if len(w) == size] for size in sizes}",
        ),
        (
            "out = {}\nfor w in words:\n    out.setdefault(len(w), []).append(w)\nreturn out",
            "return {len(w): [w] for w in words if len(w) >= $n}",
        ),
    ),
)  # fmt: skip
