//! Connections: no more than there may be, none that says nothing, and all of them end with the service.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_util::task::TaskTracker;

use crate::{config::Limits, tls::Tls};

/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to stop. What is under way then is in `tasks`, and ends with its answer.
pub(crate) async fn serve(
    (listener, tls): (TcpListener, Option<Arc<Tls>>),
    router: Router,
    limits: Limits,
    (tasks, mut stopping): (TaskTracker, watch::Receiver<bool>),
) {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let idle = Duration::from_millis(limits.idle_timeout_ms);
    loop {
        // Who comes when there are as many as there may be waits in the queue of the system.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Some((place, Ok((stream, _)))) => {
                // Without it a small answer waits up to 40 ms for the peer's delayed acknowledgement.
                stream.set_nodelay(true).ok();
                let (router, stopping) = (router.clone(), stopping.clone());
                match tls.clone() {
                    None => tasks.spawn(connection(stream, router, idle, stopping, place)),
                    Some(tls) => tasks.spawn(async move {
                        match tls.shake_hands(stream).await {
                            Ok(stream) => connection(stream, router, idle, stopping, place).await,
                            Err(error) => tracing::debug!(%error, "a client and this service do not agree on TLS"),
                        }
                    }),
                };
            }
            Some((_, Err(error))) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
            None => return,
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    idle: Duration,
    mut stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let mut served = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            // For the head of a request, and between two of them.
            .header_read_timeout(idle)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
            .with_upgrades()
    );
    let told = async { stopping.wait_for(|stopping| *stopping).await.is_ok() };
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        _ = told => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection has ended");
    }
}
