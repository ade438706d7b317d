"""Reads the files of a request: fetches those given by URL, checks their sizes, and counts the pages of PDFs."""

import asyncio

from msgspec.structs import replace

from gateway.core.admission import Admission
from gateway.core.checks import check_file_size, check_page_count, describe_failure, error_of_item
from gateway.core.work import Work
from gateway.engine import EmbedBatch, Engine, TokenizeResult
from gateway.errors import InvalidRequestError, TooLargeError
from gateway.fetch import ByteBudget, FileFetcher
from gateway.settings import Settings
from gateway.types import DocumentItem, FileUrl, ImageItem, ItemWithFile, ItemWithImage, Place


class FileReader:
    """Makes the files of a request ready for the engine.

    Args:
        engine: Counts the pages of PDFs.
        fetcher: For files given by URL.
        admission: Asked before anything is fetched or opened.
        settings: Limits of sizes and numbers.
    """

    def __init__(self, engine: Engine, fetcher: FileFetcher, admission: Admission, settings: Settings) -> None:
        self._engine = engine
        self._fetcher = fetcher
        self._admission = admission
        self._settings = settings

    async def read(self, work: Work) -> None:
        """Fetch the files that are given by URL, check the sizes of all, and replace PDFs by their pages.

        Raises:
            GatewayError: The request would wait too long, a file could not be read, or there are too many pages.
        """
        if not work.has_files:
            return
        self._measure_images(work)
        gate = self._admission.gate_of(work.model.public_id, work.kind())
        gate.check_room(work.client, work.total_tokens(), work.deadline)  # before anything is fetched
        await self._fetch_all(work)
        for position, item in work.items.items():
            try:
                check_file_size(work.index_of(position), item, work.model)
            except TooLargeError as error:
                work.fail(position, error)
        work.drop_failed()
        self._measure_images(work)
        await self._open_documents(work)

    def _measure_images(self, work: Work) -> None:
        work.measure_images(self._settings.max_image_pixels, self._settings.max_request_pixels)

    async def _fetch_all(self, work: Work) -> None:
        urls = {
            position: item.file.url
            for position, item in work.items.items()
            if isinstance(item, ItemWithFile) and isinstance(item.file, FileUrl)
        }
        if not urls:
            return
        budget = ByteBudget(self._settings.max_fetched_bytes)
        fetches = [asyncio.ensure_future(self._fetch(work, position, url, budget)) for position, url in urls.items()]
        try:
            await asyncio.gather(*fetches)
        finally:
            for fetch in fetches:
                fetch.cancel()

    async def _fetch(self, work: Work, position: int, url: str, budget: ByteBudget) -> None:
        try:
            file = await self._fetcher.fetch(url, work.deadline, budget)
        except (InvalidRequestError, TooLargeError) as error:
            work.fail(position, error_of_item(type(error), work.index_of(position), error.message))
        else:
            work.items[position] = replace(work.items[position], file=file)

    async def _open_documents(self, work: Work) -> None:
        """Replace PDFs by their pages, which the engine counts.

        Raises:
            GatewayError: A PDF cannot be read, or has too many pages.
        """
        documents = {
            position: ImageItem(item.file, page=1)
            for position, item in work.items.items()
            if isinstance(item, DocumentItem)
        }
        if not documents:
            return
        result = await self._read_first_pages(work, documents)
        page_counts = dict(zip(documents, result.page_counts.tolist(), strict=True))
        for row, position in enumerate(documents):
            index = work.index_of(position)
            try:
                if failure := result.failures.get(row):
                    raise describe_failure(Place(index), failure)
                check_page_count(index, page_counts[position], self._settings.max_pdf_pages)
            except (InvalidRequestError, TooLargeError) as error:
                work.fail(position, error)
        work.drop_failed()
        work.open_documents(page_counts)
        images = sum(isinstance(item, ItemWithImage) for item in work.items.values())
        if images > self._settings.max_images:
            raise InvalidRequestError(
                f"input must have at most {self._settings.max_images} images, pages of PDFs included", param="input"
            )

    async def _read_first_pages(self, work: Work, documents: dict[int, ImageItem]) -> TokenizeResult:
        """Have the engine open each PDF, by its position, which tells how many pages it has."""
        page_tokens = [work.tokens[position] for position in documents]
        gate = self._admission.gate_of(work.model.public_id, "slow_image")
        with gate.admit(work.client, sum(page_tokens), work.deadline) as ticket:
            pages = list(documents.values())
            return await self._engine.tokenize(
                EmbedBatch(
                    work.model,
                    pages,
                    page_tokens,
                    "passage",
                    "NONE",
                    ticket.enter,
                    deadline=work.deadline,
                    query=work.query,
                )
            )
