"""The content of docs/clients.md: its table of clients and the code of its sections; and code on other pages."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.service import PROJECT

PAGE = PROJECT / "docs" / "clients.md"

SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(
    r"^\| \[(?P<client>.+?)\]\(#(?P<anchor>.+?)\) \| (?P<tried>.+?) \| (?P<set>.+?) \| (?P<queries>.*?) ?\|$",
    re.MULTILINE,
)
INLINE_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A block of code on the page."""

    section: str
    language: str
    source: str

    def contains(self, code: str) -> bool:
        """Return whether the source has this piece of code, in which `…` matches any text within a line."""
        return re.search(".*".join(map(re.escape, code.split("…"))), self.source) is not None


@dataclass(frozen=True)
class Client:
    """A row of the table.

    Attributes:
        name: The client, and its class or provider.
        anchor: The section that shows it.
        package: The package, or the name of the program.
        version: The version that it was tried with.
        code: Its class or provider and what to set, as the code of the section has them.
        queries: How queries are told apart from passages.
    """

    name: str
    anchor: str
    package: str
    version: str
    code: tuple[str, ...]
    queries: str

    def find_block(self) -> Block:
        """Return the only block of the client's section that has all its code."""
        [block] = [
            block
            for block in read_blocks()
            if find_anchor(block.section) == self.anchor and all(map(block.contains, self.code))
        ]
        return block


def find_anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


@cache
def read_clients() -> tuple[Client, ...]:
    clients = []
    for row in ROW.finditer(PAGE.read_text()):
        package, version = row["tried"].replace("`", "").rsplit(" ", 1)
        code = tuple(INLINE_CODE.findall(row["client"] + row["set"]))
        clients.append(Client(row["client"].replace("`", ""), row["anchor"], package, version, code, row["queries"]))
    return tuple(clients)


@cache
def read_blocks(page: Path = PAGE) -> tuple[Block, ...]:
    [_, *parts] = SECTION.split(page.read_text())
    return tuple(
        Block(section, language, source)
        for section, text in zip(parts[::2], parts[1::2], strict=True)
        for language, source in BLOCK.findall(text)
    )


def find_client(name: str) -> Client:
    [client] = [client for client in read_clients() if client.name == name]
    return client
