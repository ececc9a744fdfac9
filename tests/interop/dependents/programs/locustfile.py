"""Users for locust: some by requests, some by its own fast client; all check what they get."""

import os

import greenlet
from locust import FastHttpUser, HttpUser, between, constant, events, task


@events.init.add_listener
def check_greenlet(**_: object) -> None:
    """End at once on another greenlet than expected."""
    if greenlet.__version__ != os.environ["EXPECTED_GREENLET"]:
        raise SystemExit(f"this is greenlet {greenlet.__version__}")


class Reader(HttpUser):
    """Reads pages by requests."""

    wait_time = between(0.01, 0.05)

    @task(3)
    def page(self) -> None:
        with self.client.get("/page", catch_response=True) as answer:
            if answer.text != "hello " * 20:
                answer.failure("not the page")

    @task
    def wait(self) -> None:
        self.client.get("/wait")


class Writer(FastHttpUser):
    """Sends bodies by the client of geventhttpclient."""

    wait_time = constant(0.02)

    def on_start(self) -> None:
        self.sent = 0

    @task
    def echo(self) -> None:
        self.sent += 1
        body = f"{id(self)} {self.sent} " * 200
        with self.client.post("/echo", data=body, catch_response=True) as answer:
            if answer.text != body:
                answer.failure("another body")
