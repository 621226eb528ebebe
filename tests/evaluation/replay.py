"""The whole way of a run, from a command line to `scores.json`, with a rule in the judge's place."""

from multifaceted.config import build, to_plain
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.run import run
from tests.conftest import composed
from tests.evaluation.engines import RuleEngine


def replayed(rule, *overrides):
    """The config, the metrics and the requests to the judge."""
    config = build(composed("eval", overrides), EvalConfig)
    plain = to_plain(config)
    config.judge.engine = RuleEngine(rule)
    return config, run(config, plain).metrics, config.judge.engine.asked
