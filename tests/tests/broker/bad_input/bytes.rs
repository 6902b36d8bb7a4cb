//! Bytes that are no request.

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use tandem_proto::raw::messaging::v1::{PublishRequest, publish_service_client::PublishServiceClient};
use tandem_tests::{Random, Refused, direct};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tonic::{
    Code, Request, Status,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service as _, http},
    transport::Channel,
};

use crate::stage::{Stage, WORKSPACE};

const PUBLISH: &str = "/aintandem.messaging.v1.PublishService/Publish";
const UNARY_CALLS: [&str; 6] = [
    PUBLISH,
    "/aintandem.messaging.v1.HistoryService/ListMessages",
    "/aintandem.registry.v1.RegistryService/RegisterSandbox",
    "/aintandem.registry.v1.RegistryService/DiscoverAgents",
    "/aintandem.workspace.v1.WorkspaceService/CreateWorkspace",
    "/aintandem.workspace.v1.WorkspaceService/DeleteWorkspace",
];
const STREAMS: [&str; 2] =
    ["/aintandem.messaging.v1.PublishService/PublishStream", "/aintandem.messaging.v1.SubscribeService/Subscribe"];

/// Sends and takes bytes as they are.
#[derive(Clone, Copy, Default)]
struct AsTheyAre;

impl Codec for AsTheyAre {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, bytes: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(bytes);
        Ok(())
    }
}

impl Decoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(bytes.copy_to_bytes(bytes.remaining())))
    }
}

async fn call(channel: Channel, path: &'static str, body: &[u8]) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let request = Request::new(Bytes::copy_from_slice(body));
    Ok(grpc.unary(request, path.parse().unwrap(), AsTheyAre).await?.into_inner())
}

async fn call_stream(channel: Channel, path: &'static str, body: &[u8]) -> Result<Option<Bytes>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    // The client's half stays open: what ends the stream is what it says.
    let requests = futures_util::StreamExt::chain(
        futures_util::stream::iter([Bytes::copy_from_slice(body)]),
        futures_util::stream::pending(),
    );
    let answer = grpc.streaming(Request::new(requests), path.parse().unwrap(), AsTheyAre).await?;
    answer.into_inner().message().await
}

async fn expect_it_still_works(stage: &Stage) {
    stage.publish(direct("alice", "bob", "still here")).await;
    assert_eq!(stage.broker.get("/health").await.status, 200);
}

/// Field 1 with a length beyond the end; a number that does not end; a wrong type for field 1; field number 0; broken UTF-8
/// in field 1, which is a text in all of these requests but one.
const NO_PROTOBUF: [&[u8]; 5] = [
    b"\x0a\x7fabc",
    b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x0d1234",
    b"\x00\x00",
    b"\x0a\x02\xff\xfe",
];

#[tokio::test]
async fn bytes_that_are_no_request_are_the_callers_mistake() {
    let stage = Stage::with(&["alice", "bob"]).await;
    for body in NO_PROTOBUF {
        for path in UNARY_CALLS {
            let status = call(stage.broker.channel(), path, body).await.unwrap_err();
            Refused::from(status).expect(
                Code::InvalidArgument,
                "MALFORMED_REQUEST",
                &["protobuf message", "check it against the contract"],
            );
        }
        for path in STREAMS {
            let status = call_stream(stage.broker.channel(), path, body).await.unwrap_err();
            Refused::from(status).expect(
                Code::InvalidArgument,
                "MALFORMED_REQUEST",
                &["protobuf message", "check it against the contract"],
            );
        }
    }
    expect_it_still_works(&stage).await;
}

/// The broker stores messages as they come, so it reads them itself.
#[tokio::test]
async fn broken_utf_8_within_a_message_is_named_with_its_field() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let good = direct("alice", "bob", "x").encode_to_vec();
    let broken: [(&[u8], &str); 7] = [
        (b"\x0a\x02\xff\xfe", "message_id"),
        (b"\x12\x03ab\xc3", "from_sandbox_id"),
        (b"\x1a\x01\x80", "from_agent"),
        (b"\x2a\x01\x80", "to_agent"),
        (b"\x42\x01\x80", "content_type"),
        (b"\x5a\x02o\x80", "correlation_id"),
        (b"\x6a\x06\x0a\x01k\x12\x01\x80", "metadata"),
    ];
    for (field, name) in broken {
        let status = publish_raw(&stage, [&good, field].concat()).await.unwrap_err();
        Refused::from(status)
            .expect(Code::InvalidArgument, "INVALID_FIELD", &[name, "is not valid UTF-8 at byte"])
            .at(name);
    }
    expect_it_still_works(&stage).await;
}

#[tokio::test]
async fn a_message_that_is_no_protobuf_is_refused() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let good = direct("alice", "bob", "x").encode_to_vec();
    let broken: [(&[u8], &str, &str); 5] = [
        (b"\x3a\x7fx", "message", "is not valid protobuf: it ends too early"),
        (b"\x30\xff", "message", "is not valid protobuf: a number does not end"),
        (b"\x3b", "message", "is not valid protobuf: wire type 3"),
        (b"\x38\x01", "content", "has the wrong protobuf type"),
        (b"\x22\x03\x0a\x09a", "destination", "is not valid protobuf: it ends too early"),
    ];
    for (field, name, says) in broken {
        let status = publish_raw(&stage, [&good, field].concat()).await.unwrap_err();
        Refused::from(status).expect(Code::InvalidArgument, "INVALID_FIELD", &[says]).at(name);
    }
    let status = publish_raw(&stage, [&good, &b"\xc2\x3e\x01x"[..]].concat()).await.unwrap_err();
    Refused::from(status).expect(Code::Unimplemented, "UNSUPPORTED_FIELD", &["field 1000", "does not know"]);
    expect_it_still_works(&stage).await;
}

async fn publish_raw(stage: &Stage, message: Vec<u8>) -> Result<(), Status> {
    let mut service = PublishServiceClient::new(stage.broker.channel());
    let request = PublishRequest { workspace_id: WORKSPACE.to_owned(), message: message.into(), producer: None };
    service.publish(request).await.map(drop)
}

/// A thousand messages, each a good one with a few bytes changed: every answer is a clear one, and nobody dies.
#[tokio::test]
async fn spoilt_messages_are_stored_or_refused_and_nothing_else() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut random = Random::from_environment();
    let good = direct("alice", "bob", "some content").encode_to_vec();
    let mut stored = 0;
    for _ in 0..1_000 {
        let mut message = good.clone();
        for _ in 0..random.between(1, 4) {
            let at = random.between(0, message.len() as u64 - 1) as usize;
            message[at] = random.next() as u8;
        }
        match publish_raw(&stage, message.clone()).await {
            Ok(()) => stored += 1,
            Err(status) => {
                let refused = Refused::from(status);
                let known = [
                    "INVALID_FIELD",
                    "UNSUPPORTED_FIELD",
                    "UNKNOWN_SANDBOX",
                    "UNKNOWN_TOPIC",
                    "NO_CAPABLE_SANDBOX",
                    "MESSAGE_ID_REUSED",
                ];
                assert!(known.contains(&refused.reason.as_str()), "{message:?} gave {refused:?}");
            }
        }
    }
    let listed = stage.history(Default::default()).await;
    assert_eq!(listed.len(), stored, "what was acknowledged can be read again");
    expect_it_still_works(&stage).await;
}

#[tokio::test]
async fn a_compressed_request_is_refused_with_what_is_served() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut channel = stage.broker.channel();
    let request = http::Request::post(format!("http://{}{PUBLISH}", stage.broker.grpc_address()))
        .header("content-type", "application/grpc")
        .header("grpc-encoding", "gzip")
        .body(Body::new("\u{1}\0\0\0\u{5}hello".to_owned()))
        .unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).expect("the call is refused at once");
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert!(status.message().contains("gzip"), "{status:?}");
    expect_it_still_works(&stage).await;
}

#[tokio::test]
async fn an_unknown_call_is_unimplemented() {
    let stage = Stage::with(&["alice", "bob"]).await;
    for path in ["/aintandem.messaging.v1.PublishService/Forget", "/elsewhere.v1.Service/Call", "/"] {
        let status = call(stage.broker.channel(), path, b"").await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
    expect_it_still_works(&stage).await;
}

/// Not even HTTP/2.
#[tokio::test]
async fn noise_on_the_port_does_no_harm() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut random = Random::from_environment();
    let noise: Vec<u8> = (0..4_096).map(|_| random.next() as u8).collect();
    for noise in
        [&noise[..], b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff", b""]
    {
        let mut connection = TcpStream::connect(stage.broker.grpc_address()).await.unwrap();
        connection.write_all(noise).await.ok();
        drop(connection);
    }
    expect_it_still_works(&stage).await;
}
