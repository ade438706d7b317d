import re

import httpx


async def test_the_docs_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert addresses and all(address.startswith("/docs/assets/") for address in addresses)
    for address in [*addresses, "/openapi.json"]:
        assert (await client.get(address)).status_code == 200
