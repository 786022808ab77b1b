//! A TCP proxy that can break what passes through it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// What happens when the budget of bytes is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed in both directions.
    Cut,
    /// Nothing passes any more in either direction.
    Freeze,
    /// What came last passes once [`Proxy::let_go`] says so, whether the client is there
    /// still or not. Other connections pass meanwhile.
    Hold,
}

/// Passes everything on until so many bytes have come from clients, all
/// connections together.
pub struct Proxy {
    pub address: SocketAddr,
    budget: Arc<AtomicI64>,
    held: Arc<Held>,
    task: JoinHandle<()>,
}

/// What is held back.
#[derive(Default)]
struct Held {
    let_go: Notify,
    /// The server has answered it, or has closed the connection.
    ended: Notify,
}

impl Proxy {
    pub async fn before(server: String, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let budget = Arc::new(AtomicI64::new(i64::MAX));
        let held = Arc::new(Held::default());
        let (left, holds) = (budget.clone(), held.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, left.clone(), holds.clone(), fault));
            }
        });
        Self { address, budget, held, task }
    }

    /// Lets what is held back pass, and waits until it has come to an end.
    pub async fn let_go(&self) {
        self.held.let_go.notify_one();
        self.held.ended.notified().await;
    }

    /// Lets so many bytes pass before the fault, once.
    pub fn fail_after(&self, bytes: i64) {
        self.budget.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    budget: Arc<AtomicI64>,
    held: Arc<Held>,
    fault: Fault,
) {
    let (mut from_client, mut from_server) = (vec![0; 8 << 10], vec![0; 8 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(len @ 1..) = read else { return };
                let left = budget.fetch_sub(len as i64, Ordering::SeqCst);
                let passed = len.min(usize::try_from(left).unwrap_or(0));
                if server.write_all(&from_client[..passed]).await.is_err() {
                    return;
                }
                if passed < len {
                    if fault == Fault::Freeze {
                        std::future::pending::<()>().await;
                    }
                    // Those that come after pass again.
                    budget.store(i64::MAX, Ordering::SeqCst);
                    if fault == Fault::Hold {
                        held.let_go.notified().await;
                        // Where it is closed, that shows at one of the two.
                        let _ = server.write_all(&from_client[passed..len]).await;
                        let _ = server.read(&mut from_server).await;
                        held.ended.notify_one();
                    }
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(len @ 1..) = read else { return };
                if client.write_all(&from_server[..len]).await.is_err() {
                    return;
                }
            }
        }
    }
}
