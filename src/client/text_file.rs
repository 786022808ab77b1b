//! Lines of a text file, plain or gzip, numbered from 1: the common ground of
//! edge lists and traces.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use tokio::{sync::watch, task, time};

use super::progress::{REPORT_EVERY, Reporter};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const READ_BUFFER_BYTES: usize = 1 << 20;
/// A line of numbers is short; a longer one is a file of another kind.
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
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let open_error = |source| FileError::Open { path: path.to_owned(), source };
        let mut file =
            BufReader::with_capacity(READ_BUFFER_BYTES, File::open(path).map_err(open_error)?);
        let is_gzip = file.fill_buf().map_err(open_error)?.starts_with(&GZIP_MAGIC);
        let content: Box<dyn Read + Send> =
            if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::with_capacity(READ_BUFFER_BYTES, content),
            line: Vec::new(),
            line_number: 0,
            fingerprint: Fingerprint::default(),
        })
    }

    /// The next line without its end, LF or CRLF; `None` at the end of the file.
    pub(crate) fn next_line(&mut self) -> Result<Option<&[u8]>, FileError> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let length = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line).map_err(
            |source| FileError::Read { path: self.path.clone(), line: self.line_number, source },
        )?;
        if length == 0 {
            return Ok(None);
        }
        self.line_number += 1;
        self.fingerprint.add(&self.line);
        while let Some(b'\n' | b'\r') = self.line.last() {
            self.line.pop();
        }
        if self.line.len() > LINE_BYTES_MAX {
            return Err(
                self.broken(format!("longer than {LINE_BYTES_MAX} bytes; is this a text file?"))
            );
        }
        Ok(Some(&self.line))
    }

    /// The number of the line read last, from 1.
    pub(crate) fn line_number(&self) -> u64 {
        self.line_number
    }

    /// The line read last is wrong.
    pub(crate) fn broken(&self, problem: String) -> FileError {
        let quote = self.line.escape_ascii().to_string();
        let cut = quote.char_indices().nth(QUOTE_CHARS_MAX).map(|(end, _)| end);
        FileError::BrokenLine {
            path: self.path.clone(),
            line: self.line_number,
            problem,
            quote: cut.map_or(quote.clone(), |end| format!("{}...", &quote[..end])),
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
    fn an_endless_line_is_refused_and_quoted_short() {
        let error = lines_of(&vec![0u8; 1 << 20]).expect_err("no text").to_string();
        assert!(error.contains("line 1: longer than 4096 bytes"), "{error}");
        assert!(error.len() < 300, "{error}");
    }

    #[test]
    fn numbers_are_digits_within_64_bits() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "18446744073709551616", "-1", "+1", "1.0", "0x1", "one"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }
}
