//! Lines of a text file, plain or gzip, numbered from 1: the common ground of
//! edge lists, traces and lists of feeds.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

use tokio::{sync::watch, task, time};

use super::{
    gzip_members::{GZIP_MAGIC, GzipMembers},
    progress::{REPORT_EVERY, Reporter},
};
use crate::input::SlowInputNotice;

const READ_BUFFER_BYTES: usize = 1 << 20;
/// The byte order mark of UTF-8, with which Windows programs begin a file. Files that were
/// joined have it inside too.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// A line of numbers is short; a longer one is a file of another kind. Comments may be longer.
const LINE_BYTES_MAX: usize = 4_096;
/// How much of a broken line is quoted.
const QUOTE_CHARS_MAX: usize = 60;

/// Why a file of lines cannot be used. Nothing of such a file has been sent.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file breaks off or cannot be read.
    #[error("cannot read {} past line {line}: {}", path.display(), read_problem(source))]
    Read {
        /// Which file.
        path: PathBuf,
        /// The last line that was read.
        line: u64,
        /// Why not.
        source: io::Error,
    },
    /// A line is not of the form that the file should have.
    #[error("{}, line {line}: {problem}: \"{quote}\"", path.display())]
    BrokenLine {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it and what to do.
        problem: String,
        /// The line, escaped and cut.
        quote: String,
    },
    /// A line shows that this is no text of the kind that is read.
    #[error("{}, line {line}: {problem}", path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// Reading was ended by who had asked for it.
    #[error("nobody waits for the file any more")]
    Abandoned,
}

/// A file that is read line by line. All of it blocks: not for async threads.
pub(crate) struct TextFile {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    line_number: u64,
    fingerprint: Fingerprint,
}

impl TextFile {
    /// Opens a file, and says on stderr that it is waited for if nothing comes from it.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let open_error = |source| FileError::Open { path: path.to_owned(), source };
        let notice = SlowInputNotice::of(path);
        let mut file =
            BufReader::with_capacity(READ_BUFFER_BYTES, File::open(path).map_err(open_error)?);
        let mut magic = Vec::new();
        let beginning = file.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic);
        beginning.map_err(open_error)?;
        drop(notice);
        let content: Box<dyn Read + Send> = match magic == GZIP_MAGIC {
            true => Box::new(GzipMembers::new(file)),
            false => Box::new(Cursor::new(magic).chain(file)),
        };
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::with_capacity(READ_BUFFER_BYTES, content),
            line: Vec::new(),
            line_number: 0,
            fingerprint: Fingerprint::default(),
        })
    }

    /// The next line without its end, LF or CRLF, and without byte order marks; `None` at the
    /// end of the file. Of a long comment only the beginning.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>, FileError> {
        self.line.clear();
        // With its end.
        let limit = LINE_BYTES_MAX as u64 + 2;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line);
        let length = read.map_err(|source| self.read_error(source))?;
        if length == 0 {
            return Ok(None);
        }
        self.line_number += 1;
        self.fingerprint.add(&self.line);
        if is_comment(self.content()) && !self.line.ends_with(b"\n") {
            self.skip_line().map_err(|source| self.read_error(source))?;
        }
        while let Some(b'\n' | b'\r') = self.line.last() {
            self.line.pop();
        }
        match self.problem() {
            Some(problem) => {
                Err(FileError::NotText { path: self.path.clone(), line: self.line_number, problem })
            }
            None => Ok(Some(self.content())),
        }
    }

    /// The line read last, without what only says how it is encoded.
    fn content(&self) -> &[u8] {
        let mut content = self.line.as_slice();
        while let Some(rest) = content.strip_prefix(UTF8_MARK) {
            content = rest;
        }
        content
    }

    /// Skips what is left of a line, of which the beginning is kept.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffered = self.reader.fill_buf()?;
            let end = buffered.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let skipped = end.unwrap_or(buffered.len());
            self.fingerprint.add(&buffered[..skipped]);
            self.reader.consume(skipped);
            if end.is_some() || skipped == 0 {
                return Ok(());
            }
        }
    }

    /// What shows that the line read last is no line of text.
    fn problem(&self) -> Option<String> {
        let content = self.content();
        if self.line_number == 1 && UTF16_MARKS.iter().any(|mark| content.starts_with(mark)) {
            return Some(
                "the file is UTF-16 text; save it as UTF-8, or convert it with iconv -f UTF-16 -t \
                 UTF-8"
                    .to_owned(),
            );
        }
        if content.contains(&0) {
            return Some(
                "there are zero bytes in it, as in UTF-16 text and in files that are no text; save \
                 it as UTF-8"
                    .to_owned(),
            );
        }
        // All that it says would count as one line.
        if content.contains(&b'\r') {
            return Some(
                "lines end with CR alone, as on old Macs; convert them with tr '\\r' '\\n'"
                    .to_owned(),
            );
        }
        if content.len() > LINE_BYTES_MAX && !is_comment(content) {
            return Some(format!("longer than {LINE_BYTES_MAX} bytes; is this a text file?"));
        }
        None
    }

    fn read_error(&self, source: io::Error) -> FileError {
        FileError::Read { path: self.path.clone(), line: self.line_number, source }
    }

    /// The number of the line read last, from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.line_number
    }

    /// The line read last is wrong.
    pub(crate) fn broken(&self, problem: String) -> FileError {
        let quote = match std::str::from_utf8(self.content()) {
            Ok(text) => text.escape_debug().to_string(),
            Err(_) => self.content().escape_ascii().to_string(),
        };
        self.broken_quoting(problem, &quote)
    }

    /// The line read last is wrong, and is shown so.
    pub(crate) fn broken_quoting(&self, problem: String, quote: &str) -> FileError {
        let cut = quote.char_indices().nth(QUOTE_CHARS_MAX).map(|(end, _)| end);
        FileError::BrokenLine {
            path: self.path.clone(),
            line: self.line_number,
            problem,
            quote: cut.map_or(quote.to_owned(), |end| format!("{}...", &quote[..end])),
        }
    }

    /// A number that stands for the content read so far.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint.0
    }
}

/// Is told how many lines have been read. It fails once nobody waits for them.
pub(crate) type OnLine = dyn FnMut(u64) -> Result<(), FileError>;

/// Reads on a thread for blocking work, with its progress reported. Whoever drops
/// this ends the reading.
///
/// # Errors
/// If the thread dies.
pub(crate) async fn with_progress<T: Send + 'static>(
    phase: &str,
    reporter: &mut impl Reporter,
    read: impl FnOnce(&mut OnLine) -> T + Send + 'static,
) -> Result<T, task::JoinError> {
    reporter.begin(phase, None);
    let (lines, watched) = watch::channel(0);
    let mut reading = task::spawn_blocking(move || {
        read(&mut move |count| lines.send(count).map_err(|_| FileError::Abandoned))
    });
    let done = loop {
        tokio::select! {
            done = &mut reading => break done?,
            () = time::sleep(REPORT_EVERY) => reporter.advance(*watched.borrow()),
        }
    };
    reporter.advance(*watched.borrow());
    reporter.end();
    Ok(done)
}

/// FNV-1a, 64 bits: stable for ever, and no secret is at stake.
#[derive(Clone, Copy)]
pub(crate) struct Fingerprint(pub(crate) u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Whether a line is a comment of an edge list or a trace: SNAP's begin with #, KONECT's and
/// MatrixMarket's with %.
pub(crate) fn is_comment(line: &[u8]) -> bool {
    matches!(line.trim_ascii_start(), [b'#' | b'%', ..])
}

/// The fields of a line: runs of anything but spaces and tabs.
pub(crate) fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|field| !field.is_empty())
}

/// A decimal number without a sign; `None` for anything else.
pub(crate) fn number(field: &[u8]) -> Option<u64> {
    if field.is_empty() {
        return None;
    }
    field.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn read_problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the gzip file is cut short; fetch it again".to_owned(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            format!("the gzip file is damaged ({error}); fetch it again")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use tempfile::NamedTempFile;

    use super::*;

    /// A file on disk that holds just these bytes.
    pub(crate) fn file_of(content: &[u8]) -> NamedTempFile {
        let mut file = NamedTempFile::new().expect("a temporary file");
        file.write_all(content).expect("written");
        file
    }

    pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).expect("compressed");
        encoder.finish().expect("compressed")
    }

    fn lines_of(content: &[u8]) -> Result<Vec<String>, FileError> {
        let file = file_of(content);
        let mut text = TextFile::open(file.path())?;
        let mut lines = Vec::new();
        while let Some(line) = text.next_line()? {
            lines.push(String::from_utf8_lossy(line).into_owned());
        }
        Ok(lines)
    }

    #[test]
    fn plain_and_gzip_read_alike() {
        let content = b"a b\r\n\n# c\nlast";
        let expected = ["a b", "", "# c", "last"];
        assert_eq!(lines_of(content).expect("plain"), expected);
        assert_eq!(lines_of(&gzip(content)).expect("gzip"), expected);
        assert!(lines_of(b"").expect("empty").is_empty());
    }

    #[test]
    fn a_gzip_file_cut_short_is_told() {
        let content: Vec<u8> =
            (0..10_000).flat_map(|n| format!("{n} {}\n", n * 7).into_bytes()).collect();
        let whole = gzip(&content);
        let error = lines_of(&whole[..whole.len() / 2]).expect_err("cut");
        assert!(error.to_string().contains("cut short"), "{error}");
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        assert!(lines_of(&damaged).is_err());
    }

    #[test]
    fn gzip_members_are_joined_and_what_follows_is_ignored() {
        let (one, two) = (gzip(b"a\nb"), gzip(b"c\nd\n"));
        for (content, expected) in [
            ([&one[..], &two].concat(), vec!["a", "bc", "d"]),
            ([&two[..], &[0; 3_000], &two].concat(), vec!["c", "d", "c", "d"]),
            ([&two[..], &[0; 512]].concat(), vec!["c", "d"]),
            ([&two[..], b"garbage"].concat(), vec!["c", "d"]),
            ([&two[..], &[0, 0x1f]].concat(), vec!["c", "d"]),
            ([&gzip(b"")[..], &two].concat(), vec!["c", "d"]),
        ] {
            assert_eq!(lines_of(&content).expect("gzip"), expected);
        }
        let cut = lines_of(&[&one[..], &two[..two.len() - 3]].concat()).expect_err("cut");
        assert!(cut.to_string().contains("cut short"), "{cut}");
    }

    #[test]
    fn byte_order_marks_are_skipped() {
        let content = b"\xef\xbb\xbfa b\r\n\xef\xbb\xbf# c\r\n\r\nd \xef\xbb\xbf";
        let expected = ["a b", "# c", "", "d \u{feff}"];
        assert_eq!(lines_of(content).expect("UTF-8"), expected);
        assert_eq!(lines_of(&gzip(content)).expect("UTF-8"), expected);
    }

    #[test]
    fn other_encodings_and_line_ends_are_named() {
        let utf16 =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let big = utf16("\u{feff}1 2\n").chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
        for (content, problem) in [
            (utf16("\u{feff}1 2\n1 3\n"), "line 1: the file is UTF-16 text; save it as UTF-8"),
            (big, "line 1: the file is UTF-16 text"),
            (utf16("1 2\n1 3\n"), "line 1: there are zero bytes in it, as in UTF-16 text"),
            (b"1 2\r1 3\r".to_vec(), "line 1: lines end with CR alone"),
            (b"# c\r1 2\r".to_vec(), "line 1: lines end with CR alone"),
        ] {
            let error = lines_of(&content).expect_err(problem).to_string();
            assert!(error.contains(problem) && !error.contains("\\x"), "{error}");
        }
    }

    #[test]
    fn comment_may_be_longer_than_the_line_limit() {
        let long = "1".repeat(LINE_BYTES_MAX);
        for end in ["\n", "\r\n"] {
            let lines = lines_of(format!("{long}{end}2{end}").as_bytes()).expect("just fits");
            assert_eq!(lines, [long.as_str(), "2"]);
            let error = lines_of(format!("{long}1{end}2").as_bytes()).expect_err("too long");
            assert!(error.to_string().contains("line 1: longer than 4096 bytes"), "{error}");
        }
        for mark in ["#", "%", " #", "\u{feff}%"] {
            let comment = format!("{mark}{}", "c".repeat(3 * READ_BUFFER_BYTES));
            let lines = lines_of(format!("{comment}\n2\n{comment}").as_bytes()).expect("comments");
            assert_eq!((lines.len(), lines[1].as_str()), (3, "2"));
            assert!(is_comment(lines[0].as_bytes()) && lines[0].len() <= LINE_BYTES_MAX + 2);
        }
    }

    #[test]
    fn an_endless_line_is_refused_in_short() {
        for byte in [0, b'1'] {
            let error = lines_of(&vec![byte; 1 << 20]).expect_err("no text").to_string();
            assert!(error.contains("line 1: ") && error.len() < 300, "{error}");
        }
    }

    #[test]
    fn fingerprint_covers_long_comments() {
        let fingerprint = |last: &str| {
            let file = file_of(format!("# {}{last}\n1 2\n", "c".repeat(10_000)).as_bytes());
            let mut text = TextFile::open(file.path()).expect("opened");
            while text.next_line().expect("a line").is_some() {}
            text.fingerprint()
        };
        assert_eq!(fingerprint("a"), fingerprint("a"));
        assert_ne!(fingerprint("a"), fingerprint("b"));
    }

    #[test]
    fn numbers_are_digits_within_64_bits() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "18446744073709551616", "-1", "+1", "1.0", "0x1", "one"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }
}
