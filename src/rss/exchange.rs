//! What is asked of a web server, and what the head of its answer means. Pure.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, Request, StatusCode, Uri,
    header::{self, HeaderName, HeaderValue},
};
use http_body_util::Empty;
use url::Url;

use super::{
    body::BodyError,
    destination::ForbiddenAddress,
    schedule,
    shown_url::{shown, shown_text},
    state::Validators,
    text::plain_line,
};

/// Hops from one address to the next.
pub(super) const REDIRECTS_MAX: usize = 5;
/// The longest validator that is kept and sent back.
const VALIDATOR_BYTES_MAX: usize = 1_024;
/// How much of what somebody else says is told.
const QUOTE_CHARS_MAX: usize = 200;
const USER_AGENT: &str = concat!("roost-rss/", env!("CARGO_PKG_VERSION"));
const ACCEPT: &str = "application/atom+xml, application/rss+xml, application/feed+json, \
                      application/xml;q=0.9, application/json;q=0.9, */*;q=0.5";

/// Why a feed could not be fetched, and what its operator can do.
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
    EndlessRedirect(String),
    #[error("redirects to \"{to}\", {problem}")]
    BadRedirect { to: String, problem: &'static str },
    #[error("cannot be fetched from {url}: {source}")]
    Forbidden { url: String, source: ForbiddenAddress },
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

/// Asks for a feed, unless it is as it was when `known` was told.
///
/// # Errors
/// If HTTP does not know such a URL.
pub(super) fn request(
    url: &Url,
    known: Option<&Validators>,
) -> Result<Request<Empty<Bytes>>, FetchError> {
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

pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(super) fn is_permanent(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 308)
}

/// Where a redirect leads. HTTPS may lead to HTTP: a list trusts its feeds.
///
/// # Errors
/// If that is not on the web.
pub(super) fn next_hop(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let to = headers.get(header::LOCATION).map(location).unwrap_or_default();
    let bad = |to, problem| FetchError::BadRedirect { to, problem };
    if to.is_empty() {
        return Err(bad(to, "which is nowhere; list where it really is"));
    }
    let mut url = from
        .join(&to)
        .map_err(|_| bad(shown_text(&to), "which is no URL; list where it really is"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(shown(&url), "and only http:// and https:// are followed"));
    }
    url.set_fragment(None);
    // It would be sent to nobody, and be seen where connections are logged.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Ok(url)
}

/// What a header of that name says. Bytes beyond ASCII, of whatever encoding, go to the next
/// server as they have come.
fn location(value: &HeaderValue) -> String {
    let encode = |byte: &u8| match byte {
        byte if byte.is_ascii() => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    value.as_bytes().trim_ascii().iter().map(encode).collect()
}

/// Whether a feed comes with the answer, which is no redirect. `now` is in seconds since
/// 1970.
///
/// # Errors
/// If none does.
pub(super) fn check_status(
    status: StatusCode,
    headers: &HeaderMap,
    now: u64,
) -> Result<(), FetchError> {
    match status {
        // What a proxy has changed is a feed all the same.
        StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => Ok(()),
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

/// What to ask `url` with the next time; `None` if it says nothing short enough to keep.
pub(super) fn validators(url: &Url, headers: &HeaderMap) -> Option<Validators> {
    let kept = |name| {
        text(headers, &name).filter(|text| text.len() <= VALIDATOR_BYTES_MAX).map(str::to_owned)
    };
    let (etag, last_modified) = (kept(header::ETAG), kept(header::LAST_MODIFIED));
    let is_known = etag.is_some() || last_modified.is_some();
    is_known.then(|| Validators { url: url.to_string(), etag, last_modified })
}

/// A header, if it is there and is ASCII.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What somebody else said, as a short line.
pub(super) fn quote(text: &str) -> String {
    plain_line(text).chars().take(QUOTE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn what_is_known_of_an_answer_is_asked_with() {
        let mut answer = headers(header::ETAG, "W/\"1\"");
        answer.extend(headers(header::LAST_MODIFIED, "Thu, 01 Jan 1970 01:00:00 GMT"));
        let feed = url("https://example.org/feed");
        let known = validators(&feed, &answer).expect("known");
        let asked = request(&feed, Some(&known)).expect("a request");
        assert_eq!(asked.headers()[header::IF_NONE_MATCH], answer[header::ETAG]);
        assert_eq!(asked.headers()[header::IF_MODIFIED_SINCE], answer[header::LAST_MODIFIED]);
        assert_eq!(asked.headers()[header::ACCEPT_ENCODING], "gzip");
        let whole = request(&feed, None).expect("a request");
        assert!(!whole.headers().contains_key(header::IF_NONE_MATCH));

        assert_eq!(validators(&feed, &HeaderMap::new()), None);
        let long = HeaderValue::from_str(&"a".repeat(VALIDATOR_BYTES_MAX + 1)).expect("a value");
        assert_eq!(validators(&feed, &HeaderMap::from_iter([(header::ETAG, long)])), None);
    }

    #[test]
    fn a_redirect_leads_to_the_web_or_nowhere() {
        let from = url("https://example.org/a/b");
        let to = |location: &'static str| next_hop(&from, &headers(header::LOCATION, location));
        for (location, expected) in [
            ("c#top", "https://example.org/a/c"),
            ("//other.org/", "https://other.org/"),
            ("http://example.org/", "http://example.org/"),
            ("  /d\t", "https://example.org/d"),
            ("?e", "https://example.org/a/b?e"),
            ("http:/f", "http://f/"),
            ("\\\\other.org\\g", "https://other.org/g"),
            ("HTTP://Other.org", "http://other.org/"),
            ("a b|c", "https://example.org/a/a%20b|c"),
            ("http://me:secret@other.org/h", "http://other.org/h"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
        ] {
            assert_eq!(to(location).expect(location), url(expected));
        }
        let latin = HeaderValue::from_bytes(b"/caf\xe9/\xc3\xa9").expect("a value");
        let latin = next_hop(&from, &HeaderMap::from_iter([(header::LOCATION, latin)]));
        assert_eq!(latin.expect("a URL").as_str(), "https://example.org/caf%E9/%C3%A9");
        for bad in ["", "  ", "file:///etc/passwd", "javascript:alert(1)", "http://", "http://[/"] {
            assert!(matches!(to(bad), Err(FetchError::BadRedirect { .. })), "{bad}");
        }
        assert!(next_hop(&from, &HeaderMap::new()).is_err());
    }

    #[test]
    fn a_refused_redirect_shows_no_query() {
        let from = url("https://example.org/a/b");
        for bad in ["ftp://me:secret@a/?secret", "http://[?secret", "http://me:secret@a b/#secret"]
        {
            let refused = next_hop(&from, &headers(header::LOCATION, bad)).expect_err(bad);
            let said = refused.to_string();
            assert!(said.contains("redirects to \"") && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn a_status_says_when_to_come_again() {
        let after = |status: StatusCode| {
            let answer = check_status(status, &headers(header::RETRY_AFTER, "120"), 0);
            answer.expect_err("refused").retry_after_seconds()
        };
        assert_eq!(after(StatusCode::TOO_MANY_REQUESTS), Some(120));
        assert_eq!(after(StatusCode::SERVICE_UNAVAILABLE), Some(120));
        assert_eq!(after(StatusCode::INTERNAL_SERVER_ERROR), None);
        assert_eq!(after(StatusCode::NOT_MODIFIED), None);
        let gone = check_status(StatusCode::GONE, &HeaderMap::new(), 0);
        assert!(matches!(gone, Err(FetchError::Gone)));
        assert!(check_status(StatusCode::OK, &HeaderMap::new(), 0).is_ok());
    }
}
