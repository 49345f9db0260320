"""What both kernels are asked, in this order; later cells use what earlier ones made."""

# ruff: noqa: E501  # cells are not broken where their text is not

from __future__ import annotations

from typing import Any

from .reference import Case


def ask(name: str, request: str, channel: str = "shell", /, **content: Any) -> Case:
    """A request that is no cell."""
    return Case(name, request=request, content=content, channel=channel)


def cell(name: str, code: str, /, **options: Any) -> Case:
    """A cell; its lines may be indented as the test is."""
    return Case(name, code, **options)


DISPLAYS = (
    cell("value", "1 + 1"),
    cell("no value", "None"),
    cell("semicolon", "1 + 1;"),
    cell("print", "print('one', 'two', sep='\\n'); print('ünïcödé ✓', end='')"),
    cell("stderr", "import sys; print('to stderr', file=sys.stderr)"),
    cell("long value", "list(range(60)), {'key': 'value' * 20}"),
    cell("html", "from IPython.display import *\ndisplay(HTML('<b>bold</b>'))"),
    cell("several displays", "display('one', 2, [3])"),
    cell(
        "raw bundle with metadata",
        "display({'text/plain': 'p', 'application/json': {'a': [1]}}, raw=True,\n"
        "        metadata={'application/json': {'expanded': True}})",
    ),
    cell(
        "own representations",
        "class Rich:\n"
        "    def __repr__(self): return 'plain'\n"
        "    def _repr_html_(self): return '<i>rich</i>'\n"
        "    def _repr_markdown_(self): return '*rich*'\n"
        "    def _repr_latex_(self): return '$r$'\n"
        "    def _repr_svg_(self): return '<svg/>'\n"
        "    def _repr_json_(self): return {'r': 1}, {'expanded': True}\n"
        "    def _repr_png_(self): return b'\\x89PNG\\r\\n\\x1a\\nxyz'\n"
        "    def _repr_jpeg_(self): return b'\\xff\\xd8xyz', {'width': 3}\n"
        "    def _repr_javascript_(self): return 'rich()'\n"
        "Rich()",
    ),
    cell(
        "own mime bundle",
        "class Bundle:\n"
        "    def _repr_mimebundle_(self, include=None, exclude=None):\n"
        "        return {'text/plain': 'b', 'application/x+json': {'x': 1}}, {'m': 2}\n"
        "display(Bundle()); Bundle()",
    ),
    cell("representation that raises", "class Bad:\n    def __repr__(self): 1 / 0\nBad()"),
    cell(
        "rich representation that raises",
        "class HalfBad:\n    def _repr_html_(self): 1 / 0\n    def __repr__(self): return 'half'\n"
        "HalfBad()",
    ),
    cell(
        "classes of IPython.display",
        "display(Markdown('# M'), Latex('$x$'), SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'),\n"
        "        JSON({'a': 1}), Javascript('1'), Code('x = 1'), Pretty('p'), Math('x'),\n"
        "        Image(data=b'\\x89PNG\\r\\n\\x1a\\n', format='png', width=5), IFrame('u', 1, 2))",
    ),
    cell("display with an id", "handle = display('first', display_id='fixed'); handle"),
    cell(
        "update of a display",
        "handle.update('second'); update_display('third', display_id='fixed')",
    ),
    cell("display with an id of its own", "h = display('x', display_id=True); h.update('y')"),
    cell("handle that displays again", "handle.display('again')"),
    cell("clear_output", "print('gone'); clear_output(); print('kept')"),
    cell("clear_output that waits", "print('gone'); clear_output(wait=True); print('kept')"),
    cell(
        "publish_display_data",
        "from IPython.display import publish_display_data as publish\n"
        "publish({'text/plain': 'x'}, {'m': 1}, transient={'display_id': 'other'})\n"
        "publish({'text/plain': 'y'}, transient={'display_id': 'other'}, update=True)",
    ),
    cell("progress bar", "for _ in ProgressBar(2): pass"),
    cell("every expression", "%config InteractiveShell.ast_node_interactivity = 'all'"),
    cell("all values", "1\n2\nNone\n3"),
    cell("last expression", "%config InteractiveShell.ast_node_interactivity = 'last_expr'"),
    cell("bytes and sets", "b'\\x00\\xff', {3, 1, 2}, frozenset(), ..., 1e400, -0.0, 10**30"),
    cell("display between prints", "print('a'); display(1); print('b'); display(2); print('c')"),
)

COUNTING = (
    cell("counts", "_, __, Out[1], In[1], len(In) - get_ipython().execution_count"),
    cell("underscore by number", "_1 + 40"),
    cell("underscore of the user", "_ = 'mine'; _"),
    cell("underscore given back", "del _; 5"),
    cell("underscore again", "_ + 1"),
    cell("silent", "print('said'); display('shown'); 7", content={"silent": True}),
    cell("silent error", "1 / 0", content={"silent": True}),
    cell("not stored", "'not stored'", content={"store_history": False}),
    cell("after not stored", "_, In[-1]"),
    cell("empty", ""),
    cell("comment only", "# nothing"),
    cell(
        "user expressions",
        "value = {'k': [1, 2]}",
        content={"user_expressions": {"good": "value['k']", "bad": "1 / 0", "syntax": "1 +"}},
    ),
    cell(
        "user expressions of an error",
        "raise KeyError('gone')",
        content={"user_expressions": {"good": "value"}},
    ),
    cell("cell id", "1", metadata={"cellId": "cell-1", "deletedCells": []}),
    cell("two statements on a line", "a = 1; b = 2; a + b"),
    cell("quiet history", "len(Out), sorted(Out)[:3], get_ipython().user_ns is globals()"),
)

COMMS = (
    cell(
        "comm opened by a cell",
        "from comm import create_comm, get_comm_manager\n"
        "c = create_comm(target_name='t', comm_id='c-1', data={'n': 1}, metadata={'m': 1},\n"
        "                buffers=[b'\\x00\\x01', b''])",
    ),
    cell("comm message", "c.send({'n': 2}, metadata={'m': 2}, buffers=[memoryview(b'xyz')])"),
    cell(
        "comm handler",
        "@c.on_msg\n"
        "def heard(message):\n"
        "    content = message['content']\n"
        "    print('heard', content['data'], [bytes(b) for b in message['buffers']])\n"
        "    if content['data'].get('raise'): 1 / 0\n"
        "    c.send({'back': content['data']}, buffers=message['buffers'])\n"
        "@c.on_close\n"
        "def closed(message): print('closed', message['content']['comm_id'])",
    ),
    Case(
        "comm message from the front",
        request="comm_msg",
        content={"comm_id": "c-1", "data": {"x": [1, None]}},
        buffers=(b"\x01\x02", b""),
    ),
    Case(
        "comm handler that raises",
        request="comm_msg",
        content={"comm_id": "c-1", "data": {"raise": True}},
    ),
    ask("comm info", "comm_info_request"),
    ask("comm info of a target", "comm_info_request", target_name="t"),
    ask("comm info of another target", "comm_info_request", target_name="none"),
    ask("comm closed by the front", "comm_close", comm_id="c-1", data={}),
    ask("message to a comm that is closed", "comm_msg", comm_id="c-1", data={}),
    cell(
        "comm target",
        "def opened(comm, message):\n"
        "    print('opened', message['content']['data'])\n"
        "    comm.send({'hello': comm.comm_id})\n"
        "get_ipython().kernel.comm_manager.register_target('mine', opened)",
    ),
    ask("comm opened by the front", "comm_open", comm_id="f-1", target_name="mine", data={"a": 1}),
    ask("comm of no target", "comm_open", comm_id="f-2", target_name="nobody's", data={}),
    cell("comm closed by a cell", "get_comm_manager().get_comm('f-1').close({'bye': 1})"),
    cell(
        "comm of ipykernel", "from ipykernel.comm import Comm\nk = Comm(target_name='k'); k.close()"
    ),
    cell(
        "widget",
        "state = {'_model_name': 'IntSliderModel', '_model_module': '@jupyter-widgets/controls',\n"
        "         '_view_name': 'IntSliderView', 'value': 3, 'max': 10}\n"
        "widget = create_comm(target_name='jupyter.widget', comm_id='w-1',\n"
        "    data={'state': state, 'buffer_paths': []}, metadata={'version': '2.1.0'})\n"
        "@widget.on_msg\n"
        "def changed(message):\n"
        "    data = message['content']['data']\n"
        "    if data['method'] == 'update':\n"
        "        widget.send({'method': 'echo_update', 'state': data['state'], 'buffer_paths': []})\n"
        "        state.update(data['state']); print('value', state['value'])\n"
        "    else:\n"
        "        widget.send({'method': 'update', 'state': state, 'buffer_paths': []})\n"
        "view = {'version_major': 2, 'version_minor': 0, 'model_id': 'w-1'}\n"
        "display({'text/plain': 'IntSlider(value=3)',\n"
        "         'application/vnd.jupyter.widget-view+json': view}, raw=True)",
    ),
    Case(
        "widget moved by the front",
        request="comm_msg",
        content={
            "comm_id": "w-1",
            "data": {"method": "update", "state": {"value": 8}, "buffer_paths": []},
        },
    ),
    Case(
        "widget asked for its state",
        request="comm_msg",
        content={"comm_id": "w-1", "data": {"method": "request_state"}},
    ),
    cell("widget moved by a cell", "widget.send({'method': 'update', 'state': {'value': 9}})"),
    cell(
        "output captured by hooks",
        "caught = []\n"
        "def hook(message):\n"
        "    caught.append(message['content'].get('data')); return None\n"
        "get_ipython().display_pub.register_hook(hook)\n"
        "display('into the widget')\n"
        "get_ipython().display_pub.unregister_hook(hook)\n"
        "display('shown'); caught",
    ),
)

REQUESTS = (
    ask("complete a module", "complete_request", code="import colle", cursor_pos=12),
    ask("complete a method", "complete_request", code="'abc'.upp", cursor_pos=9),
    ask("complete in the middle", "complete_request", code="pri(1)", cursor_pos=3),
    ask("complete a variable", "complete_request", code="value['", cursor_pos=7),
    ask("complete a magic", "complete_request", code="%time", cursor_pos=5),
    ask("complete a file", "complete_request", code="open('/etc/hostn", cursor_pos=16),
    ask("complete an argument", "complete_request", code="print(en", cursor_pos=8),
    ask("complete nothing", "complete_request", code="zzzzzz", cursor_pos=6),
    ask("inspect a function", "inspect_request", code="len", cursor_pos=3, detail_level=0),
    ask("inspect a variable", "inspect_request", code="value", cursor_pos=5, detail_level=0),
    ask("inspect in a call", "inspect_request", code="print(1, ", cursor_pos=9, detail_level=0),
    ask("inspect with the source", "inspect_request", code="opened", cursor_pos=6, detail_level=1),
    ask("inspect a magic", "inspect_request", code="%pwd", cursor_pos=4, detail_level=0),
    ask("inspect nothing", "inspect_request", code="zzzz", cursor_pos=4, detail_level=0),
    ask("complete cell", "is_complete_request", code="x = 1"),
    ask("incomplete cell", "is_complete_request", code="for i in range(3):"),
    ask("invalid cell", "is_complete_request", code="x = = 1"),
    ask("incomplete magic", "is_complete_request", code="%%time\nx"),
    ask(
        "history of a range",
        *("history_request", "shell"),
        **{"hist_access_type": "range", "session": 0, "start": 1, "stop": 4},
        **{"raw": True, "output": False},
    ),
    ask(
        "history with outputs",
        *("history_request", "shell"),
        **{"hist_access_type": "range", "session": 0, "start": 1, "stop": 3},
        **{"raw": True, "output": True},
    ),
    ask(
        "history of the last",
        "history_request",
        hist_access_type="tail",
        n=2,
        raw=True,
        output=False,
    ),
    ask(
        "history by a pattern",
        *("history_request", "shell"),
        **{"hist_access_type": "search", "pattern": "*bold*", "n": 5, "raw": True},
        **{"output": False, "unique": False},
    ),
    ask("kernel info", "kernel_info_request"),
    ask("kernel info on control", "kernel_info_request", "control"),
    ask("connect", "connect_request"),
    Case("usage", request="usage_request", channel="control", is_measured=True),
    ask("debugger", "debug_request", "control", type="request", seq=1, command="debugInfo"),
)

MAGICS = (
    cell("%time", "%time sum(range(10))"),
    cell("%%time", "%%time\nx = 1\nx"),
    cell("%timeit", "%timeit -n 1 -r 1 -q pass"),
    cell("%%timeit", "%%timeit -n 1 -r 1\npass"),
    cell("%%writefile", "%%writefile module.py\nprint('module runs')\nx = 10\ndef f(): return x"),
    cell("%%writefile again", "%%writefile -a module.py\n# end"),
    cell("%run", "%run module.py\nx"),
    cell("%run -i with arguments", "%run -i module.py one two"),
    cell(
        "%%capture",
        "%%capture caught\nprint('out'); import sys; print('err', file=sys.stderr)\ndisplay(1)",
    ),
    cell("what was captured", "print(repr(caught.stdout), repr(caught.stderr)); caught.outputs[0]"),
    cell("show what was captured", "caught.show()"),
    cell("%env", "%env REFERENCE=set\nimport os; os.environ['REFERENCE']"),
    cell("%env of a name", "%env REFERENCE"),
    cell("%reset", "%reset -f"),
    cell("%who", "one = 1; text = 'two'\n%who"),
    cell("%whos", "%whos"),
    cell("%who_ls", "%who_ls int"),
    cell("%matplotlib inline", "%matplotlib inline"),
    cell("%load_ext", "%load_ext autoreload\n%autoreload 2\nimport module; module.f()"),
    cell(
        "%autoreload",
        "import os\nopen('module.py', 'w').write('def f(): return 20')\n"
        "os.utime('module.py', (9e8, 9e8))",
    ),
    cell("reloaded", "module.f()"),
    cell("%load_ext of nothing", "%load_ext no_such_extension"),
    cell("unknown magic", "%no_such_magic"),
    cell("unknown cell magic", "%%no_such_magic\n1"),
    cell("%debug", "%debug"),
    cell("%pdb", "%pdb\n%pdb off"),
    cell("%prun", "%prun -q -T prof.txt pass"),
    cell("%history", "%history -n 1-3"),
    cell("%pwd and %cd", "%cd -q ..\n%pwd"),
    cell("%cd back", "%cd -q -"),
    cell("%lsmagic", "'time' in str(%lsmagic)"),
    cell("%precision", "%precision 3\n3.14159265"),
    cell("%precision off", "%precision %r\n1.5"),
    cell("%xmode", "%xmode Minimal"),
    cell("%xmode minimal", "1 / 0"),
    cell("%xmode back", "%xmode Context"),
    cell("%alias", "%alias say echo said %s\n%say hello"),
    cell("%macro and %rerun", "%macro -q m 1\nm"),
    cell("%rerun", "%rerun 1"),
    cell("%%html", "%%html\n<b>b</b>"),
    cell("%%javascript", "%%javascript\n1"),
    cell("%%latex", "%%latex\n$x$"),
    cell("%%markdown", "%%markdown\n# m"),
    cell("%%svg", "%%svg\n<svg xmlns='http://www.w3.org/2000/svg'/>"),
    cell("%%bash", "%%bash\necho from bash; echo to stderr >&2"),
    cell("%%bash that fails", "%%bash\necho before; exit 3"),
    cell("%%bash into names", "%%bash --out o --err e\necho out; echo err >&2"),
    cell("names of %%bash", "o, e"),
    cell("%%script", "%%script python3\nprint('other python')"),
    cell("!command", "!echo shell; echo error >&2"),
    cell("!command that fails", "!exit 3\n_exit_code"),
    cell("!command with a name", "name = 'given'\n!echo {name} $name"),
    cell("value of a command", "lines = !printf 'a\\nb\\n'\nlines, lines.s"),
    cell("%sx", "%sx echo x"),
    cell("?", "len?"),
    cell("??", "module.f??"),
    cell("? of nothing", "zzzz?"),
    cell("?*", "str.is*?"),
    cell("%load", "%load module.py"),
    cell("%recall", "%recall 1"),
    cell("%less", "%less module.py"),
    cell("%pinfo of a magic", "%time?"),
    cell("%connect_info", "%connect_info"),
    cell("set_next_input", "get_ipython().set_next_input('next = 1')"),
    cell(
        "payload of one's own",
        "get_ipython().payload_manager.write_payload({'source': 'own', 'a': 1})",
    ),
    cell("%gui of nothing", "%gui"),
    cell("%colors", "get_ipython().colors"),
    cell("%store", "%store"),
    cell("automagic", "pwd = 1\npwd"),
    cell("program by its name", "cat /etc/debian_version"),
)

ERRORS = (
    cell("error", "def inner(n):\n    return 1 / n\ndef outer():\n    return inner(0)\nouter()"),
    cell(
        "chained",
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('bad') from e",
    ),
    cell("while handling", "try:\n    {}['k']\nexcept KeyError:\n    undefined_name"),
    cell(
        "without its cause",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('b') from None",
    ),
    cell("syntax", "print('never')\nx = = 1"),
    cell("indentation", "if True:\npass"),
    cell("unfinished", "print((1, 2"),
    cell("syntax in a string", "eval('1 +')"),
    cell("nested syntax", "exec('def f(:\\n  pass')"),
    cell("KeyboardInterrupt raised", "raise KeyboardInterrupt"),
    cell("notes", "e = ValueError('v'); e.add_note('a note'); raise e"),
    cell("group", "raise ExceptionGroup('two', [ValueError('a'), TypeError('b')])"),
    cell("error without words", "raise ValueError"),
    cell("assertion", "assert 1 == 2, 'differ'"),
    cell("recursion", "def deep(n): return deep(n + 1)\ndeep(0)"),
    cell(
        "str that raises",
        "class E(Exception):\n    def __str__(self): raise OSError('inner')\nraise E",
    ),
    cell("error in a module", "import json; json.loads('{')"),
    cell("error in a lambda", "(lambda: [][0])()"),
    cell("error in __del__", "class D:\n    def __del__(self): 1 / 0\nd = D()\ndel d"),
    cell("what %tb says", "%tb"),
    cell("sys.last_value", "import sys, traceback\ntype(sys.last_value).__name__"),
    cell("traceback.print_exc", "try: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()"),
    cell(
        "custom handler",
        "def handle(self, kind, value, tb, tb_offset=None):\n"
        "    print('handled', kind.__name__); return None\n"
        "get_ipython().set_custom_exc((LookupError,), handle)\n"
        "{}['k']",
    ),
    cell("custom handler taken off", "get_ipython().set_custom_exc((), None)\n{}['k']"),
    cell("error between prints", "print('a'); import sys; print('b', file=sys.stderr); 1 / 0"),
    cell(
        "error of queued cells",
        "import time; time.sleep(0.5); 1 / 0",
        queued=("'never'", "'nor this'"),
    ),
    cell("after queued cells", "'runs'"),
    cell(
        "error that does not stop",
        "import time; time.sleep(0.5); 1 / 0",
        content={"stop_on_error": False},
        queued=("'runs'",),
    ),
    cell("showtraceback", "try: 1 / 0\nexcept Exception: get_ipython().showtraceback()\n'on'"),
    cell("warning", "import warnings; warnings.warn('careful'); 'warned'"),
    cell("deprecation", "warnings.warn('old', DeprecationWarning)"),
    cell("syntax warning", "'\\d'"),
    cell("logging", "import logging\nlogging.warning('watch'); logging.info('quiet')"),
    cell(
        "logging set up",
        "logging.basicConfig(force=True, format='%(message)s', level=20)\nlogging.info('told')",
    ),
    cell("SystemExit raised within", "try: sys.exit(3)\nexcept SystemExit as e: print(e.code)"),
    cell("sys.exit", "sys.exit(3)"),
    cell("sys.exit of nothing", "sys.exit()"),
    cell("sys.exit of words", "sys.exit('the words')"),
    # Said by a thread, since whoever says it may still be saying it when the interrupt comes.
    cell(
        "interrupt",
        "import threading\nthreading.Timer(0.3, print, ('begun',)).start(); time.sleep(50)",
        interrupt_at="begun",
    ),
    cell("after the interrupt", "'goes on'"),
    cell(
        "interrupt that is caught",
        "try: threading.Timer(0.3, print, ('begun',)).start(); time.sleep(50)\nexcept KeyboardInterrupt: print('caught')",
        interrupt_at="begun",
    ),
)

ASYNC = (
    cell("await", "import asyncio\nawait asyncio.sleep(0, 'waited')"),
    cell("gather", "await asyncio.gather(*(asyncio.sleep(0, n) for n in range(3)))"),
    cell(
        "async for and with",
        "class A:\n"
        "    async def __aenter__(self): return self\n"
        "    async def __aexit__(self, *_): print('left')\n"
        "    async def __aiter__(self):\n"
        "        for n in range(2): yield n\n"
        "async with A() as a:\n"
        "    async for n in a: print(n)\n"
        "[n async for n in a]",
    ),
    cell(
        "task between cells",
        "async def tick():\n"
        "    for n in range(3):\n"
        "        await asyncio.sleep(0.01); ticks.append(n)\n"
        "    print('ticked'); done.set()\n"
        "ticks = []; done = asyncio.Event(); task = asyncio.create_task(tick()); ticks",
        until="ticked\n",
    ),
    cell("task after its cell", "await done.wait(); ticks, task.done()"),
    cell("error of await", "async def fails(): return 1 / 0\nawait fails()"),
    cell("loop of a cell", "asyncio.get_running_loop() is asyncio.get_event_loop()"),
    cell("ensure_future", "f = asyncio.ensure_future(asyncio.sleep(0, 5)); type(f).__name__"),
    cell("await it", "await f"),
    cell("call_soon", "asyncio.get_event_loop().call_soon(print, 'soon')", until="soon\n"),
    cell("asyncio.run", "asyncio.run(asyncio.sleep(0, 1))"),
    cell("run_until_complete", "asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, 2))"),
    cell("executor", "await asyncio.get_running_loop().run_in_executor(None, lambda: 6)"),
    cell("timeout", "async with asyncio.timeout(0.01): await asyncio.sleep(5)"),
    cell(
        "task group",
        "async with asyncio.TaskGroup() as g: t = g.create_task(asyncio.sleep(0, 3))\nt.result()",
    ),
    cell(
        "task that fails alone",
        "t = asyncio.create_task(fails())\nawait asyncio.sleep(0); t.exception()",
    ),
    cell("await in a magic", "%time await asyncio.sleep(0, 'timed')"),
    cell("autoawait", "%autoawait"),
    cell("io_loop", "get_ipython().kernel.io_loop.add_callback(print, 'called')", until="called\n"),
)

STREAMS = (
    cell(
        "order", "print('1')\nprint('2', file=sys.stderr)\nprint('3')\nprint('4', file=sys.stderr)"
    ),
    cell(
        "order with flush",
        "for n in range(4): print(n, file=(sys.stdout, sys.stderr)[n % 2], flush=True)",
    ),
    cell("no line end", "print('no', end=''); print(' end', end='')"),
    cell("carriage return", "print('10%\\r20%\\r30%')"),
    cell("large", "print('x' * 300_000)"),
    cell(
        "os.write",
        "import os; print('before', flush=True); os.write(1, b'descriptor\\n');",
        until="descriptor\n",
    ),
    cell("os.write to stderr", "os.write(2, b'descriptor\\n');", until="descriptor\n"),
    cell(
        "printf",
        "import ctypes; libc = ctypes.CDLL(None)\nlibc.printf(b'from C\\n'); libc.fflush(None);",
        until="from C\n",
    ),
    cell(
        "subprocess",
        "import subprocess\nsubprocess.run(['echo', 'child']).returncode",
        until="child\n",
    ),
    cell("os.system", "os.system('echo system; echo error >&2')", until="error\n"),
    cell(
        "order with a child", "print('a')\nsubprocess.run(['echo', 'b'])\nprint('c')", until="b\n"
    ),
    cell(
        "captured child",
        "subprocess.run(['cat'], input='piped', capture_output=True, text=True).stdout",
    ),
    cell("child's keyboard", "subprocess.run(['cat']).returncode"),
    cell(
        "fork",
        "pid = os.fork()\nif not pid: print('forked', flush=True); os._exit(0)\nos.waitpid(pid, 0)[1]",
        until="forked\n",
    ),
    cell(
        "pool",
        "import multiprocessing as mp\ndef work(n): print('in', n, flush=True); return n * n\n"
        "with mp.get_context('fork').Pool(1) as pool: squares = pool.map(work, [1, 2])\nsquares",
        until="in 2\n",
    ),
    cell(
        "thread",
        "import threading\nt = threading.Thread(target=print, args=('thread',)); t.start(); t.join()",
    ),
    cell(
        "thread after its cell",
        "go = threading.Event()\ndef late(): go.wait(); print('late')\n"
        "t = threading.Thread(target=late); t.start()",
    ),
    cell("while a thread speaks", "print('own'); go.set(); t.join(); print('own again')"),
    cell("thread that raises", "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"),
    cell(
        "encoding and line_buffering",
        "sys.stdout.encoding, sys.stdout.isatty(), sys.stdout.write('w')",
    ),
    cell("buffer", "sys.stdout.buffer.write(b'bytes\\n'); sys.stdout.flush()", until="bytes\n"),
    cell("reconfigure", "sys.stdout.reconfigure(line_buffering=True)"),
    cell("fileno", "os.write(sys.stdout.fileno(), b'by number\\n');", until="by number\n"),
    cell(
        "sys.__stdout__", "print('original', file=sys.__stdout__, flush=True)", until="original\n"
    ),
    cell("writelines", "sys.stdout.writelines(['a', 'b\\n'])"),
    cell("not text", "sys.stdout.write(b'bytes')"),
    cell(
        "redirected",
        "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as s: print('in')\ns.getvalue()",
    ),
    cell("surrogate", "print('a\\ud800b')"),
    cell("closed", "sys.stderr.closed, sys.stdin.closed"),
    cell("input refused", "input('name? ')"),
    cell("getpass refused", "import getpass; getpass.getpass()"),
    cell("input", "print('hello', input('name? '))", answer="Ada"),
    cell("getpass", "len(getpass.getpass('secret: '))", answer="secret"),
    cell("stdin", "sys.stdin.read()"),
    cell("breakpoint", "breakpoint()"),
)

KERNEL = (
    cell(
        "kernel",
        "from ipykernel.ipkernel import IPythonKernel\nip = get_ipython(); kernel = ip.kernel\n"
        "isinstance(kernel, IPythonKernel), kernel.shell is ip, type(ip).__name__",
    ),
    cell(
        "parent",
        "kernel.get_parent()['header']['msg_type'], ip.parent_header['header']['msg_type']",
    ),
    cell("parent's content", "ip.get_parent()['content']['code'][:5], sorted(kernel.get_parent())"),
    cell("session", "type(kernel.session).__name__, len(kernel.session.session) > 30"),
    cell(
        "send_response",
        "kernel.send_response(kernel.iopub_socket, 'display_data',\n"
        "    {'data': {'text/plain': 'sent'}, 'metadata': {}, 'transient': {}})",
    ),
    cell(
        "session.send",
        "kernel.session.send(kernel.iopub_socket, 'stream', {'name': 'stdout', 'text': 'sent'},\n"
        "    parent=kernel.get_parent(), ident=kernel.topic('stream') if hasattr(kernel, 'topic') else None);",
    ),
    cell(
        "about",
        "kernel.implementation, kernel.language_info['name'], kernel.execution_count == ip.execution_count",
    ),
    cell("user_ns", "kernel.user_ns is ip.user_ns, kernel.user_module is ip.user_module, __name__"),
    cell("in IPython", "ip.has_trait('kernel'), ip.banner1 != '', ip.ipython_dir != ''"),
    cell(
        "application",
        "from ipykernel.kernelapp import IPKernelApp\nIPKernelApp.initialized(), IPKernelApp.instance().kernel is kernel",
    ),
    cell("in a notebook", "'IPKernelApp' in ip.config, type(ip).__module__"),
    cell(
        "connection file",
        "from ipykernel.connect import get_connection_file\nget_connection_file()",
    ),
    cell(
        "comm manager", "type(kernel.comm_manager).__name__, kernel.comm_manager.kernel is kernel"
    ),
    cell(
        "comm manager is one",
        "from comm import get_comm_manager\nget_comm_manager() is kernel.comm_manager",
    ),
    cell(
        "display publisher",
        "type(ip.display_pub).__name__, type(ip.displayhook).__name__, ip.display_pub.session is kernel.session",
    ),
    cell("log", "kernel.log.warning('logged')"),
    cell(
        "do_execute is there",
        "[hasattr(kernel, n) for n in ('do_execute', 'do_complete', 'do_shutdown', 'do_is_complete')]",
    ),
    cell("handlers", "sorted(kernel.shell_handlers), sorted(kernel.control_handlers)"),
    cell(
        "__main__",
        "import __main__\n__main__.__dict__ is globals(), __main__.__name__, '__file__' in globals()",
    ),
    cell("argv", "len(sys.argv) > 0, sys.flags.isolated, sys.path[0]"),
    cell("names of the start", "sorted(n for n in globals() if n.startswith('__'))"),
    cell(
        "builtins",
        "display is __builtins__.display, __IPYTHON__, get_ipython() is ip, 'exit' in dir(__builtins__)",
    ),
    cell("exit is", "type(exit).__name__, exit"),
    cell(
        "pickle of the user's class",
        "import pickle\nclass P: x = 1\npickle.loads(pickle.dumps(P())).x",
    ),
    cell(
        "inspect.getsource",
        "import inspect\ndef made():\n    return 5\nprint(inspect.getsource(made))",
    ),
    cell("__file__ of a cell", "made.__code__.co_filename"),
    cell(
        "events",
        "def before(): print('before')\ndef after(result): print('after', result.result)\n"
        "ip.events.register('pre_run_cell', lambda info: before())\nip.events.register('post_run_cell', after)",
    ),
    cell("events happen", "'seen'"),
    cell(
        "events taken off",
        "ip.events.unregister('post_run_cell', after)\nip.events.callbacks['pre_run_cell'].pop();",
    ),
    cell(
        "input transformer",
        "def shout(lines): return [l.replace('SHOUT', '1 +') for l in lines]\nip.input_transformers_cleanup.append(shout)",
    ),
    cell("input transformed", "SHOUT 1"),
    cell("input transformer taken off", "ip.input_transformers_cleanup.remove(shout)"),
    cell("run_cell", "r = ip.run_cell('print(1); 2'); r.success, r.result"),
    cell("run_line_magic", "ip.run_line_magic('pwd', '') == os.getcwd()"),
    cell(
        "register a magic",
        "from IPython.core.magic import register_cell_magic\n@register_cell_magic\ndef up(line, cell): print(cell.upper())",
    ),
    cell("a magic of one's own", "%%up\nquiet"),
    cell(
        "formatter",
        "ip.display_formatter.formatters['text/html'].for_type(complex, lambda c: f'<c>{c}</c>')\n1j",
    ),
    cell("push", "ip.push({'pushed': 1}); pushed"),
    cell("system", "ip.getoutput('echo got'), ip.system('echo system')", until="system\n"),
    cell("threads", "threading.main_thread() is threading.current_thread()"),
    cell("signals", "import signal; signal.getsignal(signal.SIGINT) is signal.default_int_handler"),
    cell(
        "signals of one's own",
        "signal.signal(signal.SIGALRM, lambda *_: print('alarm'))\nsignal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.1)",
    ),
    cell("atexit", "import atexit; atexit.register(lambda: None);"),
    cell(
        "stack",
        "len([f for f in inspect.stack() if f.filename.endswith('interactiveshell.py')]) > 0",
    ),
    cell(
        "os.environ of Jupyter",
        "sorted(n for n in os.environ if 'IPY' in n or 'JPY' in n or n in ('MPLBACKEND', 'CLICOLOR', 'PAGER', 'TERM', 'GIT_PAGER', 'FORCE_COLOR', 'CLICOLOR_FORCE'))",
    ),
    ask("interrupt request", "interrupt_request", "control"),
    cell("the end", "'alive'"),
)

DATA = (
    cell("pandas", "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['x', None]})"),
    cell("series", "pd.Series([1.5, 2.5], name='s')"),
    cell("styled", "pd.DataFrame({'a': [1]}).style.set_uuid('u')"),
    cell("long frame", "pd.DataFrame({'n': range(200)})"),
    cell("numpy", "import numpy as np\nnp.arange(2000), np.eye(2)"),
    cell("numpy error", "np.zeros(3) + np.zeros(4)"),
    cell("numpy warning", "np.float64(1) / 0"),
    cell("plot", "import matplotlib.pyplot as plt\nplt.plot([1, 2])"),
    cell("show", "plt.figure(); plt.plot([3]); plt.show()"),
    cell("figure as a value", "f, ax = plt.subplots(); plt.close(f); f"),
    cell("backend", "import matplotlib; matplotlib.get_backend()"),
    cell(
        "as svg",
        "%config InlineBackend.figure_formats = ['png']\nplt.rcParams['figure.dpi'], plt.isinteractive()",
    ),
    cell("%matplotlib inline of data", "%matplotlib inline\nplt.plot([1]);"),
    cell("sympy", "import sympy; sympy.sqrt(sympy.Symbol('x'))"),
    cell("polars", "import polars; polars.DataFrame({'a': [1]})"),
    cell("pillow", "from PIL import Image; Image.new('RGB', (2, 2))"),
    cell(
        "plotly",
        "import plotly.graph_objects as go\ngo.Figure(layout={'title': 't'}).to_plotly_json()",
    ),
    cell("tqdm", "from tqdm import tqdm\nfor _ in tqdm([1], bar_format='{n}'): pass"),
    cell("seeds differ", "np.random.random() != 0.5"),
)

CASES = (
    *(*DISPLAYS, *COUNTING, *COMMS, *REQUESTS, *MAGICS, *ERRORS),
    *(*ASYNC, *STREAMS, *KERNEL),
)
