//! Dates as feeds write them. Pure.

use chrono::DateTime;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Milliseconds since 1970; `None` if it is no date of RFC 3339 or RFC 2822, or close to one.
pub(super) fn unix_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    let date = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_rfc3339(&like_rfc3339(text)))
        .or_else(|_| DateTime::parse_from_rfc2822(&like_rfc2822(text)));
    date.ok().map(|date| date.timestamp_millis())
}

/// A date without a time is midnight, and a time without a zone is in UTC.
fn like_rfc3339(text: &str) -> String {
    let Some((date, time)) = text.split_once(['T', 't', ' ']) else {
        return format!("{text}T00:00:00Z");
    };
    let time = time.trim();
    let zone = time.rfind(['+', '-', 'Z', 'z']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone);
    let seconds = if time.matches(':').count() == 1 { ":00" } else { "" };
    let digits: String = zone.chars().filter(|char| char.is_ascii_digit()).collect();
    let zone = match (zone.chars().next(), digits.len()) {
        (Some(sign @ ('+' | '-')), 4) => format!("{sign}{}:{}", &digits[..2], &digits[2..]),
        (Some(sign @ ('+' | '-')), 2) => format!("{sign}{digits}:00"),
        _ => "Z".to_owned(),
    };
    format!("{date}T{}{seconds}{zone}", time.trim())
}

/// Without the day of the week, which is often wrong or in another language; months in English
/// by their first letters; day and month in either order.
fn like_rfc2822(text: &str) -> String {
    let is_day = |word: &str| !word.contains(|char: char| char.is_ascii_digit());
    let date = text.split_once(',').filter(|(day, _)| is_day(day)).map_or(text, |(_, date)| date);
    let mut words: Vec<String> = date.split_whitespace().map(plain_word).collect();
    if let [month, day, ..] = &mut words[..]
        && MONTHS.contains(&month.as_str())
    {
        *day = day.trim_end_matches(',').to_owned();
        std::mem::swap(month, day);
    }
    words.join(" ")
}

fn plain_word(word: &str) -> String {
    if let Some(month) =
        word.get(..3).and_then(|word| MONTHS.iter().find(|month| month.eq_ignore_ascii_case(word)))
    {
        return (*month).to_owned();
    }
    match word {
        "UTC" | "Z" | "-0000" => "+0000".to_owned(),
        // The end of a day, which is told as its beginning.
        _ if word.starts_with("24:") => word.replacen("24:", "00:", 1),
        _ if word.find(':') == Some(1) => format!("0{word}"),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_of_any_usual_form_is_read() {
        let expected = unix_ms("2024-01-02T03:04:05Z");
        assert_eq!(expected, Some(1_704_164_645_000));
        for text in [
            " Tue, 02 Jan 2024 03:04:05 GMT\n",
            "Tues, 2 January 2024 03:04:05 UTC",
            "Sun, 02 Jan 2024 3:04:05 Z",
            "Di, 02 Jan 2024 04:04:05 +0100",
            "02 Jan 2024 03:04:05 +0000",
            "Jan 2, 2024 03:04:05 GMT",
            "2024-01-02T04:04:05+01:00",
            "2024-01-02T04:04:05+0100",
            "2024-01-02 03:04:05",
            "2024-01-01T22:04:05.000-05:00",
            "Mon, 01 Jan 2024 22:04:05 EST",
        ] {
            assert_eq!(unix_ms(text), expected, "{text}");
        }
        let midnight = unix_ms("2024-01-02T00:00:00Z");
        for text in ["2024-01-02", "Tue, 02 Jan 2024 24:00:00 GMT", "2024-01-02T00:00Z"] {
            assert_eq!(unix_ms(text), midnight, "{text}");
        }
        for text in ["", "yesterday", "2024", "2024-13-01", "T", "é, é", "Jan", "-", "+ +"] {
            assert_eq!(unix_ms(text), None, "{text}");
        }
    }
}
