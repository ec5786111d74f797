"""Calls methods with grpcio, at their bare paths. Calls and answers are as those of connect.mjs.

    python3 grpc_client.py DESCRIPTORS
"""

import json
import sys
from urllib.parse import urlsplit

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

with open(sys.argv[1], "rb") as file:
    FILES = descriptor_pb2.FileDescriptorSet.FromString(file.read())
POOL = descriptor_pool.DescriptorPool()
for proto in FILES.file:
    POOL.Add(proto)
CHANNELS = {}


def channel(base):
    address = urlsplit(base).netloc
    if address not in CHANNELS:
        CHANNELS[address] = grpc.insecure_channel(address)
    return CHANNELS[address]


def call(base, method, message, headers):
    service, name = method.split("/")
    described = POOL.FindServiceByName(service).FindMethodByName(name)
    request = message_factory.GetMessageClass(described.input_type)()
    json_format.ParseDict(message, request)
    answer_class = message_factory.GetMessageClass(described.output_type)
    kind = "unary_stream" if described.server_streaming else "unary_unary"
    invoke = getattr(channel(base), kind)(
        f"/{method}",
        request_serializer=lambda each: each.SerializeToString(),
        response_deserializer=answer_class.FromString,
    )
    answer = invoke(request, timeout=20, metadata=list(headers.items()))
    if described.server_streaming:
        first = next(answer)
        answer.cancel()
        answer = first
    return json_format.MessageToDict(answer, preserving_proto_field_name=True)


for line in sys.stdin:
    try:
        outcome = {"answer": call(**json.loads(line))}
    except grpc.RpcError as error:
        outcome = {"code": error.code().name, "message": error.details()}
    print(json.dumps(outcome), flush=True)
