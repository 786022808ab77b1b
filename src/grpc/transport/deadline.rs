//! How long a client waits for an answer: the header `grpc-timeout`. Pure.

use std::time::Duration;

use http::HeaderMap;

/// Digits that the header may have.
const DIGITS_MAX: usize = 8;

/// What the header says; `None` where there is none, or none that can be read.
pub(crate) fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a value"));
            timeout_of(&headers)
        };
        assert_eq!(of("1S"), Some(Duration::from_secs(1)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(
            (of("250m"), of("7u")),
            (Some(Duration::from_millis(250)), Some(Duration::from_micros(7)))
        );
        for bad in ["", "S", "12", "-1S", "999999999S", "1x", "é"] {
            let value = http::HeaderValue::from_bytes(bad.as_bytes()).expect("a value");
            let headers =
                HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), value)]);
            assert_eq!(timeout_of(&headers), None, "{bad}");
        }
    }
}
