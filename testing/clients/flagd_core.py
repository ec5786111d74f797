"""Evaluates flags as the public evaluator in Python does: one case a line on standard input,
{"set", "key", "context"}; one answer a line."""

import json
import logging
import sys

from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext

logging.disable(logging.CRITICAL)

KINDS = {bool: "boolean", str: "string", int: "float", float: "float", dict: "object"}


def evaluate(case):
    core = FlagdCore()
    core.set_flags(json.dumps(case["set"]))
    variants = case["set"]["flags"][case["key"]]["variants"]
    kind = KINDS[type(next(iter(variants.values())))]
    context = dict(case["context"])
    who = EvaluationContext(context.pop("targetingKey", None), context)
    nothing = {"boolean": False, "string": "", "float": 0.0, "object": {}}[kind]
    said = getattr(core, f"resolve_{kind}_value")(case["key"], nothing, who)
    answer = {"reason": str(said.reason.value)}
    if said.variant is not None:
        answer.update(variant=said.variant, value=said.value)
    return answer


for line in sys.stdin:
    try:
        answer = evaluate(json.loads(line))
    except Exception:
        answer = {"error": True}
    print(json.dumps(answer))
