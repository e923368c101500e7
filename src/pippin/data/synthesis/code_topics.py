"""The programming topics that questions are made from: 71, as many as the report's (afm 5.10); the list is ours."""

from __future__ import annotations

TOPICS: tuple[str, ...] = (
    "splitting and joining text", "palindromes", "anagrams", "counting characters and words", "wrapping text",
    "numbers within text", "regular expressions", "run-length encoding", "simple ciphers", "edit distance",
    "prefix sums", "sorting by a key", "merging sorted lists", "binary search", "two pointers", "sliding windows",
    "rotating and transposing matrices", "matrix arithmetic", "walking over grids", "flood fill",
    "stacks and matching brackets", "queues", "linked lists", "heaps and the largest elements", "grouping with maps",
    "set operations", "walks through binary trees", "binary search trees", "tries", "breadth-first search",
    "depth-first search", "topological order", "connected components", "weighted shortest paths",
    "minimum spanning trees", "dynamic programming on sequences", "coin change and knapsacks", "greedy scheduling",
    "merging intervals", "backtracking over subsets", "recursion", "memoisation", "divide and conquer",
    "bit manipulation", "number bases", "prime numbers", "greatest common divisors", "modular arithmetic",
    "counting arrangements", "fractions", "rounding and sums of money", "means and medians", "probability",
    "plane geometry", "dates and calendars", "clock times and durations", "Roman numerals",
    "iterators and generators", "higher-order functions", "state machines", "cellular automata",
    "evaluating expressions", "splitting text into tokens", "records in tables", "nested data", "reading logs",
    "check digits and validation", "caches", "rate limits and time windows", "pseudo-random numbers",
    "comparing versions",
)  # fmt: skip
