"""What a run leaves when it ends early, and what processes that share a ledger pay for."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

from tests.inference.asking import engine, requests, totals
from tests.inference.server import MockServer


def test_who_stops_early_finds_the_rest_later(tmp_path):
    with MockServer(delay=0.05) as server:
        replies = engine(server, tmp_path, in_flight=4).answer(requests(40), seed=0)
        taken = [next(replies) for _ in range(10)]
        replies.close()
        found = totals(tmp_path)
        assert found.replies >= len(taken) and found.lost <= 4 and found.sends == found.replies + found.lost < 40
        assert len(list(engine(server, tmp_path).answer(requests(40), seed=0))) == 40
        assert totals(tmp_path).replies == 40


def test_it_works_where_an_event_loop_is_running(tmp_path):
    async def inside():
        return len(list(engine(server, tmp_path).answer(requests(3), seed=0)))

    with MockServer() as server:
        assert asyncio.run(inside()) == 3


CLIENT = """
import json, sys
from pathlib import Path
from multifaceted.inference.requests import Request
from multifaceted.inference.server import ServerEngine
address, ledger, number = sys.argv[1:]
engine = ServerEngine(model="judge", ledger=Path(ledger), base_url=address, in_flight=8)
requests = [Request(id=f"r{i}", messages=[{"role": "user", "content": str(i)}]) for i in range(int(number))]
replies = list(engine.answer(requests, 0))
print(json.dumps({"replies": len(replies), "kept": sum(r.was_kept for r in replies), "torch": "torch" in sys.modules}))
"""


def client(server, tmp_path, number):
    command = [sys.executable, "-c", CLIENT, server.address, str(tmp_path / "l.sqlite"), str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TQDM_DISABLE": "1"})


def test_a_kill_loses_nothing_and_pays_at_most_for_what_was_in_flight(tmp_path):
    with MockServer(delay=0.05, faults=0.05, kinds=("rate_limit", "error")) as server:
        first = client(server, tmp_path, 400)
        while server.paid.total() < 150:
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
        kept = totals(tmp_path).replies
        second = client(server, tmp_path, 400)
        found = json.loads(second.communicate(timeout=60)[0])
        counts = server.counts()
    assert kept > 100 and found == {"replies": 400, "kept": kept, "torch": False}
    lost = totals(tmp_path).lost
    assert counts["conversations"] == 400 and 1 <= lost <= 8
    assert counts["paid_again"] <= lost, "whatever was paid for twice stands in the ledger as without an answer"


def test_processes_that_share_a_ledger_share_the_work(tmp_path):
    with MockServer(delay=0.02) as server:
        both = [client(server, tmp_path, 150) for _ in range(3)]
        found = [json.loads(each.communicate(timeout=60)[0]) for each in both]
        assert server.asked.total() == server.paid.total() == 150
    assert [each["replies"] for each in found] == [150] * 3 and sum(each["kept"] for each in found) == 300
