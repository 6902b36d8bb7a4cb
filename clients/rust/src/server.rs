//! What the broker says about itself.

use tandem_proto::server::v1::{GetServerInfoRequest, server_service_client::ServerServiceClient};

use crate::{Client, Error, ServerInfo};

pub(crate) async fn info(client: &Client) -> Result<ServerInfo, Error> {
    let mut service = ServerServiceClient::new(client.channel());
    let answer = service.get_server_info(client.request(GetServerInfoRequest {})).await;
    answer.map(tonic::Response::into_inner).map_err(|status| client.error(&status))
}
