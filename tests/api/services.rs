//! What every gRPC tool expects of a server.

use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::server::Roost;

const SERVICES: [&str; 6] = [
    "roost.v1.GraphService",
    "roost.v1.MessageService",
    "roost.v1.NotificationService",
    "roost.v1.PostService",
    "roost.v1.StatusService",
    "roost.v1.TimelineService",
];

#[tokio::test(flavor = "multi_thread")]
async fn health_says_that_the_server_and_each_service_serve() {
    let roost = Roost::start().await;
    let mut health = HealthClient::new(roost.channel());
    for service in SERVICES.into_iter().chain([""]) {
        let request = HealthCheckRequest { service: service.to_owned() };
        let checked = health.check(request).await.expect(service).into_inner();
        assert_eq!(checked.status(), ServingStatus::Serving, "{service:?}");
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services_and_knows_their_files() {
    let roost = Roost::start().await;
    let MessageResponse::ListServicesResponse(list) =
        reflect(&roost, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let mut listed: Vec<String> = list.service.into_iter().map(|it| it.name).collect();
    listed.retain(|name| name.starts_with("roost."));
    listed.sort();
    assert_eq!(listed, SERVICES);
    for service in SERVICES {
        let symbol = MessageRequest::FileContainingSymbol(service.to_owned());
        let response = reflect(&roost, symbol).await;
        assert!(matches!(response, MessageResponse::FileDescriptorResponse(_)), "{response:?}");
    }
    roost.stop().await;
}

async fn reflect(roost: &Roost, request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut reflection = ServerReflectionClient::new(roost.channel());
    let responses = reflection.server_reflection_info(tokio_stream::once(request)).await;
    let response = responses.expect("a stream").into_inner().message().await.expect("not broken");
    response.expect("a response").message_response.expect("an answer")
}
