"""What tests of the server engine share."""

from multifaceted.inference.ledger import Ledger
from multifaceted.inference.requests import Request
from multifaceted.inference.server import ServerEngine


def requests(number, start=0):
    system = {"role": "system", "content": "Judge fairly."}
    return [
        Request(id=f"r{i}", messages=[system, {"role": "user", "content": f"Response {i}, wörds 雪"}])
        for i in range(start, start + number)
    ]


def engine(server, tmp_path, **changes):
    return ServerEngine(
        **{
            **dict(model="judge", ledger=tmp_path / "l.sqlite", base_url=server.address, in_flight=8),
            **dict(temperature=1.0, top_p=0.9),
            **changes,
        }
    )


def totals(tmp_path, model="judge"):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        return ledger.totals(model)
