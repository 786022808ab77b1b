//! A web server for feeds, good and bad ones, on loopback.

use std::{
    collections::HashMap,
    future::pending,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Response, StatusCode, header},
};
use futures::stream;
use tokio::{net::TcpListener, runtime};

/// What a path answers.
#[derive(Clone)]
pub enum Page {
    /// A feed, under a name by which it is known again.
    Feed { text: String, etag: String },
    /// These bytes, encoded so.
    Bytes { encoding: &'static str, bytes: Vec<u8> },
    /// A status, with headers.
    Status(u16, Vec<(&'static str, String)>),
    /// Bytes without end.
    Endless,
    /// Nothing, ever.
    Silent,
}

/// The server. It lives as long as the process.
pub struct Feeds {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    pages: HashMap<String, Page>,
    /// How often each path was asked for.
    requests: HashMap<String, usize>,
    /// The status of every answer to a path.
    answers: HashMap<String, Vec<u16>>,
}

impl Feeds {
    pub fn start() -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("without waiting");
        let address = listener.local_addr().expect("its address");
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, router).await.expect("serving");
            });
        });
        Self { address, shared }
    }

    pub fn set(&self, path: &str, page: Page) {
        lock(&self.shared).pages.insert(path.to_owned(), page);
    }

    /// A path from then on answers with this feed.
    pub fn set_feed(&self, path: &str, text: &str) {
        let mut hash = DefaultHasher::new();
        text.hash(&mut hash);
        let etag = format!("\"{:x}\"", hash.finish());
        self.set(path, Page::Feed { text: text.to_owned(), etag });
    }

    /// How often a path was asked for so far, answered or not.
    pub fn requests(&self, path: &str) -> usize {
        lock(&self.shared).requests.get(path).copied().unwrap_or_default()
    }

    /// The status of every answer to a path so far.
    pub fn answers(&self, path: &str) -> Vec<u16> {
        lock(&self.shared).answers.get(path).cloned().unwrap_or_default()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// An RSS feed with these entries, each a title and a path, newest first.
pub fn rss(entries: &[(&str, &str)]) -> String {
    let items: String = entries
        .iter()
        .map(|(title, path)| {
            format!(
                "<item><title>{title}</title><link>https://example.org/{path}</link>\
                 <guid isPermaLink=\"false\">{path}</guid></item>"
            )
        })
        .collect();
    format!("<?xml version=\"1.0\"?><rss version=\"2.0\"><channel>{items}</channel></rss>")
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    *lock(&shared).requests.entry(path.clone()).or_default() += 1;
    let page = lock(&shared).pages.get(&path).cloned().unwrap_or(Page::Status(404, vec![]));
    let known = request.headers().get(header::IF_NONE_MATCH);
    let response = match page {
        Page::Feed { etag, .. } if known.is_some_and(|known| *known == *etag) => {
            Response::builder().status(StatusCode::NOT_MODIFIED).body(Body::empty())
        }
        Page::Feed { text, etag } => {
            Response::builder().header(header::ETAG, etag).body(Body::from(text))
        }
        Page::Bytes { encoding, bytes } => {
            Response::builder().header(header::CONTENT_ENCODING, encoding).body(Body::from(bytes))
        }
        Page::Status(status, headers) => {
            let response = Response::builder().status(status);
            let add = |response: axum::http::response::Builder, (name, value)| {
                response.header::<&str, String>(name, value)
            };
            headers.into_iter().fold(response, add).body(Body::empty())
        }
        Page::Endless => {
            let piece = Bytes::from_static(&[b' '; 1 << 16]);
            let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
            Ok(Response::new(Body::from_stream(pieces)))
        }
        Page::Silent => pending().await,
    };
    let response = response.expect("an answer");
    lock(&shared).answers.entry(path).or_default().push(response.status().as_u16());
    response
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no panic before")
}
