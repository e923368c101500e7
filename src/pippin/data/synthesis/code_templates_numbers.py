"""Templates of programming problems: numbers, time, formats."""

from __future__ import annotations

import datetime
import math
from typing import Any

from pippin.data.synthesis.code_problems import Template
from pippin.data.synthesis.code_templates import whole
from pippin.data.world_words import Draw


def _in_base(n: int, b: int) -> str:
    return (_in_base(n // b, b) if n >= b else "") + "0123456789abcdef"[n % b]


def _roman(n: int) -> str:
    out = "I" * n
    for few, one in (("IIIII", "V"), ("VV", "X"), ("XXXXX", "L"), ("LL", "C"), ("CCCCC", "D"), ("DD", "M")):
        out = out.replace(few, one)
    for long, short in (
        ("DCCCC", "CM"),
        ("CCCC", "CD"),
        ("LXXXX", "XC"),
        ("XXXX", "XL"),
        ("VIIII", "IX"),
        ("IIII", "IV"),
    ):
        out = out.replace(long, short)
    return out


def _postfix(draw: Draw) -> tuple[str]:
    def part(depth: int) -> str:
        if depth == 0 or draw.below(4) == 0:
            return str(1 + draw.below(12))
        return f"{part(depth - 1)} {part(depth - 1)} {draw.pick('+-*')}"

    return (part(3),)


def _from_the_left(text: str) -> int:
    """By putting the value of the first sign and its two numbers in their place."""
    words = text.split()
    while len(words) > 1:
        at = next(i for i, word in enumerate(words) if word in "+-*")
        a, b = int(words[at - 2]), int(words[at - 1])
        words[at - 2 : at + 1] = [str({"+": a + b, "-": a - b, "*": a * b}[words[at]])]
    return int(words[0])


def _nested(draw: Draw, depth: int = 2) -> dict[str, Any]:
    return {
        key: _nested(draw, depth - 1) if depth and draw.below(2) else draw.below(30)
        for key in draw.some(("a", "b", "size", "x"), 1 + draw.below(3))
    }


def _flat(data: dict[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in data.items():
        out |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return out


def _version(draw: Draw) -> str:
    return ".".join(str(draw.below(13)) for _ in range(1 + draw.below(3)))


def _later(a: str, b: str) -> int:
    left, right = ([*map(int, text.split(".")), 0, 0, 0][:3] for text in (a, b))
    return (left > right) - (left < right)


NUMBERS: tuple[Template, ...] = (
    Template(
        "bit manipulation", "set_bits_between(low, high)",
        "Return how many ones there are in all in the binary forms of the whole numbers from low up to and with high "
        "that can be divided by $d.",
        {"d": (2, 5)},
        lambda low, high, d: sum(f"{n:b}".count("1") for n in range(low, high + 1) if n % d == 0),
        lambda draw: (low := draw.below(40), low + draw.below(40)), ((0, 0), (0, 30), (7, 8), (60, 60)),
        (
            "total = 0\nfor n in range(low, high + 1):\n    if n % $d == 0:\n        while n:\n"
            "            n &= n - 1\n"
            "            total += 1\nreturn total",
            "return sum(bin(n).count('1') for n in range(low, high + 1) if n % $d == 0)",
        ),
        (
            "return sum(bin(n).count('1') for n in range(low, high) if n % $d == 0)",
            "return sum(bin(n).count('1') for n in range(low, high + 1))",
            "return sum(n.bit_length() for n in range(low, high + 1) if n % $d == 0)",
        ),
    ),
    Template(
        "number bases", "in_base(number)",
        "Write a whole number that is not negative in base $b, with lower-case letters for digits above 9.",
        {"b": (3, 16)}, lambda number, b: _in_base(number, b), lambda draw: (draw.below(5_000),),
        ((0,), (1,), (255,), (4096,)),
        (
            "digits = ''\nwhile True:\n    number, digit = divmod(number, $b)\n"
            "    digits = '0123456789abcdef'[digit] + digits\n    if number == 0:\n        return digits",
            "def write(n):\n    return (write(n // $b) if n >= $b else '') + '0123456789abcdef'[n % $b]\n"
            "return write(number)",
        ),
        (
            "digits = ''\nwhile number:\n    number, digit = divmod(number, $b)\n"
            "    digits = '0123456789abcdef'[digit] + digits\nreturn digits",
            "digits = ''\nwhile True:\n    number, digit = divmod(number, $b)\n"
            "    digits += '0123456789abcdef'[digit]\n    if number == 0:\n        return digits",
        ),
    ),
    Template(
        "prime numbers", "primes_with_remainder_one(limit)",
        "Return the prime numbers below a limit that leave the remainder 1 on division by $d, in order.",
        {"d": (3, 6)},
        lambda limit, d: [n for n in range(2, limit) if n % d == 1 and all(n % m for m in range(2, math.isqrt(n) + 1))],
        lambda draw: (20 + draw.below(120),), ((0,), (2,), (13,), (31,), (150,)),
        (
            "return [n for n in range(2, limit) if n % $d == 1 and all(n % m for m in range(2, n))]",
            "sieve = [True] * max(limit, 2)\nfor n in range(2, limit):\n    if sieve[n]:\n"
            "        for m in range(n * n, limit, n):\n            sieve[m] = False\n"
            "return [n for n in range(2, limit) if sieve[n] and n % $d == 1]",
        ),
        (
            "return [n for n in range(2, limit) if n % $d == 1 and n % 2 and n % 3 and n % 5]",
            "return [n for n in range(2, limit) if n % $d == 1 and all(n % m for m in range(2, int(n ** 0.5)))]",
            "return [n for n in range(2, limit + 1) if n % $d == 1 and all(n % m for m in range(2, n))]",
        ),
    ),
    Template(
        "greatest common divisors", "common_divisor(numbers)",
        "Return the greatest whole number that divides all numbers of a list without remainder; leave out numbers "
        "below $n. Return 0 if none is left.",
        {"n": (2, 5)},
        lambda numbers, n: max(
            (d for d in range(1, 400) if kept and all(m % d == 0 for m in kept)), default=0
        ) if (kept := [m for m in numbers if m >= n]) else 0,
        lambda draw: ((k := 1 + draw.below(6)) and [k * (1 + draw.below(9)) for _ in range(1 + draw.below(4))],),
        (([],), ([1],), ([12, 18, 30],), ([7, 1],), ([9],)),
        (
            "from math import gcd\nout = 0\nfor n in numbers:\n    if n >= $n:\n        out = gcd(out, n)\n"
            "return out",
            "kept = [n for n in numbers if n >= $n]\nif not kept:\n    return 0\n"
            "return max(d for d in range(1, min(kept) + 1) if all(n % d == 0 for n in kept))",
        ),
        (
            "kept = [n for n in numbers if n >= $n]\nreturn min(kept) if kept else 0",
            "from math import gcd\nout = 0\nfor n in numbers:\n    out = gcd(out, n)\nreturn out",
        ),
    ),
    Template(
        "counting arrangements", "ways_up(steps)",
        "Return in how many orders somebody can climb so many steps, taking 1 or $k of them at a time.",
        {"k": (2, 4)},
        lambda steps, k: sum(math.comb(steps - k * j + j, j) for j in range(steps // k + 1)),
        lambda draw: (draw.below(20),), ((0,), (1,), (7,), (12,)),
        (
            "ways = [1]\nfor n in range(1, steps + 1):\n"
            "    ways.append(ways[n - 1] + (ways[n - $k] if n >= $k else 0))\n"
            "return ways[steps]",
            "from functools import lru_cache\n@lru_cache(None)\ndef ways(n):\n"
            "    return 0 if n < 0 else 1 if n == 0 else ways(n - 1) + ways(n - $k)\nreturn ways(steps)",
        ),
        ("return steps // $k + 1", "a, b = 1, 1\nfor _ in range(steps):\n    a, b = b, a + b * $k\nreturn a"),
    ),
    Template(
        "rounding and sums of money", "shares(cents)",
        "Split an amount in cents among $n people as evenly as possible and return the list of the shares; the first "
        "people get a cent more where it does not come out even.",
        {"n": (3, 7)}, lambda cents, n: [cents // n + (i < cents % n) for i in range(n)],
        lambda draw: (draw.below(3_000),), ((0,), (1,), (100,), (1_003,), (1_004,)),
        (
            "each, rest = divmod(cents, $n)\nreturn [each + 1] * rest + [each] * ($n - rest)",
            "out = [0] * $n\nfor i in range(cents):\n    out[i % $n] += 1\nreturn out",
        ),
        (
            "each, rest = divmod(cents, $n)\nreturn [each + rest] + [each] * ($n - 1)",
            "return [round(cents / $n)] * $n",
            "each, rest = divmod(cents, $n)\nreturn [each] * ($n - rest) + [each + 1] * rest",
        ),
    ),
    Template(
        "means and medians", "trimmed_median(numbers)",
        "Return the median of the numbers of a list that lie from -$r to $r, as a float: the middle one in order, or "
        "the mean of the two middle ones. Return None if there is none.",
        {"r": (15, 30)},
        lambda numbers, r: (kept[(len(kept) - 1) // 2] + kept[len(kept) // 2]) / 2 if (
            kept := sorted(n for n in numbers if abs(n) <= r)) else None,
        lambda draw: (whole(draw, 1, 8),),
        (([],), ([3, 1, 2],), ([4, 1, 3, 2],), ([1, 2, 9],), ([-14, 90, 5],), ([99, -99, -31],)),
        (
            "from statistics import median\nkept = [n for n in numbers if -$r <= n <= $r]\n"
            "return float(median(kept)) if kept else None",
            "kept = sorted(n for n in numbers if -$r <= n <= $r)\nif not kept:\n    return None\nm = len(kept) // 2\n"
            "return kept[m] * 1.0 if len(kept) % 2 else (kept[m - 1] + kept[m]) / 2",
        ),
        (
            "kept = sorted(n for n in numbers if -$r <= n <= $r)\n"
            "return float(kept[len(kept) // 2]) if kept else None",
            "kept = [n for n in numbers if -$r <= n <= $r]\nreturn sum(kept) / len(kept) if kept else None",
            "kept = [n for n in numbers if n <= $r]\nm = len(kept) // 2\n"
            "return None if not kept else kept[m] * 1.0 if len(kept) % 2 else (kept[m - 1] + kept[m]) / 2",
        ),
    ),
    Template(
        "dates and calendars", "day_of_year(year, month, day)",
        "Return which day of its year a date of the Gregorian calendar is; 1 January is day 1.",
        {}, lambda year, month, day: datetime.date(year, month, day).timetuple().tm_yday,
        lambda draw: (1890 + draw.below(220), 1 + draw.below(12), 1 + draw.below(28)),
        ((2000, 3, 1), (1900, 3, 1), (2024, 12, 31), (2023, 1, 1), (2024, 2, 29)),
        (
            "days = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]\n"
            "if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):\n    days[1] = 29\n"
            "return sum(days[:month - 1]) + day",
            "from datetime import date\nreturn (date(year, month, day) - date(year, 1, 1)).days + 1",
        ),
        (
            "days = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]\nif year % 4 == 0:\n    days[1] = 29\n"
            "return sum(days[:month - 1]) + day",
            "return 30 * (month - 1) + day",
            "from datetime import date\nreturn (date(year, month, day) - date(year, 1, 1)).days",
        ),
    ),
    Template(
        "Roman numerals", "to_roman(number)",
        "Write a whole number from 1 to 3999 in Roman numerals.",
        {}, _roman, lambda draw: (1 + draw.below(3_999),), ((4,), (9,), (44,), (1994,), (3888,)),
        (
            "out = ''\nfor value, letters in ((1000, 'M'), (900, 'CM'), (500, 'D'), (400, 'CD'), (100, 'C'), (90, "
            "'XC'),\n"
            "                       (50, 'L'), (40, 'XL'), (10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')):\n"
            "    out += letters * (number // value)\n    number %= value\nreturn out",
            "def digit(n, one, five, ten):\n    return ['', one, one * 2, one * 3, one + five, five, five + one,\n"
            "            five + one * 2, five + one * 3, one + ten][n]\n"
            "return ('M' * (number // 1000) + digit(number // 100 % 10, 'C', 'D', 'M')\n"
            "        + digit(number // 10 % 10, 'X', 'L', 'C') + digit(number % 10, 'I', 'V', 'X'))",
        ),
        (
            "out = ''\nfor value, letter in ((1000, 'M'), (500, 'D'), (100, 'C'), (50, 'L'), (10, 'X'), (5, 'V'), "
            "(1, 'I')):\n"
            "    out += letter * (number // value)\n    number %= value\nreturn out",
            "out = ''\nfor value, letters in ((1000, 'M'), (500, 'D'), (100, 'C'), (50, 'L'), (10, 'X'), (9, 'IX'),\n"
            "                       (5, 'V'), (4, 'IV'), (1, 'I')):\n"
            "    out += letters * (number // value)\n    number %= value\nreturn out",
        ),
    ),
    Template(
        "evaluating expressions", "postfix_value(text)",
        "Return the value of an expression in postfix notation: whole numbers and the signs + - *, separated by "
        "spaces, each sign after its two operands.",
        {}, _from_the_left, _postfix, (("7",), ("8 3 -",), ("2 3 4 * +",), ("1 2 - 3 -",)),
        (
            "stack = []\nfor word in text.split():\n    if word in ('+', '-', '*'):\n"
            "        b, a = stack.pop(), stack.pop()\n"
            "        stack.append(a + b if word == '+' else a - b if word == '-' else a * b)\n    else:\n"
            "        stack.append(int(word))\nreturn stack[0]",
            "words = text.split()\ndef value():\n    word = words.pop()\n    if word not in '+-*':\n"
            "        return int(word)\n"
            "    b = value()\n    a = value()\n    return {'+': a + b, '-': a - b, '*': a * b}[word]\nreturn value()",
        ),
        (
            "stack = []\nfor word in text.split():\n    if word in ('+', '-', '*'):\n"
            "        a, b = stack.pop(), stack.pop()\n"
            "        stack.append(a + b if word == '+' else a - b if word == '-' else a * b)\n    else:\n"
            "        stack.append(int(word))\nreturn stack[0]",
            "return sum(int(word) for word in text.split() if word not in '+-*')",
        ),
    ),
    Template(
        "nested data", "flattened(data)",
        "A dictionary has texts as keys; its values are numbers or such dictionaries. Return one dictionary of all "
        "numbers, with the keys on the way to each joined by a full stop.",
        {}, _flat, lambda draw: (_nested(draw),),
        (({},), ({"a": {"b": {"c": 1}}, "d": 2},), ({"a": {"b": 1, "c": 2}},)),
        (
            "out = {}\nfor key, value in data.items():\n    if isinstance(value, dict):\n"
            "        for rest, number in flattened(value).items():\n            out[key + '.' + rest] = number\n"
            "    else:\n        out[key] = value\nreturn out",
            "out, waiting = {}, [('', data)]\nwhile waiting:\n    before, part = waiting.pop()\n"
            "    for key, value in part.items():\n        if isinstance(value, dict):\n"
            "            waiting.append((before + key + '.', value))\n        else:\n"
            "            out[before + key] = value\n"
            "return out",
        ),
        (
            "out = {}\nfor key, value in data.items():\n    if isinstance(value, dict):\n"
            "        out |= flattened(value)\n"
            "    else:\n        out[key] = value\nreturn out",
            "out = {}\nfor key, value in data.items():\n    if isinstance(value, dict):\n"
            "        for rest, number in value.items():\n            out[key + '.' + rest] = number\n"
            "    else:\n        out[key] = value\nreturn out",
        ),
    ),
    Template(
        "check digits and validation", "check_digit(digits)",
        "Multiply the digits of a text from the right by 2, 3, 4 and so on, add up the products, and return the "
        "remainder of the sum on division by $m.",
        {"m": (7, 11)},
        lambda digits, m: sum(i * int(c) for i, c in enumerate(reversed(digits), 2)) % m,
        lambda draw: ("".join(draw.pick("0123456789") for _ in range(1 + draw.below(10))),),
        (("",), ("1",), ("79927398",)),
        (
            "total, factor = 0, 2\nfor c in digits[::-1]:\n    total += factor * int(c)\n    factor += 1\n"
            "return total % $m",
            "n = len(digits)\nreturn sum((n + 1 - i) * int(c) for i, c in enumerate(digits)) % $m",
        ),
        (
            "return sum(i * int(c) for i, c in enumerate(digits, 2)) % $m",
            "return sum(i * int(c) for i, c in enumerate(digits[::-1], 1)) % $m",
            "return sum(i * int(c) for i, c in enumerate(digits[::-1], 2))",
        ),
    ),
    Template(
        "comparing versions", "compare_versions(a, b)",
        "Versions are texts of up to three whole numbers joined by full stops; numbers that are missing at the end "
        "are 0. Return 1 if the first is later, -1 if the second is, else 0.",
        {}, _later, lambda draw: (_version(draw), _version(draw)),
        (("1.10", "1.9"), ("1", "1.0.0"), ("2", "10.1"), ("1.0.1", "1")),
        (
            "x, y = ([int(n) for n in v.split('.')] for v in (a, b))\nx += [0] * (3 - len(x))\n"
            "y += [0] * (3 - len(y))\n"
            "return (x > y) - (x < y)",
            "def number(v):\n    parts = (v + '.0.0').split('.')[:3]\n"
            "    return int(parts[0]) * 10**12 + int(parts[1]) * 10**6 + int(parts[2])\n"
            "return (number(a) > number(b)) - (number(a) < number(b))",
        ),
        (
            "return (a > b) - (a < b)",
            "x, y = ([int(n) for n in v.split('.')] for v in (a, b))\nreturn (x > y) - (x < y)",
        ),
    ),
)  # fmt: skip
