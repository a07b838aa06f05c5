"""What schemathesis calls around each request: keeps live streams short, and counts the answers.

The counts go to the file that CUSTODY_FUZZ_COUNTS names: by status, by operation, and each answer
of 500 with what was asked.
"""

import atexit
import collections
import json
import os
import re
import threading

import schemathesis

statuses = collections.Counter()
operations = collections.Counter()
failures = []
slowest = [0.0, ""]
lock = threading.Lock()

# A stream that is followed lasts as long as it is asked to: what is a good duration becomes a short one,
# what is none stays as it is and is refused.
GOOD_DURATION = re.compile(r"^\s*[0-9]+\s*(ms|s|m|h|d)\s*$")


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.path == "/v1/tail":
        query = dict(case.query or {})
        if GOOD_DURATION.match(str(query.get("duration", "1s"))):
            query["duration"] = "20ms"
            case.query = query


@schemathesis.hook
def after_call(context, case, response):
    with lock:
        statuses[str(response.status_code)] += 1
        operations[case.operation.label] += 1
        if response.elapsed > slowest[0]:
            slowest[:] = [response.elapsed, case.operation.label]
        if response.status_code == 500 and len(failures) < 50:
            failures.append({"curl": case.as_curl_command(), "said": response.text[:500]})


@schemathesis.hook
def after_network_error(context, case, request):
    with lock:
        statuses["no answer"] += 1
        if len(failures) < 50:
            failures.append({"curl": case.as_curl_command(), "said": "no answer"})


@atexit.register
def write():
    with open(os.environ["CUSTODY_FUZZ_COUNTS"], "w", encoding="utf-8") as out:
        json.dump(
            {
                "requests": sum(statuses.values()),
                "statuses": dict(sorted(statuses.items())),
                "operations": dict(sorted(operations.items())),
                "slowest_s": slowest[0],
                "slowest": slowest[1],
                "failures": failures,
            },
            out,
        )


# Bodies that are no JSON: as they are drawn.
@schemathesis.serializer("application/vnd.custody.block", "application/octet-stream")
def as_bytes(context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
