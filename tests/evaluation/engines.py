"""A small engine that answers by a rule."""

from dataclasses import dataclass, field

from multifaceted.inference.requests import EngineError, Reply


@dataclass
class RuleEngine:
    """`rule` gives the text of a request, or a whole reply; after `most` requests nothing more can be asked."""

    rule: object
    most: int | None = None
    asked: list = field(default_factory=list)
    order: int = 1
    """-1 answers the last request first."""

    def answer(self, requests, seed):
        assert len({request.id for request in requests}) == len(requests)
        for request in requests[:: self.order]:
            if self.most is not None and len(self.asked) >= self.most:
                raise EngineError("the cap of requests is reached")
            self.asked.append(request)
            answer = self.rule(request)
            yield answer if isinstance(answer, Reply) else Reply(id=request.id, text=answer, finished=True)


def read(question, text):
    """What a question makes of a whole reply."""
    return question.read(Reply(id="r", text=text, finished=True))


def section(request, heading):
    """The text under a heading of a judge's message."""
    content = request.messages[-1]["content"]
    tag = content.split("carry the tag ")[1].split(".")[0]
    begin = content.split(f"### {heading}\n<<<BEGIN {tag}>>>\n")[1]
    return begin.split(f"\n<<<END {tag}>>>")[0]
