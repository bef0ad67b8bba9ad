//! Events on their way to the user's own task: bounded, and never silent about it (E3).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use thiserror::Error;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Where a sink puts what it has to tell. Dropping it ends the stream, once what is queued was taken.
#[derive(Debug)]
pub struct Feed<T> {
    /// `None` once the stream has lagged.
    sender: Option<mpsc::Sender<T>>,
    lagged: Arc<AtomicBool>,
}

/// Where it is taken out.
pub struct EventStream<T> {
    receiver: mpsc::Receiver<T>,
    lagged: Arc<AtomicBool>,
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StreamEnd {
    /// More events came than its queue has room for: some are missing from here on. What was queued has been handed out.
    #[error("the stream has lagged behind: events are missing")]
    Lagged,
    /// Nothing feeds it any more: the session has ended, or the resource is gone.
    #[error("the stream has ended")]
    Ended,
}

/// A stream with room for so many events ([`HANDLE_QUEUE`](atomix_protocol::limits::HANDLE_QUEUE) by default).
///
/// # Panics
/// If `capacity` is zero.
#[must_use]
pub fn stream<T>(capacity: usize) -> (Feed<T>, EventStream<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    let lagged = Arc::new(AtomicBool::new(false));
    (Feed { sender: Some(sender), lagged: lagged.clone() }, EventStream { receiver, lagged })
}

impl<T> Feed<T> {
    /// Queues an event; never waits. Without room the stream has lagged: it ends, and whatever comes later is dropped.
    pub fn push(&mut self, event: T) {
        let Some(sender) = &self.sender else { return };
        match sender.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                self.sender = None;
            }
            // Nobody listens any more.
            Err(TrySendError::Closed(_)) => self.sender = None,
        }
    }

    /// Ends the stream.
    pub fn end(&mut self) {
        self.sender = None;
    }

    /// Whether the stream has lagged.
    #[must_use]
    pub fn has_lagged(&self) -> bool {
        self.lagged.load(Ordering::Acquire)
    }
}

impl<T> EventStream<T> {
    /// The next event. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the stream is over, every time from then on.
    pub async fn next(&mut self) -> Result<T, StreamEnd> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`EventStream::next`], for whoever polls.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, StreamEnd>> {
        let event = ready!(self.receiver.poll_recv(cx));
        Poll::Ready(event.ok_or_else(|| self.end()))
    }

    /// What is queued already, without waiting; `None` for nothing yet.
    ///
    /// # Errors
    /// As [`EventStream::next`].
    pub fn try_next(&mut self) -> Result<Option<T>, StreamEnd> {
        match self.receiver.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(self.end()),
        }
    }

    fn end(&self) -> StreamEnd {
        if self.lagged.load(Ordering::Acquire) { StreamEnd::Lagged } else { StreamEnd::Ended }
    }
}

impl<T> fmt::Debug for EventStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("queued", &self.receiver.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e3_a_full_queue_ends_that_stream_and_says_so() {
        let (mut feed, mut stream) = stream(2);
        for event in 1..=4 {
            feed.push(event);
        }
        assert!(feed.has_lagged());
        assert_eq!((stream.try_next(), stream.try_next()), (Ok(Some(1)), Ok(Some(2))));
        feed.push(5);
        assert_eq!((stream.try_next(), stream.try_next()), (Err(StreamEnd::Lagged), Err(StreamEnd::Lagged)));
    }

    #[test]
    fn a_stream_that_is_not_fed_any_more_ends_behind_what_is_queued() {
        let (mut feed, mut stream) = stream(2);
        feed.push(1);
        assert_eq!(stream.try_next(), Ok(Some(1)));
        assert_eq!(stream.try_next(), Ok(None));
        feed.push(2);
        feed.end();
        feed.push(3);
        assert_eq!(stream.try_next(), Ok(Some(2)));
        assert_eq!(stream.try_next(), Err(StreamEnd::Ended));
    }
}
