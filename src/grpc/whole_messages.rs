//! Requests whose messages are whole.
//!
//! tonic takes a request that ends in mid-message for one that ends before it, where it ends right
//! behind the five bytes before a message, or where the client resets the stream. So the bytes are
//! counted on their way to it, and what is cut ends in an error.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::{Status, body::Body as TonicBody, codegen::Service, server::NamedService};

use super::message_meter::{MessageMeter, Place};

/// A gRPC service whose requests are refused where they end in mid-message.
#[derive(Clone, Debug)]
pub(super) struct WholeMessages<S>(pub(super) S);

impl<S: NamedService> NamedService for WholeMessages<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<TonicBody>> for WholeMessages<S>
where
    S: Service<http::Request<TonicBody>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<TonicBody>) -> S::Future {
        let whole = |body| TonicBody::new(WholeBody { body, messages: MessageMeter::default() });
        self.0.call(request.map(whole))
    }
}

/// What is wrong with a request that ends here.
fn cut(meter: &MessageMeter) -> Option<Status> {
    let missing = match meter.place() {
        Place::Between => return None,
        Place::Prefix => "its length is missing".to_owned(),
        Place::Message(_) => format!("{} bytes of it are missing", meter.missing()),
    };
    let (number, whole) = (meter.messages() + 1, meter.messages());
    Some(Status::invalid_argument(format!(
        "the request ends in mid-message: {missing}, of message {number}; {whole} whole \
         messages came before it"
    )))
}

struct WholeBody {
    body: TonicBody,
    messages: MessageMeter,
}

impl Body for WholeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            // tonic takes CANCELLED for a regular end.
            Some(Err(status)) if status.code() == tonic::Code::Cancelled => {
                let (reason, whole) = (status.message(), this.messages.messages());
                let message = format!("the request was cancelled after {whole} messages: {reason}");
                return Poll::Ready(Some(Err(Status::aborted(message))));
            }
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            None => {
                let cut = cut(&this.messages);
                // It is said once.
                this.messages = MessageMeter::default();
                return Poll::Ready(cut.map(Err));
            }
        };
        if let Some(data) = frame.data_ref() {
            this.messages.advance(data);
        } else if let Some(cut) = cut(&this.messages) {
            // Behind trailers nothing comes.
            this.messages = MessageMeter::default();
            return Poll::Ready(Some(Err(cut)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.messages.place() == Place::Between
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(lens: &[usize]) -> Vec<u8> {
        let message = |len: &usize| {
            let len_bytes = (*len as u32).to_be_bytes();
            [&[0][..], &len_bytes, &vec![7; *len]].concat()
        };
        lens.iter().flat_map(message).collect()
    }

    proptest! {
        #[test]
        fn request_cut_anywhere_inside_message_is_noticed(
            lens in proptest::collection::vec(0..20_usize, 1..6),
            cut_at in any::<prop::sample::Index>(),
            chunk_len in 1..9_usize,
        ) {
            let bytes = encoded(&lens);
            let end = cut_at.index(bytes.len() + 1);
            let mut messages = MessageMeter::default();
            for chunk in bytes[..end].chunks(chunk_len) {
                messages.advance(chunk);
            }
            let whole = (0..=lens.len()).rfind(|count| encoded(&lens[..*count]).len() <= end);
            let whole = whole.expect("none is whole at least");
            prop_assert_eq!(messages.messages(), whole);
            let is_cut = encoded(&lens[..whole]).len() < end;
            prop_assert_eq!(cut(&messages).is_some(), is_cut);
        }
    }

    #[test]
    fn cut_request_says_what_came() {
        let mut messages = MessageMeter::default();
        messages.advance(&encoded(&[3, 4])[..15]);
        let status = cut(&messages).expect("it is cut");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains("2 bytes of it are missing, of message 2; 1 whole"));
    }
}
