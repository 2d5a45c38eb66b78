#!/usr/bin/env python3
"""Drives examples/websocket_server with the library websockets: websocket_client.py URL CASE. Prints "done"."""

import asyncio
import os
import sys

import websockets

LARGE = "grüße, 世界 🌍 " * 3000


async def echo(url):
    async with websockets.connect(url + "/echo?x=1") as client:
        for message in ["", "hello", LARGE, b"", bytes(range(256)) * 200, "x" * 125, "x" * 126, "x" * 65535,
                        "x" * 65536]:
            await client.send(message)
            assert await client.recv() == message
        await client.send(["gr", "ü", "", "ße"])  # in fragments
        assert await client.recv() == "grüße"
        await (await client.ping(b"are you there"))
        await client.close(3000, "that was all")
    assert (client.close_code, client.close_reason) == (3000, ""), client.close_code


async def chat(url):
    clients = [await websockets.connect(url + "/chat", ping_interval=None) for _ in range(20)]
    await asyncio.gather(*(client.send(f"from {i}") for i, client in enumerate(clients)))
    heard = [[await client.recv() for _ in clients] for client in clients]
    assert sorted(heard[0]) == sorted(f"from {i}" for i in range(20)), heard[0]
    assert all(each == heard[0] for each in heard)
    await asyncio.gather(*(client.close() for client in clients))


async def too_big(url):
    async with websockets.connect(url + "/echo") as client:
        try:
            await client.send(["x" * 40000, "x" * 40000])
            await client.recv()
        except websockets.exceptions.ConnectionClosed:
            pass
    assert client.close_code == 1009, client.close_code


async def refused(url):
    for path, origin, status in [("/none", None, 404), ("/chat", "https://other.example", 403)]:
        try:
            await websockets.connect(url + path, origin=origin)
            raise AssertionError(path)
        except websockets.exceptions.InvalidStatusCode as error:
            assert error.status_code == status, error
    async with websockets.connect(url + "/chat", origin="https://own.example") as client:
        await client.send("mine")
        assert await client.recv() == "mine"


async def end(url):
    """Idle until the server drains, which is told on standard output."""
    async with websockets.connect(url + "/chat", ping_interval=None) as client:
        print("ready", flush=True)
        try:
            await client.recv()
        except websockets.exceptions.ConnectionClosed:
            pass
    assert client.close_code == 1001, client.close_code


os.environ.pop("http_proxy", None)
asyncio.run({"echo": echo, "chat": chat, "too_big": too_big, "refused": refused, "end": end}[sys.argv[2]](sys.argv[1]))
print("done")
