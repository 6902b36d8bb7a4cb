"""A client that knows an address and nothing else: it learns the contract by reflection, publishes a message, receives
it and acknowledges it. Usage: stranger.py HOST:PORT"""

import json
import queue
import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PATIENCE_S = 20


class Broker:
    """Calls methods by their names, with messages made from the descriptors that the server gives."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        return sorted(self.database.get_services())

    def message(self, name, **fields):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))(**fields)

    def method(self, service, name):
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        takes = message_factory.GetMessageClass(method.input_type)
        gives = message_factory.GetMessageClass(method.output_type)
        kind = ("stream" if method.client_streaming else "unary") + "_" + (
            "stream" if method.server_streaming else "unary"
        )
        call = getattr(self.channel, kind)(
            f"/{service}/{name}", request_serializer=takes.SerializeToString, response_deserializer=gives.FromString
        )
        return takes, lambda request: call(request, timeout=PATIENCE_S)


def register(broker, sandbox):
    takes, call = broker.method("aintandem.registry.v1.RegistryService", "RegisterSandbox")
    call(takes(workspace_id="default", sandbox={"sandbox_id": sandbox}))


def publish(broker, content):
    takes, call = broker.method("aintandem.messaging.v1.PublishService", "Publish")
    message = {
        "from_sandbox_id": "stranger",
        "destination": {"sandbox_id": "friend"},
        "type": "MESSAGE_TYPE_NOTIFICATION",
        "content": content,
        "metadata": {"language": "python"},
    }
    return call(takes(workspace_id="default", message=message))


def receive_and_acknowledge(broker):
    takes, call = broker.method("aintandem.messaging.v1.SubscribeService", "Subscribe")
    requests = queue.Queue()
    answers = call(iter(requests.get, None))
    requests.put(takes(open={"workspace_id": "default", "sandbox_id": "friend"}))
    requests.put(takes(credit={"messages": 10, "bytes": 1 << 20}))
    delivery = None
    for answer in answers:
        kind = answer.WhichOneof("kind")
        if kind == "delivery_batch":
            delivery = answer.delivery_batch.deliveries[0]
            requests.put(takes(ack={"ranges": [{"first": delivery.delivery_id, "last": delivery.delivery_id}]}))
        elif kind == "ack_outcome":
            requests.put(None)
            return delivery.message, answer.ack_outcome.acknowledged
    raise SystemExit("the stream ended before the acknowledgement was confirmed")


def refusal(broker):
    """What a wrong request gets: the code and the text, as any gRPC client sees them."""
    takes, call = broker.method("aintandem.registry.v1.RegistryService", "GetSandbox")
    try:
        call(takes(workspace_id="default", sandbox_id="nobody"))
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise SystemExit("a sandbox that is not registered was found")


def main():
    broker = Broker(sys.argv[1])
    for sandbox in ("stranger", "friend"):
        register(broker, sandbox)
    published = publish(broker, b"hello from elsewhere")
    received, acknowledged = receive_and_acknowledge(broker)
    code, text = refusal(broker)
    print(
        json.dumps(
            {
                "services": broker.services(),
                "message_id": published.message_id,
                "sequence": published.sequence,
                "received_sequence": received.sequence,
                "content": received.content.decode(),
                "metadata": dict(received.metadata),
                "acknowledged": acknowledged,
                "refusal": [code, text],
            }
        )
    )


if __name__ == "__main__":
    main()
