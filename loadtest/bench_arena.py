"""Where it is measured: the folder, the cores, the programs, and the books, each made once."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType

from loadtest.bench_book import Book, needed_bytes
from loadtest.bench_figures import BenchError, LeftOutError
from loadtest.bench_load import Wrk
from loadtest.bench_nginx import Certificate, Constant, Nginx
from loadtest.bench_node import ServedNode
from loadtest.bench_programs import Cores, Program, answers, on_core, program
from loadtest.ports import free_port

Say = Callable[[str], None]


def missing(needs: tuple[str, ...]) -> str | None:
    """Why a line with these needs is left out here; None if it is not."""
    absent = [name for name in needs if program(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


class Arena:
    """Used as a context: everything that was started in it ends with it.

    Attributes:
        identifiers: size of the large book; smaller ones are no larger than that.
    """

    def __init__(self, folder: Path | None, identifiers: int, say: Say) -> None:
        self.identifiers = identifiers
        self.say = say
        self._given = folder
        self._cores = Cores.of_this_machine()
        self._books: dict[int, Book] = {}
        self._stack = ExitStack()
        self._numbers = count(1)

    def __enter__(self) -> "Arena":
        if self._given is None:
            self._folder = Path(tempfile.mkdtemp(prefix="idnode-bench-"))
            self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        else:
            self._folder = self._given
            self._folder.mkdir(parents=True, exist_ok=True)
        # The stores of root run as another user, who has to pass.
        self._folder.chmod(0o711)
        self._scratch = Path(tempfile.mkdtemp(prefix="run-", dir=self._folder))
        self._scratch.chmod(0o711)
        self._stack.callback(shutil.rmtree, self._scratch, ignore_errors=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def wrk(self) -> Wrk:
        """wrk, away from the core of the server."""
        return Wrk(_installed("wrk"), self.beside, self._scratch)

    @property
    def under_test(self) -> list[str]:
        """What stands before the command of a server that is measured."""
        return on_core(self._cores.server)

    @property
    def beside(self) -> list[str]:
        """What stands before the command of a load: away from the core of the server."""
        return on_core(self._cores.client)

    def book(self, count_max: int) -> Book:
        """The book of `count_max` identifiers, or of as many as this run has; made once.

        Raises:
            LeftOutError: if the disk has no room for it.
            BenchError: if it cannot be filled.
        """
        size = min(count_max, self.identifiers)
        if size not in self._books:
            self._require_room(size)
            self._books[size] = self._filled(self._stack, self._folder / f"book-{size}", size)
        return self._books[size]

    def empty_book(self, stack: ExitStack) -> Book:
        """A new book with one identifier, until `stack` is closed."""
        return self._filled(stack, self.place("book"), 1)

    def _filled(self, stack: ExitStack, data: Path, size: int) -> Book:
        self.say(f"book of {size:,} identifiers: starting its stores")
        book = Book(data, size, self._cores.client, self.say)
        stack.callback(book.stop)
        book.fill()
        return book

    def node(self, stack: ExitStack, book: Book, **switches: str) -> ServedNode:
        """A node on the stores of a book, until `stack` is closed."""
        node = ServedNode(self.place("node"), book, self._cores.server, **switches)
        stack.callback(node.stop)
        node.wait_ready()
        return node

    def nginx(
        self, stack: ExitStack, constant: Constant, certificate: Certificate | None = None
    ) -> Nginx:
        """nginx serving a constant, until `stack` is closed."""
        folder, core = self.place("nginx"), self._cores.server
        nginx = Nginx(_installed("nginx"), folder, core, constant, certificate)
        stack.callback(nginx.stop)
        nginx.wait_ready()
        return nginx

    def application(self, stack: ExitStack, name: str, path: str, *words: str) -> str:
        """The address of one of our own ASGI applications, once it answers `path` with 200."""
        port = free_port()
        command = [sys.executable, "-m", f"loadtest.{name}", "--port", str(port), *words]
        started = Program([*self.under_test, *command], self.place(name))
        stack.callback(started.stop)
        url = f"http://127.0.0.1:{port}"
        started.wait_ready(lambda: answers(url, path, 200))
        return url

    def certificate(self) -> Certificate:
        """A new certificate of our own."""
        folder = self.place("certificate")
        folder.mkdir()
        return Certificate.make(_installed("openssl"), folder)

    def place(self, name: str) -> Path:
        """A path that nobody has used, in a folder that is removed at the end."""
        return self._scratch / f"{name}-{next(self._numbers)}"

    def _require_room(self, size: int) -> None:
        if (self._folder / f"book-{size}").exists():
            return
        free_gb = shutil.disk_usage(self._folder).free / 1e9
        needed_gb = needed_bytes(size) / 1e9
        if free_gb < needed_gb:
            raise LeftOutError(
                f"a book of {size:,} identifiers needs {needed_gb:.1f} GB of disk, "
                f"{free_gb:.1f} GB are free"
            )


def _installed(name: str) -> str:
    path = program(name)
    if path is None:
        raise BenchError(f"{name} is not installed")
    return path
