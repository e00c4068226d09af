"""Asyncio in one screen: coroutine, event loop, gather, and the call that spoils it.

Run it: python asyncio_basics.py
"""

import asyncio
import time


async def mail(name: str) -> str:
    """A coroutine: `await` gives the event loop its turn while this one waits."""
    await asyncio.sleep(0.2)
    return name


async def rude_mail(name: str) -> str:
    """Looks the same, but waits without `await`: the event loop stands still."""
    time.sleep(0.2)
    return name


async def main() -> None:
    begun = time.perf_counter()
    coroutine = mail("Ann")  # calling it runs nothing yet
    print(f"{time.perf_counter() - begun:.1f} s  called: {type(coroutine).__name__}")
    await coroutine
    print(f"{time.perf_counter() - begun:.1f} s  awaited: now it has run")

    begun = time.perf_counter()
    for name in ("Ann", "Bob", "Cas"):
        await mail(name)
    print(f"{time.perf_counter() - begun:.1f} s  three, one after another")

    begun = time.perf_counter()
    await asyncio.gather(mail("Ann"), mail("Bob"), mail("Cas"))
    print(f"{time.perf_counter() - begun:.1f} s  three together, in one thread")

    begun = time.perf_counter()
    await asyncio.gather(rude_mail("Ann"), rude_mail("Bob"), rude_mail("Cas"))
    print(f"{time.perf_counter() - begun:.1f} s  three together, but each blocks the loop")


if __name__ == "__main__":
    asyncio.run(main())
