"""Several servers of one model: who gets the next request, who is left out and for how long.

A server that cannot be reached, breaks off, runs out of time or says that it is overloaded rests for
`backoff_s`, twice as long each time, at most a minute. Then one request tries it; the others
wait. When all of them rest, that is said in the log, and after `wait_s` without any answer
the run stops (exit code 3): what was answered is kept, the same command goes on from there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from manifests.errors import RunStopped

from .wire import Endpoint

log = logging.getLogger(__name__)
MAX_REST_S = 60.0


class Replica:
    def __init__(self, url: str):
        self.endpoint = Endpoint(url)
        self.url = self.endpoint.url
        self.num_flying = 0
        self.num_failures = 0     # since its last answer
        self.since = self.rests_until = 0.0   # monotonic: when its trouble began, when it is tried again
        self.trouble = ""
        self.is_checked = False   # its list of served models was looked at

    def is_free(self, now: float) -> bool:
        return now >= self.rests_until and (not self.num_failures or not self.num_flying)


class Replicas:
    def __init__(self, urls: Sequence[str], *, backoff_s: float, wait_s: float):
        self.all = [Replica(url) for url in urls]
        self.backoff_s, self.wait_s = backoff_s, wait_s
        self._changed = threading.Condition()
        self._num_waiting, self._said, self._told, self.stopped = 0, float("-inf"), "", False

    def take(self, avoid: Replica | None = None) -> Replica:
        """The free replica with the fewest requests in flight; waits until there is one."""
        with self._changed:
            self._num_waiting += 1
            try:
                while True:
                    if self.stopped:
                        raise RunStopped("stopped while waiting for a model server")
                    now = time.monotonic()
                    free = [r for r in self.all if r.is_free(now)]
                    if free:
                        chosen = min(free, key=lambda r: (r is avoid, r.num_flying))
                        chosen.num_flying += 1
                        return chosen
                    self._wait(now)
            finally:
                self._num_waiting -= 1

    def answered(self, replica: Replica) -> None:
        with self._changed:
            replica.num_flying -= 1
            replica.num_failures, replica.trouble = 0, ""
            self._changed.notify_all()

    def failed(self, replica: Replica, trouble: str, rest_s: float | None = None) -> None:
        """Leave it out for `rest_s`, or for twice as long as the last time."""
        with self._changed:
            replica.num_flying -= 1
            now = time.monotonic()
            if now >= replica.rests_until:  # requests that were in flight together fail together: that is one failure
                replica.num_failures += 1
                replica.since = now if replica.num_failures == 1 else replica.since
            rest = min(self.backoff_s * 2 ** (replica.num_failures - 1), MAX_REST_S) if rest_s is None else rest_s
            replica.rests_until = max(replica.rests_until, now + rest)
            replica.trouble = trouble
            self._changed.notify_all()

    def stop(self) -> None:
        """The run is over: wake all who wait, break off what is in flight."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()
        for replica in self.all:
            replica.endpoint.hang_up()

    def pause(self, seconds: float) -> None:
        """A wait that ends early when the run is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopped, seconds)
        if self.stopped:
            raise RunStopped("stopped while waiting to ask again")

    def _wait(self, now: float) -> None:
        left = max(r.since for r in self.all) + self.wait_s - now
        what = "; ".join(f"{r.url}: {r.trouble}" for r in self.all)
        if left <= 0:
            raise RunStopped(f"no model server answered for {self.wait_s:g} s ({what}). Answers so far are kept: start "
                             "the server and run the same command again")
        wake = min((r.rests_until for r in self.all if r.rests_until > now), default=now + 1.0)
        if now - self._said > 10 or what != self._told:
            self._said, self._told = now, what
            log.warning("waiting for a model server (%s); %d requests are held, next try in %.1f s, "
                        "giving up in %.0f s", what, self._num_waiting, wake - now, left)
        self._changed.wait(max(min(wake - now, left, 1.0), 0.005))
