"""Requests at fixed times, against a server that refuses every other one."""

import asyncio
from itertools import count

from bench.overload import Arrivals, OpenLoop, build_body, describe


async def test_each_arrival_is_sent_and_its_answer_noted() -> None:
    numbers, connections = count(), count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        next(connections)
        while not reader.at_eof():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
            assert (await reader.readexactly(length)).startswith(b'{"model"')
            status = b"200 OK" if next(numbers) % 2 else b"503 Busy"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\n" % status)
            await asyncio.sleep(0.01)
            writer.write(b"{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(30):
        arrivals = await OpenLoop("127.0.0.1", server.sockets[0].getsockname()[1], build_body("a"), rate=100).run(1.0)
    server.close()
    while len(asyncio.all_tasks()) > 1:  # until both ends of each connection are closed
        await asyncio.sleep(0.01)
    statuses = [status for status, *_ in arrivals.answers]
    assert len(statuses) == arrivals.sent == next(numbers)
    assert abs(statuses.count(200) - statuses.count(503)) <= 1
    assert next(connections) < arrivals.sent, "connections are used again"
    assert all(ended_s - sent_s >= 0.01 for _, sent_s, ended_s in arrivals.answers)


def test_the_table_says_what_is_missed() -> None:
    good = [(200, number / 10, number / 10 + 1) for number in range(95)]
    refused = [(503, number / 10, number / 10 + 0.01) for number in range(900)]
    rows = describe(10.0, Arrivals(995, good + refused), seconds=10.0)
    assert {verdict for *_, verdict in rows} == {"ok"}
    rows = describe(20.0, Arrivals(1000, [*good, *refused, (500, 1.0, 2.0)]), seconds=10.0)
    verdicts = [verdict for *_, verdict in rows if verdict != "ok"]
    assert verdicts == ["below 0.9", "others than 200 and 503"]
