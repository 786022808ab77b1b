//! Connections that are held and of no use.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use roost::{
    app::{App, Settings},
    listener::raise_descriptor_limit,
    proto::v1::StreamHomeTimelineRequest,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use crate::victim::{DEADLINE, Victim, framed};

/// Connections that have sent so much and no more.
async fn hold(address: SocketAddr, count: usize, sent: &[u8]) -> Vec<TcpStream> {
    // This process needs as many descriptors.
    raise_descriptor_limit();
    let mut held = Vec::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(address).await.expect("connected");
        // It may be closed already.
        let _ = socket.write_all(sent).await;
        held.push(socket);
    }
    held
}

/// Waits until the server has closed all of them.
async fn assert_closed(held: Vec<TcpStream>) {
    let closed = async {
        for mut socket in held {
            let mut rest = Vec::new();
            // Reset or closed, either is good.
            let _ = socket.read_to_end(&mut rest).await;
        }
    };
    tokio::time::timeout(DEADLINE, closed).await.expect("they are closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_leave_room_under_a_low_limit() {
    let victim = Victim::start_with_open_files(1_024);
    let mut old = victim.neighbour().await;
    let held = hold(victim.address, 1_100, b"").await;
    old.call(20).await;
    // A new client is served too, though nothing has been closed by its peers.
    let mut new = victim.neighbour().await;
    new.call(20).await;
    assert!(victim.metric("roost_connections").await <= 600.0);
    let closed = victim.metric("roost_closed_connections_total").await;
    let refused = victim.metric("roost_refused_connections_total").await;
    assert!(closed + refused > 0.0);
    assert_eq!(victim.metric("roost_accept_failures_total").await, 0.0);
    old.assert_served();
    new.assert_served();
    assert_closed(held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_preface_are_closed() {
    let victim = Victim::start();
    let mut neighbour = victim.neighbour().await;
    let mut held = hold(victim.address, 2_000, b"").await;
    held.extend(hold(victim.address, 100, b"PRI * HTTP/2.0\r\n").await);
    neighbour.call(20).await;
    victim.assert_memory();
    assert_closed(held).await;
    victim.until("roost_connections", |count| count <= 2.0).await;
    neighbour.assert_served();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_headers_of_metrics_are_closed() {
    let victim = Victim::start();
    let held = hold(victim.metrics_address, 10, b"GET /metrics HTTP/1.1\r\nhost: ").await;
    let silent = hold(victim.metrics_address, 10, b"").await;
    assert_closed(held).await;
    assert_closed(silent).await;
    assert!(victim.metric("roost_deliveries_total").await == 0.0, "it answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_calls_is_closed_in_order() {
    let dir = TempDir::new().expect("a directory");
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut settings = Settings::new(PathBuf::from(dir.path()).join("data"), listen);
    settings.connections.times.idle_max = Duration::from_secs(1);
    let app = App::start(settings, &CancellationToken::new()).await.expect("started");
    let socket = TcpStream::connect(app.address()).await.expect("connected");
    let (_client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    let ended = tokio::time::timeout(DEADLINE, connection).await.expect("it is closed");
    ended.expect("in order");
    app.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_a_thousand_streams_and_no_more() {
    let victim = Victim::start();
    let client = victim.h2(1 << 16).await;
    let request =
        framed(&StreamHomeTimelineRequest { user_id: 1, ..StreamHomeTimelineRequest::default() });
    let mut open = Vec::new();
    for _ in 0..1_000 {
        let mut client = client.clone().ready().await.expect("ready");
        let head = victim.request("TimelineService/StreamHomeTimeline");
        let (answer, mut body) = client.send_request(head, false).expect("sent");
        body.send_data(request.clone(), true).expect("sent");
        open.push(answer.await.expect("an answer"));
    }
    assert_eq!(client.current_max_send_streams(), 1_000);
    victim.until("roost_grpc_home_streams", |count| count == 1_000.0).await;
    victim.neighbour().await.call(1).await;
}
