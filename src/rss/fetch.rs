//! Fetching a feed over HTTP or HTTPS, with a limit to everything that a server can send.
//!
//! Redirects are followed here, so that every hop is checked and counted, and a body is
//! unpacked as it comes, so that a small one does not become a large one unseen. There are
//! no cookies, no proxies, and no connections kept: a feed is fetched every few minutes.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, Request, Response, StatusCode, Uri,
    header::{self, HeaderName, HeaderValue},
};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls_native_certs::load_native_certs;
use tokio::time::timeout;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use url::Url;

use super::{
    RssError,
    body::{Body, BodyError},
    schedule,
    state::Validators,
    text::plain_line,
};

/// Hops from one address to the next.
const REDIRECTS_MAX: usize = 5;
/// The longest validator that is kept and sent back.
const VALIDATOR_BYTES_MAX: usize = 1_024;
/// How much of what somebody else says is told.
const QUOTE_CHARS_MAX: usize = 200;
const USER_AGENT: &str = concat!("roost-rss/", env!("CARGO_PKG_VERSION"));
const ACCEPT: &str = "application/atom+xml, application/rss+xml, application/feed+json, \
                      application/xml;q=0.9, application/json;q=0.9, */*;q=0.5";

/// A feed, as it came.
#[derive(Debug)]
pub(super) struct Answer {
    /// Where it was in the end.
    pub(super) url: Url,
    pub(super) body: Vec<u8>,
    pub(super) validators: Option<Validators>,
    /// Where it has moved to, if every redirect was for good.
    pub(super) moved_to: Option<String>,
}

/// Why there is none, and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("it was not there within {} s; see whether it opens in a browser", .0.as_secs())]
    Slow(Duration),
    #[error("cannot be fetched: {0}")]
    Broken(String),
    #[error("answers {status}; see whether it opens in a browser")]
    Refused { status: StatusCode, retry_after_seconds: Option<u64> },
    #[error("answers 410: it is gone for good and is polled no more; take it off the list")]
    Gone,
    #[error("redirects more than {REDIRECTS_MAX} times, at last to {0}; list where it ends")]
    EndlessRedirect(Url),
    #[error("redirects to {to:?}, {problem}")]
    BadRedirect { to: String, problem: &'static str },
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl FetchError {
    /// When to come again, if it said so.
    pub(super) fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Refused { retry_after_seconds, .. } => *retry_after_seconds,
            _ => None,
        }
    }
}

/// A client for feeds.
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    timeout: Duration,
}

impl Fetcher {
    /// One that gives up after `timeout`, for a feed with all its redirects.
    ///
    /// # Errors
    /// If TLS cannot be used.
    pub(super) fn new(timeout: Duration) -> Result<Self, RssError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https);
        Ok(Self { client, timeout })
    }

    /// Fetches a feed; `None` if it has not changed since `known`. `now` is in seconds since
    /// 1970.
    ///
    /// # Errors
    /// If there is none.
    pub(super) async fn fetch(
        &self,
        feed: &Url,
        known: Option<&Validators>,
        now: u64,
    ) -> Result<Option<Answer>, FetchError> {
        let fetched = timeout(self.timeout, self.follow(feed, known, now)).await;
        fetched.unwrap_or(Err(FetchError::Slow(self.timeout)))
    }

    /// Follows redirects to the feed.
    async fn follow(
        &self,
        feed: &Url,
        known: Option<&Validators>,
        now: u64,
    ) -> Result<Option<Answer>, FetchError> {
        let (mut url, mut for_good) = (feed.clone(), true);
        for _ in 0..=REDIRECTS_MAX {
            // Another address may use the same names for other answers.
            let known = known.filter(|known| known.url == url.as_str());
            let response = self.client.request(request(&url, known)?).await;
            let response = response.map_err(|error| FetchError::Broken(root_cause(&error)))?;
            let status = response.status();
            if is_redirect(status) {
                for_good &= is_permanent(status);
                url = next_hop(&url, response.headers())?;
                continue;
            }
            if status == StatusCode::NOT_MODIFIED && known.is_some() {
                return Ok(None);
            }
            check_status(status, response.headers(), now)?;
            let moved_to = (for_good && url != *feed).then(|| url.to_string());
            let validators = validators(&url, response.headers());
            let body = read(response).await?;
            return Ok(Some(Answer { url, body, validators, moved_to }));
        }
        Err(FetchError::EndlessRedirect(url))
    }
}

fn tls() -> Result<ClientConfig, RssError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!(
            "this machine trusts no authority, so that no feed can be read over https; install \
             ca-certificates, or name a file of certificates in SSL_CERT_FILE"
        );
    }
    // The provider is named, so that another one in the program changes nothing.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| RssError::Tls(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn request(url: &Url, known: Option<&Validators>) -> Result<Request<Empty<Bytes>>, FetchError> {
    let bad = |_| FetchError::Broken("its URL is none that HTTP knows; correct it".to_owned());
    let uri = url.as_str().parse::<Uri>().map_err(bad)?;
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let known = known.map(|known| (known.etag.as_deref(), known.last_modified.as_deref()));
    let (etag, last_modified) = known.unwrap_or_default();
    for (name, value) in [(header::IF_NONE_MATCH, etag), (header::IF_MODIFIED_SINCE, last_modified)]
    {
        // One that is none any more is not sent, and the feed comes whole.
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    Ok(request)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn is_permanent(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 308)
}

fn next_hop(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let to = headers.get(header::LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()));
    let to = to.unwrap_or_default();
    let bad = |problem| FetchError::BadRedirect { to: quote(&to), problem };
    let mut url = from.join(&to).map_err(|_| bad("which is no URL; list where it really is"))?;
    if to.is_empty() {
        return Err(bad("which is nowhere; list where it really is"));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("and only http:// and https:// are followed"));
    }
    url.set_fragment(None);
    Ok(url)
}

fn check_status(status: StatusCode, headers: &HeaderMap, now: u64) -> Result<(), FetchError> {
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::GONE => Err(FetchError::Gone),
        _ => {
            let may_ask =
                matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            let header = text(headers, &header::RETRY_AFTER).filter(|_| may_ask);
            let retry_after_seconds =
                header.and_then(|header| schedule::retry_after_seconds(header, now));
            Err(FetchError::Refused { status, retry_after_seconds })
        }
    }
}

fn validators(url: &Url, headers: &HeaderMap) -> Option<Validators> {
    let kept = |name| {
        text(headers, &name).filter(|text| text.len() <= VALIDATOR_BYTES_MAX).map(str::to_owned)
    };
    let (etag, last_modified) = (kept(header::ETAG), kept(header::LAST_MODIFIED));
    let is_known = etag.is_some() || last_modified.is_some();
    is_known.then(|| Validators { url: url.to_string(), etag, last_modified })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

async fn read<B>(response: Response<B>) -> Result<Vec<u8>, FetchError>
where
    B: http_body::Body<Data = Bytes, Error: Error + 'static> + Unpin,
{
    let mut body = Body::new(text(response.headers(), &header::CONTENT_ENCODING))?;
    let mut incoming = response.into_body();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| FetchError::Broken(root_cause(&error)))?;
        if let Ok(data) = frame.into_data() {
            body.push(&data)?;
        }
    }
    Ok(body.finish()?)
}

/// The innermost error is the one that says something.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    quote(&cause.to_string())
}

/// What somebody else said, as a short line.
pub(super) fn quote(text: &str) -> String {
    plain_line(text).chars().take(QUOTE_CHARS_MAX).collect()
}
