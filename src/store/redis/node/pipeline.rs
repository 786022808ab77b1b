//! Many commands on one connection, each with its reply.
//!
//! ```text
//!  commands ──► chunk ──► chunk written ──► replies ──► answered
//!               packed    bytes in flight              counted in order
//! ```
//!
//! Writing and reading take turns, so that neither side waits for the other with
//! full buffers, and the next chunk is packed only when there is room in flight.
//! Replies come in the order of the commands. So when the connection fails, the
//! commands are in three parts: answered, of unknown outcome, and never sent.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{NodeConnection, broken, closed, misread, timed_out};
use crate::store::redis::{
    error::NodeError,
    resp::{Reply, scan},
};

/// How many bytes of commands are packed before they are written.
const CHUNK_BYTES: usize = 64 << 10;
/// How many bytes of commands may wait for replies; past it nothing is written
/// until some have come.
const IN_FLIGHT_BYTES_MAX: usize = 256 << 10;

/// What a connection left behind that failed in the middle of a pipeline.
#[derive(Debug)]
pub struct Interrupted {
    /// The commands before this one were answered.
    pub answered: usize,
    /// Those from there to before this one may have been carried out or not.
    /// Those from here on were never sent.
    pub sent: usize,
    /// What happened.
    pub error: NodeError,
}

/// What of a command's reply something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, or the beginning of an array.
    Whole,
    /// An element of the array that it is.
    Element,
}

impl NodeConnection {
    /// Sends commands and takes their replies. `pack` appends the next command and
    /// says whether there was one; `on_reply` gets each reply with the number of
    /// its command, and behind an array each of its elements.
    ///
    /// After an error, or when given up half-way, the connection is of no more use.
    ///
    /// # Errors
    /// How far it came, if the connection breaks or the node gives no sign of life.
    pub async fn run(
        &mut self,
        pack: impl FnMut(&mut Vec<u8>) -> bool,
        on_reply: impl FnMut(usize, Part, Reply<'_>),
    ) -> Result<(), Interrupted> {
        let mut pipeline = Pipeline {
            pack,
            on_reply,
            packed: 0,
            sent: 0,
            answered: 0,
            all_packed: false,
            written: 0,
            flushed: true,
            chunks: VecDeque::new(),
            in_flight_bytes: 0,
            elements_to_come: 0,
            write_error: None,
            last_progress: Instant::now(),
        };
        self.outgoing.clear();
        self.timer.as_mut().reset(pipeline.last_progress + self.progress_timeout);
        let result = poll_fn(|context| pipeline.poll(self, context)).await;
        result.map_err(|error| Interrupted {
            answered: pipeline.answered,
            sent: pipeline.sent,
            error,
        })
    }
}

struct Pipeline<P, R> {
    pack: P,
    on_reply: R,
    packed: usize,
    sent: usize,
    answered: usize,
    all_packed: bool,
    /// How much of the chunk in hand is written.
    written: usize,
    flushed: bool,
    /// The chunks in flight: which command each one ends before, and its bytes.
    chunks: VecDeque<(usize, usize)>,
    in_flight_bytes: usize,
    /// Elements of an array, which belong to the reply before them.
    elements_to_come: usize,
    /// Nothing more can be written; replies may still be there to be read.
    write_error: Option<io::Error>,
    last_progress: Instant,
}

impl<P, R> Pipeline<P, R>
where
    P: FnMut(&mut Vec<u8>) -> bool,
    R: FnMut(usize, Part, Reply<'_>),
{
    fn poll(
        &mut self,
        connection: &mut NodeConnection,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), NodeError>> {
        loop {
            let wrote = self.write(connection, context);
            let read = self.read(connection, context)?;
            if self.all_packed && self.answered == self.packed && self.elements_to_come == 0 {
                return Poll::Ready(Ok(()));
            }
            if wrote || read {
                self.last_progress = Instant::now();
            } else if !self.is_late(connection, context) {
                return Poll::Pending;
            } else {
                let waited = connection.progress_timeout;
                return Poll::Ready(Err(timed_out(&connection.node, waited)));
            }
        }
    }

    /// Writes what it can; whether that was anything.
    fn write(&mut self, connection: &mut NodeConnection, context: &mut Context<'_>) -> bool {
        if self.write_error.is_some() {
            return false;
        }
        if self.written == connection.outgoing.len() {
            self.next_chunk(connection);
        }
        let stream = Pin::new(&mut connection.stream);
        if self.written < connection.outgoing.len() {
            // Even a write that fails may have sent something, below TLS.
            self.sent = self.packed;
            match stream.poll_write(context, &connection.outgoing[self.written..]) {
                Poll::Ready(Ok(0)) => self.write_error = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => {
                    self.written += len;
                    self.flushed = false;
                    return true;
                }
                Poll::Ready(Err(error)) => self.write_error = Some(error),
                Poll::Pending => {}
            }
        } else if !self.flushed {
            match stream.poll_flush(context) {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(error)) => self.write_error = Some(error),
                Poll::Pending => {}
            }
        }
        false
    }

    fn next_chunk(&mut self, connection: &mut NodeConnection) {
        if self.all_packed || self.in_flight_bytes >= IN_FLIGHT_BYTES_MAX {
            return;
        }
        let chunk = &mut connection.outgoing;
        chunk.clear();
        self.written = 0;
        while chunk.len() < CHUNK_BYTES {
            if !(self.pack)(chunk) {
                self.all_packed = true;
                break;
            }
            self.packed += 1;
        }
        if !chunk.is_empty() {
            self.chunks.push_back((self.packed, chunk.len()));
            self.in_flight_bytes += chunk.len();
        }
    }

    /// Reads what there is; whether that was anything.
    fn read(
        &mut self,
        connection: &mut NodeConnection,
        context: &mut Context<'_>,
    ) -> Result<bool, NodeError> {
        let space = connection.incoming.space().map_err(|e| misread(&connection.node, e))?;
        let mut space = ReadBuf::new(space);
        match Pin::new(&mut connection.stream).poll_read(context, &mut space) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Err(broken(&connection.node, &error)),
        }
        match space.filled().len() {
            0 => Err(match &self.write_error {
                Some(error) => broken(&connection.node, error),
                None => closed(&connection.node),
            }),
            len => {
                connection.incoming.filled(len);
                self.take_replies(connection)?;
                Ok(true)
            }
        }
    }

    fn take_replies(&mut self, connection: &mut NodeConnection) -> Result<(), NodeError> {
        let unread = connection.incoming.unread();
        let mut consumed = 0;
        while self.answered < self.sent || self.elements_to_come > 0 {
            let reply = scan(&unread[consumed..]).map_err(|e| misread(&connection.node, e))?;
            let Some((reply, len)) = reply else { break };
            consumed += len;
            let is_element = self.elements_to_come > 0;
            self.elements_to_come -= usize::from(is_element);
            if let Reply::Array(Some(elements)) = reply {
                self.elements_to_come += elements;
            }
            if is_element {
                (self.on_reply)(self.answered - 1, Part::Element, reply);
            } else {
                (self.on_reply)(self.answered, Part::Whole, reply);
                self.answered += 1;
            }
        }
        connection.incoming.consume(consumed);
        while let Some(&(end, bytes)) = self.chunks.front()
            && end <= self.answered
        {
            self.chunks.pop_front();
            self.in_flight_bytes -= bytes;
        }
        Ok(())
    }

    /// Whether the time without a sign of life is over.
    fn is_late(&mut self, connection: &mut NodeConnection, context: &mut Context<'_>) -> bool {
        let end = self.last_progress + connection.progress_timeout;
        while connection.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= end {
                return true;
            }
            connection.timer.as_mut().reset(end);
        }
        false
    }
}
