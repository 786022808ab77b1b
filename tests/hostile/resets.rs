//! Streams that are opened to be reset.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::victim::{Victim, framed, post};

/// Streams that a client opens at most. Many are on their way when the server ends the
/// connection.
const STREAMS_MAX: u32 = 300_000;
/// Calls of a connection that the server may begin.
const CALLS_MAX: f64 = 5_000.0;

/// How a stream is made to be reset.
#[derive(Clone, Copy)]
enum Trick {
    /// A WINDOW_UPDATE that overflows, after which the server resets it.
    Overflow,
    /// RST_STREAM.
    Reset,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers without a table: each a literal.
fn headers(address: SocketAddr) -> Vec<u8> {
    let authority = address.to_string();
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/roost.v1.PostService/PublishPost"),
        (":authority", authority.as_str()),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Opens streams until the server ends the connection; how many there were.
async fn attack(address: SocketAddr, trick: Trick) -> u32 {
    let mut socket = TcpStream::connect(address).await.expect("connected");
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(4, 0, 0, &[]));
    socket.write_all(&hello).await.expect("sent");
    let (mut reading, mut writing) = socket.split();
    let drained = async {
        let mut buffer = vec![0; 64 << 10];
        while matches!(reading.read(&mut buffer).await, Ok(count) if count > 0) {}
    };
    let block = headers(address);
    let body = framed(&post(9, "hello".to_owned()));
    let sent = async {
        for number in 0..STREAMS_MAX {
            let stream = 2 * number + 1;
            let mut bytes = frame(1, 4, stream, &block);
            bytes.extend(frame(0, 1, stream, &body));
            bytes.extend(match trick {
                Trick::Overflow => frame(8, 0, stream, &i32::MAX.to_be_bytes()),
                Trick::Reset => frame(3, 0, stream, &8_u32.to_be_bytes()),
            });
            if writing.write_all(&bytes).await.is_err() {
                return number;
            }
        }
        STREAMS_MAX
    };
    tokio::pin!(drained, sent);
    tokio::select! {
        streams = &mut sent => streams,
        // It has closed: the next write fails.
        () = &mut drained => sent.await,
    }
}

async fn attack_on_four_connections(trick: Trick) {
    let victim = Victim::start();
    let mut neighbour = victim.neighbour().await;
    for _ in 0..5 {
        let address = victim.address;
        let attacks: Vec<_> = (0..4).map(|_| tokio::spawn(attack(address, trick))).collect();
        neighbour.call(20).await;
        for attack in attacks {
            let streams = attack.await.expect("no panic");
            assert!(streams < STREAMS_MAX, "the connection was not ended");
        }
    }
    let calls = victim.metric("roost_grpc_call_seconds_count").await;
    assert!(calls < 20.0 * CALLS_MAX, "{calls}");
    victim.assert_memory();
    neighbour.assert_served();
}

#[tokio::test(flavor = "multi_thread")]
async fn window_updates_that_overflow_end_the_connection() {
    attack_on_four_connections(Trick::Overflow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_at_once_end_the_connection() {
    attack_on_four_connections(Trick::Reset).await;
}
