"""gRPC of all four kinds, with grpcio on both sides and no `.proto` file: messages are plain bytes.

    python3 grpc_kinds.py serve            prints its port, and serves until its input ends
    python3 grpc_kinds.py call HOST:PORT   calls each kind, and prints a line of JSON for each case
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "kinds.v1.Kinds"


def unary(request, context):
    sent = dict(context.invocation_metadata())
    context.send_initial_metadata((("seen", sent.get("asked", "")),))
    context.set_trailing_metadata((("sum", str(len(request))), ("raw-bin", b"\x00\xff")))
    if request == b"refuse":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ä%")
    if request == b"wait":
        time.sleep(30)
    return request[::-1]


def server_streaming(request, context):
    for number in range(int(request)):
        yield f"{number}".encode()
    if request == b"7":
        context.abort(grpc.StatusCode.DATA_LOSS, "after seven")


def client_streaming(requests, context):
    return str(sum(len(each) for each in requests)).encode()


def both_streaming(requests, context):
    for each in requests:
        yield each + b"!"


KINDS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStreaming": grpc.unary_stream_rpc_method_handler(server_streaming),
    "ClientStreaming": grpc.stream_unary_rpc_method_handler(client_streaming),
    "BothStreaming": grpc.stream_stream_rpc_method_handler(both_streaming),
}


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, KINDS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


def lockstep(invoke):
    """Each message is sent only when the one before has come back: neither side may be held up."""
    turn, back = threading.Semaphore(1), []

    def requests():
        for number in range(50):
            turn.acquire()
            yield f"{number}".encode()

    for answer in invoke(requests(), timeout=20):
        back.append(answer)
        turn.release()
    return back == [f"{number}!".encode() for number in range(50)]


def status(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def call(address):
    channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])

    def method(kind, name):
        return getattr(channel, kind)(f"/{SERVICE}/{name}")

    one = method("unary_unary", "Unary")
    many = method("unary_stream", "ServerStreaming")
    gathered = method("stream_unary", "ClientStreaming")
    both = method("stream_stream", "BothStreaming")

    def metadata():
        answer, told = one.with_call(b"abc", timeout=20, metadata=(("asked", "this"),))
        trailing = dict(told.trailing_metadata())
        leading = dict(told.initial_metadata())
        return (answer, leading["seen"], trailing["sum"], trailing["raw-bin"]) == (b"cba", "this", "3", b"\x00\xff")

    def cancelled():
        for _ in range(20):
            stream = both(iter([b"a"] * 3), timeout=20)
            next(stream)
            stream.cancel()
        return one(b"ab", timeout=20) == b"ba"

    def last_status():
        got = []
        found = status(lambda: got.extend(many(b"7", timeout=20)))
        return len(got) == 7 and found == ("DATA_LOSS", "after seven")

    cases = {
        "unary": lambda: one(b"hello", timeout=20) == b"olleh",
        "nothing at all": lambda: one(b"", timeout=20) == b"",
        "three megabytes": lambda: one(b"x" * 3_000_000, timeout=20) == b"x" * 3_000_000,
        "metadata both ways": metadata,
        "an error with its words": lambda: status(lambda: one(b"refuse", timeout=20))
        == ("FAILED_PRECONDITION", "not now: ä%"),
        "a deadline": lambda: status(lambda: one(b"wait", timeout=0.3))[0] == "DEADLINE_EXCEEDED",
        "a method that is not there": lambda: status(lambda: method("unary_unary", "Nothing")(b"", timeout=20))[0]
        == "UNIMPLEMENTED",
        "a stream of answers": lambda: list(many(b"1000", timeout=20)) == [b"%d" % each for each in range(1000)],
        "no answer in a stream": lambda: list(many(b"0", timeout=20)) == [],
        "an error behind answers": last_status,
        "a stream of requests": lambda: gathered(iter([b"x" * 1000] * 500), timeout=20) == b"500000",
        "no request in a stream": lambda: gathered(iter([]), timeout=20) == b"0",
        "both at once, in turns": lambda: lockstep(both),
        "both at once, in a heap": lambda: len(list(both(iter([b"y" * 10_000] * 300), timeout=20))) == 300,
        "calls that are cancelled": cancelled,
    }
    for name, holds in cases.items():
        try:
            ok, why = bool(holds()), ""
        except Exception as error:  # whatever goes wrong is a case that fails
            ok, why = False, repr(error)
        print(json.dumps({"case": name, "ok": ok, "why": why}), flush=True)


if sys.argv[1] == "serve":
    serve()
else:
    call(sys.argv[2])
