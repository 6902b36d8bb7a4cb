//! The gRPC server: connections, health, reflection.

use std::{sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tonic::transport::Server;

use tower::util::{MapResponseLayer, option_layer};

use crate::{
    auth::layer::MAX_HEADER_BYTES,
    connections::{Connections, arriving},
    grpc::{Edge, status},
    tls::ServerTls,
};

/// HTTP/2 windows: the default of 64 KiB would stop a publisher of large batches after each round trip.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// As of 32 streams: some that stand still do not stop those beside them.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Streams of one connection at once.
const MAX_STREAMS_PER_CONNECTION: u32 = 4_096;
/// Headers of one request that are read: four times what the door lets in, so that it can say what is wrong.
const MAX_READ_HEADER_BYTES: u32 = 4 * MAX_HEADER_BYTES as u32;
/// Bytes of a question about health.
const MAX_HEALTH_BYTES: usize = 1 << 10;
/// A peer that does not answer a ping for this long has gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until told to stop, then until requests under way have ended.
pub(crate) async fn grpc(
    listener: TcpListener,
    (tls, places): (Option<Arc<ServerTls>>, Arc<Connections>),
    edge: Edge,
    mut stopping: watch::Receiver<bool>,
) {
    let (health, health_service) = tonic_health::server::health_reporter();
    // Whoever asks has shown nothing: a name of a service, and no more, is read of it.
    let health_service = health_service.max_decoding_message_size(MAX_HEALTH_BYTES);
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tandem_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // The older protocol too: many tools still ask in it.
    let (reflection, reflection_alpha) = match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(service), Ok(older)) => (service, older),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "the descriptor set cannot be served");
            return;
        }
    };
    // A node that is alone has nobody to forward to, and its requests do not pass there.
    let (forwarding, door) = (edge.forwarding(), edge.door.clone());
    let (limits, metrics) = (edge.limits, std::sync::Arc::clone(&edge.metrics));
    let router = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(MAX_READ_HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(MapResponseLayer::new(move |response| status::translate_response(response, &limits, &metrics)))
        .layer(door)
        .layer(option_layer(forwarding))
        .add_routes(edge.routes())
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_alpha);
    let stopped = async move {
        while !*stopping.borrow_and_update() {
            if stopping.changed().await.is_err() {
                return;
            }
        }
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    };
    let served = router.serve_with_incoming_shutdown(arriving(listener, tls, places), stopped).await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server ended");
    }
}
