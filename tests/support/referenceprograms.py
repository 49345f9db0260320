"""Programs as people and models write them: each is a few cells, and says its result."""

# ruff: noqa: E501  # cells are not broken where their text is not
from __future__ import annotations

PROGRAMS: dict[str, tuple[str, ...]] = {
    "sorting": (
        "def merge_sort(items):\n    if len(items) < 2: return items\n"
        "    middle = len(items) // 2\n    left, right = map(merge_sort, (items[:middle], items[middle:]))\n"
        "    out = []\n    while left and right: out.append((left if left[0] <= right[0] else right).pop(0))\n"
        "    return out + left + right",
        "merge_sort([5, 2, 9, 1, 5, 6])",
    ),
    "primes": (
        "def primes(n):\n    return [p for p in range(2, n) if all(p % d for d in range(2, int(p**.5) + 1))]",
        "print(*primes(40))",
        "assert primes(3) == [2]",
    ),
    "parentheses": (
        "def balanced(text):\n    depth = 0\n    for c in text:\n        depth += (c == '(') - (c == ')')\n        if depth < 0: return False\n    return depth == 0",
        "balanced('(())'), balanced('())(')",
    ),
    "failing check": (
        "def add(a, b): return a - b",
        "def check(candidate):\n    assert candidate(2, 3) == 5, 'two and three'",
        "check(add)",
    ),
    "fibonacci": (
        "from functools import lru_cache\n@lru_cache\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
        "[fib(n) for n in range(15)]",
        "fib.cache_info().currsize",
    ),
    "word count": (
        "from collections import Counter\ntext = 'the cat and the dog and the bird'",
        "Counter(text.split()).most_common(2)",
    ),
    "csv": (
        "import csv, io\nrows = list(csv.DictReader(io.StringIO('a,b\\n1,2\\n3,4\\n')))",
        "sum(int(row['b']) for row in rows)",
        "rows",
    ),
    "json file": (
        "import json, pathlib\npathlib.Path('data.json').write_text(json.dumps({'n': [1, 2]}))",
        "json.loads(open('data.json').read())['n'][-1]",
    ),
    "sqlite": (
        "import sqlite3\ndb = sqlite3.connect(':memory:')\ndb.execute('create table t (n)')\ndb.executemany('insert into t values (?)', [(n,) for n in range(5)]);",
        "db.execute('select sum(n) from t').fetchone()",
    ),
    "dataclass": (
        "from dataclasses import dataclass, field\n@dataclass(order=True)\nclass Point:\n    x: int\n    y: int = 0\n    tags: list = field(default_factory=list)",
        "sorted([Point(2), Point(1, 5)])",
    ),
    "generator": (
        "def chunks(items, n):\n    for i in range(0, len(items), n): yield items[i:i + n]",
        "list(chunks('abcdefg', 3))",
    ),
    "async workers": (
        "import asyncio\nasync def worker(queue, done):\n    while True:\n        n = await queue.get(); done.append(n * n); queue.task_done()",
        "queue, done = asyncio.Queue(), []\ntasks = [asyncio.create_task(worker(queue, done)) for _ in range(2)]\nfor n in range(4): queue.put_nowait(n)\nawait queue.join()\nfor t in tasks: t.cancel()\nsorted(done)",
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(3) as pool: print(list(pool.map(lambda n: n ** 2, range(5))))",
    ),
    "processes": (
        "from concurrent.futures import ProcessPoolExecutor\nimport multiprocessing as mp\nwith ProcessPoolExecutor(1, mp_context=mp.get_context('fork')) as pool: print(list(pool.map(abs, [-1, -2])))",
    ),
    "regular expressions": (
        "import re\nre.findall(r'(\\w+)@(\\w+)\\.org', 'a@b.org, c@d.org')",
        "re.sub(r'\\d', '#', 'a1b2')",
    ),
    "dates": (
        "from datetime import date, timedelta\n(date(2024, 2, 28) + timedelta(2)).isoformat()",
    ),
    "unit tests": (
        "import unittest, sys\nclass T(unittest.TestCase):\n    def test_good(self): self.assertEqual(1 + 1, 2)\n    def test_bad(self): self.assertEqual(1, 2)",
        "result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0).run(unittest.defaultTestLoader.loadTestsFromTestCase(T)); result.wasSuccessful()",
    ),
    "notebook with an error in the middle": (
        "total = 0",
        "for n in range(3): total += n\ntotal",
        "total.missing",
        "total + 1",
    ),
    "module written and used": (
        "%%writefile shapes.py\nimport math\ndef area(r): return round(math.pi * r * r, 2)",
        "from shapes import area\narea(2)",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import shapes; print(shapes.area(1))'], capture_output=True, text=True).stdout",
    ),
    "matrix": (
        "m = [[1, 2], [3, 4]]\nfrom itertools import product\n[[sum(m[i][k] * m[k][j] for k in range(2)) for j in range(2)] for i in range(2)]",
    ),
    "rich report": (
        "from IPython.display import display, HTML, Markdown\nfor n in range(2): display(Markdown(f'## Part {n}'))",
        "class Row:\n    def __init__(self, n): self.n = n\n    def _repr_html_(self): return f'<tr>{self.n}</tr>'\n    def __repr__(self): return f'Row({self.n})'\n[Row(1)], Row(2)",
        "Row(3)",
    ),
}
