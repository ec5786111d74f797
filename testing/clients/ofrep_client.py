"""Evaluates flags with OpenFeature's SDK for Python and its OFREP provider.

    python3 ofrep_client.py BASE [KEY]

Reads a question per line, {"flag", "type", "default", "context"}, and prints a line for each: the details
of the evaluation.
"""

import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

base, *key = sys.argv[1:]
headers = {"X-API-Key": key[0]} if key else {}
api.set_provider(OFREPProvider(base, headers_factory=lambda: headers))
client = api.get_client()

for line in sys.stdin:
    asked = json.loads(line)
    attributes = dict(asked["context"])
    context = EvaluationContext(attributes.pop("targetingKey", None), attributes)
    ask = getattr(client, f"get_{asked['type']}_details")
    details = ask(asked["flag"], asked["default"], context)
    answer = {
        "value": details.value,
        "variant": details.variant,
        "reason": details.reason,
        "errorCode": details.error_code,
        "errorMessage": details.error_message,
        "flagMetadata": details.flag_metadata,
    }
    print(json.dumps(answer), flush=True)
