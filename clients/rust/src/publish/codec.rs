//! Puts batches on the wire as they are.
//!
//! The generated code would take a list of messages and encode each of them here; a [`Batch`](super::Batch) is encoded
//! already, and one copy into the output buffer is all that is left to do.

use bytes::{BufMut, Bytes};
use prost::Message as _;
use tandem_proto::messaging::v1::{ProducerPosition, PublishStreamRequest, PublishStreamResponse};
use tonic::{
    Status, Streaming,
    client::Grpc,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
};
use tonic_prost::{ProstCodec, ProstDecoder};

use crate::Client;

const PATH: &str = "/aintandem.messaging.v1.PublishService/PublishStream";

/// Output is handed to the connection in pieces of this size, in bytes, and buffers grow by it.
const BUFFER_BYTES: usize = 64 << 10;

/// A `PublishStreamRequest` whose messages are encoded.
#[derive(Debug)]
pub(super) struct EncodedRequest {
    /// Given in the first request of a stream, empty in later ones.
    pub(super) workspace_id: String,
    pub(super) request_id: u64,
    /// Of the first message.
    pub(super) producer: Option<ProducerPosition>,
    pub(super) body: Bytes,
}

/// Opens the stream; ends when `requests` ends.
pub(super) async fn open<S>(client: &Client, requests: S) -> Result<Streaming<PublishStreamResponse>, Status>
where
    S: futures_util::Stream<Item = EncodedRequest> + Send + 'static,
{
    let settings = client.settings();
    let mut grpc = Grpc::new(client.channel())
        .max_encoding_message_size(settings.max_request_bytes)
        .max_decoding_message_size(settings.max_response_bytes);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let answer = grpc.streaming(client.stream_request(requests), PathAndQuery::from_static(PATH), BatchCodec).await?;
    Ok(answer.into_inner())
}

struct BatchCodec;

impl Codec for BatchCodec {
    type Encode = EncodedRequest;
    type Decode = PublishStreamResponse;
    type Encoder = BatchEncoder;
    type Decoder = ProstDecoder<PublishStreamResponse>;

    fn encoder(&mut self) -> Self::Encoder {
        BatchEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<PublishStreamRequest, PublishStreamResponse>::raw_decoder(BufferSettings::default())
    }
}

struct BatchEncoder;

impl Encoder for BatchEncoder {
    type Item = EncodedRequest;
    type Error = Status;

    fn encode(&mut self, request: EncodedRequest, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Room for the head as well, so that the buffer grows once.
        let producer_bytes = request.producer.as_ref().map_or(0, |producer| producer.producer_id.len());
        buffer.reserve(request.body.len() + request.workspace_id.len() + producer_bytes + 48);
        write(request, buffer)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, BUFFER_BYTES)
    }
}

/// Fields of a message may come in any order: all but `messages` are encoded as a request without messages.
fn write(request: EncodedRequest, buffer: &mut impl BufMut) -> Result<(), Status> {
    let head = PublishStreamRequest {
        workspace_id: request.workspace_id,
        request_id: request.request_id,
        messages: Vec::new(),
        producer: request.producer,
    };
    head.encode(buffer).map_err(|error| Status::internal(error.to_string()))?;
    buffer.put_slice(&request.body);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Message, to_sandbox};

    #[test]
    fn a_batch_is_a_request_of_the_contract() {
        let message = Message {
            from_sandbox_id: "a".into(),
            destination: Some(to_sandbox("b")),
            content: vec![7; 300].into(),
            ..Message::default()
        };
        let mut batch = Batch::with_capacity(100);
        batch.push(&message);
        batch.push_encoded(&message.encode_to_vec());
        batch.push(&Message::default());
        assert_eq!((batch.len(), batch.is_empty()), (3, false));
        let expected = PublishStreamRequest {
            workspace_id: "w".into(),
            request_id: 300,
            messages: vec![message.clone(), message, Message::default()],
            producer: Some(ProducerPosition { producer_id: "p".into(), sequence: 9 }),
        };
        let request = EncodedRequest {
            workspace_id: "w".into(),
            request_id: 300,
            producer: expected.producer.clone(),
            body: batch.into_body().freeze(),
        };
        let mut wire = Vec::new();
        write(request, &mut wire).expect("a Vec has room");
        assert_eq!(wire.len(), expected.encoded_len());
        assert_eq!(PublishStreamRequest::decode(wire.as_slice()).expect("a request"), expected);
    }
}
