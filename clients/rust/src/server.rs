//! What the broker says about itself.

use tandem_proto::server::v1::{GetCallerRequest, GetServerInfoRequest, server_service_client::ServerServiceClient};

use crate::{Client, Error, KnownCaller, ServerInfo};

pub(crate) async fn info(client: &Client) -> Result<ServerInfo, Error> {
    let mut service = ServerServiceClient::new(client.calls());
    let answer = service.get_server_info(client.request(GetServerInfoRequest {})).await;
    answer.map(tonic::Response::into_inner).map_err(|status| client.error(&status))
}

pub(crate) async fn caller(client: &Client) -> Result<KnownCaller, Error> {
    let mut service = ServerServiceClient::new(client.calls());
    let answer = service.get_caller(client.request(GetCallerRequest {})).await;
    answer.map(tonic::Response::into_inner).map_err(|status| client.error(&status))
}
