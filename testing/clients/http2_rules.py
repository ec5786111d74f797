"""What RFC 9113 says a server must do, from the frames up: `python3 http2_rules.py PORT`.

Prints one line of JSON for each rule: its section, what it is, whether it holds, what was seen.
Requests that must not pass go to a path that ends in /bad; those that must, to /good. What waits is at a service of its
own, so that it takes nobody's place.
"""

import json
import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import h2.config
import h2.connection
import h2.events
from hpack import Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

PORT = int(sys.argv[1])
PATIENCE = 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITIZED, ACK = 0x1, 0x4, 0x8, 0x20, 0x1
(NO_ERROR, PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION, CONNECT, CALM) = range(12)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A field as HPACK writes it without a table, also one that no library would write."""
    def string(text):
        text = text if isinstance(text, bytes) else text.encode()
        assert len(text) < 127
        return bytes([len(text)]) + text

    return b"\x00" + string(name) + string(value)


GOOD = [(":method", "GET"), (":scheme", "http"), (":path", "/api/web/good"), (":authority", "test")]
BAD = [(name, value.replace("good", "bad")) for name, value in GOOD]
POST = [(":method", "POST")] + BAD[1:]


def block(fields):
    return b"".join(literal(name, value) for name, value in fields)


def request(stream, fields, end=True):
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields))


def without(fields, name):
    return [field for field in fields if field[0] != name]


def instead(fields, name, value):
    return [(each, value if each == name else old) for each, old in fields]


class Connection:
    def __init__(self, settings=b""):
        self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE)
        self.rest = b""
        self.ended = False
        self.general = False
        self.seen = []
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            self.ended = True

    def next(self):
        """The next frame; None at the end of the connection."""
        while True:
            if len(self.rest) >= 9:
                parsed, length = Frame.parse_frame_header(memoryview(self.rest[:9]))
                if len(self.rest) >= 9 + length:
                    parsed.parse_body(memoryview(self.rest[9:9 + length]))
                    self.rest = self.rest[9 + length:]
                    self.seen.append(parsed)
                    return parsed
            try:
                more = self.socket.recv(65536)
            except ConnectionError:
                more = b""
            if not more:
                self.ended = True
                return None
            self.rest += more

    def until(self, wanted):
        """Reads up to the first frame that is wanted; None when the connection ends before."""
        while True:
            got = self.next()
            if got is None or wanted(got):
                return got

    def goaway(self):
        return next((each for each in self.seen if isinstance(each, GoAwayFrame)), None)

    def told(self):
        return [f"{type(each).__name__} {each.stream_id} {getattr(each, 'error_code', '')}".strip()
                for each in self.seen] + (["end"] if self.ended else []) + (["general"] if self.general else [])


def is_goaway(got):
    return isinstance(got, GoAwayFrame)


def connection_error(*codes):
    """The connection ends, and the reason that is told is one of these."""
    def check(connection):
        connection.until(is_goaway)
        told = connection.goaway()
        return connection.ended if told is None else is_one_of(connection, told, codes)
    return check


def is_one_of(connection, told, codes):
    """PROTOCOL_ERROR may stand for all that is more particular: then that is noted."""
    connection.general = told.error_code == PROTOCOL and PROTOCOL not in codes
    return told.error_code in codes or connection.general


def status_of(got):
    # 200, 400 and the like stand in HPACK's static table.
    return {0x88: 200, 0x8c: 400, 0x8d: 404}.get(got.data[0]) if got.data else None


def stream_error(stream, *codes):
    """The stream is reset, refused with 400, or with it the whole connection; none goes unsaid."""
    def check(connection):
        def wanted(got):
            return is_goaway(got) or (got.stream_id == stream and isinstance(got, (RstStreamFrame, HeadersFrame)))

        got = connection.until(wanted)
        if isinstance(got, HeadersFrame):
            return status_of(got) == 400 and serves(connection)
        if got is None or not is_one_of(connection, got, codes):
            return False
        return is_goaway(got) or serves(connection)
    return check


def serves(connection, stream=4001):
    """The next request of the connection is answered."""
    connection.send(request(stream, GOOD))
    answer = connection.until(lambda got: is_goaway(got) or (got.stream_id == stream and isinstance(got, HeadersFrame)))
    return isinstance(answer, HeadersFrame) and status_of(answer) == 200


def resets(connection):
    return [each for each in connection.seen if isinstance(each, (RstStreamFrame, GoAwayFrame))]


def fine(connection):
    """Nothing is wrong."""
    return serves(connection) and not resets(connection)


RULES = []


def rule(section, what, data, check, settings=b""):
    RULES.append((section, what, lambda: run(data, check, settings)))


def run(data, check, settings):
    connection = Connection(settings)
    connection.send(data)
    return bool(check(connection)), connection.told()


def raw_start(data, check):
    """Of a connection whose beginning is given."""
    connection = Connection.__new__(Connection)
    connection.socket = socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE)
    connection.rest, connection.ended, connection.general, connection.seen = b"", False, False, []
    connection.send(data)
    return bool(check(connection)), connection.told()


def setting(number, value):
    return struct.pack(">HI", number, value)


# 3: how a connection begins
RULES.append(("3.4", "the first frame is SETTINGS", lambda: raw_start(
    PREFACE + request(1, BAD), connection_error(PROTOCOL))))
rule("3.4", "SETTINGS are acknowledged", b"", lambda connection: connection.until(
    lambda got: isinstance(got, SettingsFrame) and "ACK" in got.flags) is not None)

# 4: frames
rule("4.1", "a frame of an unknown type is ignored", frame(0xEE, 0xFF, 0, b"x" * 20), fine)
rule("4.1", "flags without a meaning are ignored", frame(PING, 0xF0, 0, b"12345678"), fine)
rule("4.1", "the reserved bit of a stream's number is ignored",
     frame(PING, 0, 0x80000000, b"12345678"), fine)
rule("4.2", "a frame longer than was allowed: DATA", request(1, POST, end=False) + frame(DATA, 0, 1, b"x" * 16385),
     stream_error(1, SIZE))
rule("4.2", "a frame longer than was allowed: HEADERS",
     frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BAD) + b"\x00" * 16385), connection_error(SIZE))
rule("4.2", "a frame longer than was allowed: unknown", frame(0xEE, 0, 0, b"x" * 16385), connection_error(SIZE))
rule("4.3", "a field that no table has", frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BAD) + b"\xff\x80\x01"),
     connection_error(COMPRESSION))
rule("4.3", "index 0", frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BAD) + b"\x80"), connection_error(COMPRESSION))
rule("4.3", "a number without an end",
     frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BAD) + b"\xff" * 12 + b"\x01"), connection_error(COMPRESSION))
rule("4.3", "a string that goes on behind the block",
     frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BAD) + b"\x00\x0aabc"), connection_error(COMPRESSION))
rule("4.3", "Huffman's code with wrong padding",
     frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BAD) + b"\x00\x81\x00\x81\x00"), connection_error(COMPRESSION))
rule("4.3", "Huffman's code with the end of strings in it",
     frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BAD) + b"\x00\x84\xff\xff\xff\xff\x01x"),
     connection_error(COMPRESSION))
rule("4.3", "a table larger than was allowed",
     frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x3f\xe1\xff\x03" + block(BAD)), connection_error(COMPRESSION))
rule("4.3", "a change of the table behind the first field",
     frame(HEADERS, END_HEADERS | END_STREAM, 1, block(BAD) + b"\x20"), connection_error(COMPRESSION))
OPEN = frame(HEADERS, END_STREAM, 1, block(BAD)[:20])
rule("4.3", "another frame within a block of fields", OPEN + frame(PING, 0, 0, b"12345678"), connection_error(PROTOCOL))
rule("4.3", "another stream's CONTINUATION", OPEN + frame(CONTINUATION, END_HEADERS, 3, block(BAD)[20:]),
     connection_error(PROTOCOL))
rule("5.5", "an unknown frame within a block of fields", OPEN + frame(0xEE, 0, 1, b"x"), connection_error(PROTOCOL))
rule("6.10", "a block in many pieces is one block",
     frame(HEADERS, END_STREAM, 1, block(GOOD)[:5]) + frame(CONTINUATION, 0, 1, block(GOOD)[5:20])
     + frame(CONTINUATION, 0, 1, b"") + frame(CONTINUATION, END_HEADERS, 1, block(GOOD)[20:]), fine)
rule("6.10", "CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, block(BAD)), connection_error(PROTOCOL))
rule("6.10", "CONTINUATION behind a block that has ended",
     request(1, GOOD, end=False) + frame(CONTINUATION, END_HEADERS, 1, b""), connection_error(PROTOCOL))
rule("6.10", "CONTINUATION on stream 0", OPEN + frame(CONTINUATION, END_HEADERS, 0, b""), connection_error(PROTOCOL))

# 5: streams
rule("5.1", "DATA of a stream that was never opened", frame(DATA, END_STREAM, 1, b"x"),
     connection_error(PROTOCOL, CLOSED))
rule("5.1", "RST_STREAM of a stream that was never opened", frame(RST, 0, 1, b"\0\0\0\x08"), connection_error(PROTOCOL))
rule("5.1", "WINDOW_UPDATE of a stream that was never opened", frame(WINDOW, 0, 1, b"\0\0\0\x08"),
     connection_error(PROTOCOL))
rule("5.1", "PRIORITY of a stream that was never opened is ignored", frame(PRIORITY, 0, 9, b"\0\0\0\0\x01"), fine)
ENDED = request(1, instead(GOOD, ":path", "/api/slow/slow"))
rule("5.1", "DATA of a stream that the client has ended", ENDED + frame(DATA, 0, 1, b"x"), stream_error(1, CLOSED))
rule("5.1", "HEADERS of a stream that the client has ended", ENDED + request(1, BAD),
     stream_error(1, CLOSED, PROTOCOL))
rule("5.1", "WINDOW_UPDATE of a stream that the client has ended", ENDED + frame(WINDOW, 0, 1, b"\0\0\0\x08"), fine)
RESET = ENDED + frame(RST, 0, 1, b"\0\0\0\x08")
rule("5.1", "HEADERS of a stream that the client has reset", RESET + request(1, BAD),
     stream_error(1, CLOSED, PROTOCOL))
rule("5.1", "PRIORITY and WINDOW_UPDATE behind a reset are ignored",
     RESET + frame(PRIORITY, 0, 1, b"\0\0\0\0\x01") + frame(WINDOW, 0, 1, b"\0\0\0\x08"), serves)
rule("5.1.1", "a stream with an even number", request(2, BAD), connection_error(PROTOCOL))
rule("5.1.1", "a stream with a smaller number than the one before",
     request(5, GOOD) + request(3, BAD), connection_error(PROTOCOL, CLOSED))
rule("5.1.2", "more streams than were allowed",
     b"".join(request(2 * number + 1, instead(GOOD, ":path", "/api/slow/slow")) for number in range(251))
     , lambda connection: connection.until(lambda got: isinstance(got, (RstStreamFrame, GoAwayFrame))).error_code
     in (REFUSED, PROTOCOL))

# 6: each kind of frame
rule("6.1", "DATA on stream 0", frame(DATA, 0, 0, b"x"), connection_error(PROTOCOL))
rule("6.1", "DATA with more padding than content", request(1, POST, end=False) + frame(DATA, PADDED, 1, b"\x05abcd"),
     connection_error(PROTOCOL))
rule("6.2", "HEADERS on stream 0", request(0, BAD), connection_error(PROTOCOL))
rule("6.2", "HEADERS with more padding than content",
     frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\xff" + block(BAD)), connection_error(PROTOCOL))
rule("6.2", "HEADERS with padding and priority pass",
     frame(HEADERS, END_HEADERS | END_STREAM | PADDED | PRIORITIZED, 1, b"\x03\0\0\0\0\x10" + block(GOOD) + b"\0\0\0"),
     fine)
rule("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, b"\0\0\0\0\x01"), connection_error(PROTOCOL))
rule("6.3", "PRIORITY of another length", ENDED + frame(PRIORITY, 0, 1, b"\0\0\0\0"), stream_error(1, SIZE))
rule("6.4", "RST_STREAM on stream 0", frame(RST, 0, 0, b"\0\0\0\x08"), connection_error(PROTOCOL))
rule("6.4", "RST_STREAM of another length", ENDED + frame(RST, 0, 1, b"\0\0\x08"), connection_error(SIZE))
rule("6.5", "SETTINGS of a stream", frame(SETTINGS, 0, 1), connection_error(PROTOCOL))
rule("6.5", "SETTINGS of another length", frame(SETTINGS, 0, 0, b"\0\x01\0\0\0"), connection_error(SIZE))
rule("6.5", "an acknowledgement with content", frame(SETTINGS, ACK, 0, setting(1, 1)), connection_error(SIZE))
rule("6.5.2", "ENABLE_PUSH that is neither 0 nor 1", frame(SETTINGS, 0, 0, setting(2, 2)), connection_error(PROTOCOL))
rule("6.5.2", "INITIAL_WINDOW_SIZE above the largest", frame(SETTINGS, 0, 0, setting(4, 1 << 31)), connection_error(FLOW))
rule("6.5.2", "MAX_FRAME_SIZE below the least", frame(SETTINGS, 0, 0, setting(5, 16383)), connection_error(PROTOCOL))
rule("6.5.2", "MAX_FRAME_SIZE above the largest", frame(SETTINGS, 0, 0, setting(5, 1 << 24)), connection_error(PROTOCOL))
rule("6.5.2", "an unknown setting is ignored", frame(SETTINGS, 0, 0, setting(0xAAAA, 7)), fine)
rule("6.6", "PUSH_PROMISE of a client", frame(PUSH, END_HEADERS, 1, b"\0\0\0\x02" + block(BAD)), connection_error(PROTOCOL))
rule("6.7", "PING comes back with what was in it", frame(PING, 0, 0, b"hydrant!"), lambda connection: connection.until(
    lambda got: isinstance(got, PingFrame) and "ACK" in got.flags).opaque_data == b"hydrant!")
rule("6.7", "an answer to no PING is ignored", frame(PING, ACK, 0, b"12345678"), fine)
rule("6.7", "PING of a stream", frame(PING, 0, 1, b"12345678"), connection_error(PROTOCOL))
rule("6.7", "PING of another length", frame(PING, 0, 0, b"1234567"), connection_error(SIZE))
rule("6.8", "GOAWAY of a stream", frame(GOAWAY, 0, 1, b"\0" * 8), connection_error(PROTOCOL))
rule("6.9", "WINDOW_UPDATE of 0 for the connection", frame(WINDOW, 0, 0, b"\0\0\0\0"), connection_error(PROTOCOL))
rule("6.9", "WINDOW_UPDATE of 0 for a stream", ENDED + frame(WINDOW, 0, 1, b"\0\0\0\0"), stream_error(1, PROTOCOL))
rule("6.9", "WINDOW_UPDATE of another length", frame(WINDOW, 0, 0, b"\0\0\x01"), connection_error(SIZE))
rule("6.9.1", "a window above the largest, of the connection", frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff"),
     connection_error(FLOW))
rule("6.9.1", "a window above the largest, of a stream", ENDED + frame(WINDOW, 0, 1, b"\x7f\xff\xff\xff"),
     stream_error(1, FLOW))


def window_is_kept():
    """With a window of one byte an answer has one byte a frame, and waits for each next one."""
    connection = Connection(setting(4, 1))
    connection.send(request(1, GOOD))
    first = connection.until(lambda got: got.type == DATA or is_goaway(got))
    connection.send(frame(PING, 0, 0, b"12345678"))
    between = connection.until(lambda got: got.type == DATA or (isinstance(got, PingFrame) and "ACK" in got.flags))
    connection.send(frame(WINDOW, 0, 1, b"\0\0\0\x01"))
    second = connection.until(lambda got: got.type == DATA or is_goaway(got))
    sizes = [len(each.data) for each in (first, second)]
    return sizes == [1, 1] and isinstance(between, PingFrame), connection.told()


RULES.append(("6.9.1", "no more is sent than the window takes", window_is_kept))


def flow_control_is_enforced():
    """More DATA than the window of the stream, to an instance that reads nothing."""
    connection = Connection()
    fields = instead(POST, ":path", "/api/slow/never")
    connection.send(request(1, fields, end=False))
    for _ in range(2000):
        connection.send(frame(DATA, 0, 1, b"x" * 16384))
        if connection.ended:
            break
    got = connection.until(lambda got: isinstance(got, (RstStreamFrame, GoAwayFrame)))
    return got is None or got.error_code == FLOW, connection.told()


RULES.append(("6.9.1", "more than the window takes is refused", flow_control_is_enforced))

# 8: requests
rule("8.1", "a request in three frames passes",
     request(1, instead(GOOD, ":method", "POST"), end=False) + frame(DATA, 0, 1, b"hello") + frame(DATA, END_STREAM, 1),
     fine)
rule("8.1", "trailers that do not end the stream",
     request(1, POST, end=False) + frame(DATA, 0, 1, b"x") + request(1, [("a", "b")], end=False),
     stream_error(1, PROTOCOL))
for length, sent in (("1", b"hello"), ("9", b"hello"), ("5", b"")):
    rule("8.1.1", f"content-length {length}, and {len(sent)} bytes",
         request(1, POST + [("content-length", length)], end=False) + frame(DATA, END_STREAM, 1, sent),
         stream_error(1, PROTOCOL))
rule("8.1.1", "content-length, and no body at all", request(1, POST + [("content-length", "5")]), stream_error(1, PROTOCOL))
rule("8.1.1", "two different content-lengths",
     request(1, POST + [("content-length", "5"), ("content-length", "6")], end=False)
     + frame(DATA, END_STREAM, 1, b"hello"), stream_error(1, PROTOCOL))
rule("8.1.1", "a content-length that is no number",
     request(1, POST + [("content-length", "+5")], end=False) + frame(DATA, END_STREAM, 1, b"hello"),
     stream_error(1, PROTOCOL))
for name, value in (
    ("Upper", "x"), ("a b", "x"), ("a:b", "x"), ("", "x"), ("a\x00", "x"), ("a\x7f", "x"), (b"a\xe4", "x"),
    ("a", "x\x00y"), ("a", "x\ry"), ("a", "x\ny"), ("a", "x\r\nb: y"),
):
    rule("8.2.1", f"a field {name!r}: {value!r}", request(1, BAD + [(name, value)]), stream_error(1, PROTOCOL))
for value in (" x", "x ", "\tx"):
    rule("8.2.1", f"a value with white space around it: {value!r}", request(1, BAD + [("a", value)]),
         stream_error(1, PROTOCOL))
for name, value in (
    ("connection", "close"), ("connection", "a"), ("keep-alive", "timeout=5"), ("proxy-connection", "close"),
    ("transfer-encoding", "chunked"), ("upgrade", "websocket"), ("te", "gzip"), ("te", "trailers, gzip"),
):
    rule("8.2.2", f"a field of one connection, {name}: {value}", request(1, BAD + [(name, value)]),
         stream_error(1, PROTOCOL))
rule("8.2.2", "te: trailers passes", request(1, GOOD + [("te", "trailers")]), fine)
rule("8.3", "an unknown pseudo-field", request(1, BAD + [(":odd", "x")]), stream_error(1, PROTOCOL))
rule("8.3", "a pseudo-field of answers", request(1, BAD + [(":status", "200")]), stream_error(1, PROTOCOL))
rule("8.3", "a pseudo-field behind a field", request(1, BAD[:3] + [("a", "b")] + BAD[3:]), stream_error(1, PROTOCOL))
rule("8.3", "a pseudo-field in trailers is refused, or left out",
     request(1, instead(GOOD, ":method", "POST"), end=False) + frame(DATA, 0, 1, b"x") + request(1, [(":path", "/")]),
     serves)
for name in (":method", ":scheme", ":path"):
    rule("8.3.1", f"{name} is missing", request(1, without(BAD, name)), stream_error(1, PROTOCOL))
for name, value in (":method", "GET"), (":scheme", "http"), (":path", "/api/web/bad"), (":authority", "test"):
    rule("8.3.1", f"{name} twice", request(1, BAD + [(name, value)]), stream_error(1, PROTOCOL))
rule("8.3.1", "an empty :path", request(1, instead(BAD, ":path", "")), stream_error(1, PROTOCOL))
rule("8.3.1", "a :path without a slash", request(1, instead(BAD, ":path", "api/web/bad")), stream_error(1, PROTOCOL))
rule("8.3.1", "a :path with a space", request(1, instead(BAD, ":path", "/api/web/bad x")), stream_error(1, PROTOCOL))
rule("8.3.1", "a user in :authority", request(1, instead(BAD, ":authority", "me@test")), stream_error(1, PROTOCOL))
rule("8.3.1", "a host that differs from :authority", request(1, BAD + [("host", "other")]), stream_error(1, PROTOCOL))
rule("8.3.1", "two hosts", request(1, without(BAD, ":authority") + [("host", "a"), ("host", "b")]),
     stream_error(1, PROTOCOL))
rule("8.3.1", "host alone passes", request(1, without(GOOD, ":authority") + [("host", "test")]), fine)
rule("8.3.1", "a malformed method", request(1, instead(BAD, ":method", "GE T")), stream_error(1, PROTOCOL))
rule("8.5", "CONNECT with a path", request(1, instead(BAD, ":method", "CONNECT")), stream_error(1, PROTOCOL))


def a_foreign_library_is_served():
    """`h2` watches whether all that comes keeps the rules for answers, for 50 requests on one connection."""
    config = h2.config.H2Configuration(client_side=True)
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    wire = socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE)
    for number in range(50):
        stream = connection.get_next_available_stream_id()
        fields = instead(GOOD, ":method", "POST") + [("a", str(number))]
        connection.send_headers(stream, fields)
        connection.send_data(stream, b"x" * number * 20, end_stream=True)
    wire.sendall(connection.data_to_send())
    ended = 0
    while ended < 50:
        data = wire.recv(65536)
        if not data:
            break
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            ended += isinstance(event, h2.events.StreamEnded)
        wire.sendall(connection.data_to_send())
    return ended == 50, [f"{ended} streams ended"]


RULES.append(("8", "a library for HTTP/2 finds nothing wrong in the answers", a_foreign_library_is_served))


def tables_are_shared():
    """Fields out of the dynamic table, over many requests."""
    connection, encoder = Connection(), Encoder()
    for number in range(20):
        fields = GOOD + [("shared", "x" * 100), ("own", str(number))]
        data = encoder.encode(fields)
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, data))
    for _ in range(20):
        answer = connection.until(lambda got: isinstance(got, (HeadersFrame, GoAwayFrame)))
        if not isinstance(answer, HeadersFrame):
            return False, connection.told()
    return True, connection.told()


RULES.append(("4.3", "a table of fields that both sides know", tables_are_shared))


def tell(each):
    section, what, holds = each
    try:
        ok, seen = holds()
    except Exception as error:  # whatever goes wrong is a rule that does not hold
        ok, seen = False, [repr(error)]
    return json.dumps({"section": section, "what": what, "ok": ok, "seen": seen[-6:]})


with ThreadPoolExecutor(8) as pool:
    for line in pool.map(tell, RULES):
        print(line, flush=True)
