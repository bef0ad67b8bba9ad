//! The transport traits.

use async_trait::async_trait;
use bytes::Bytes;

use crate::TransportError;

/// Connects and listens. Shared by all tasks of a process.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Connects. The caller bounds the wait by dropping the future.
    ///
    /// # Errors
    /// If nobody is reached.
    async fn connect(&self, address: &str) -> Result<Connection, TransportError>;

    /// Listens. Connections that arrive before the first [`Listener::accept`] wait.
    ///
    /// # Errors
    /// If the address is taken or unusable.
    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>, TransportError>;
}

/// Takes connections, one task.
#[async_trait]
pub trait Listener: Send {
    /// The next connection. Cancel-safe. A failure that concerns one connection only is not reported.
    ///
    /// # Errors
    /// If no more connections will come.
    async fn accept(&mut self) -> Result<Connection, TransportError>;

    /// Where it listens: what was asked for, with a port of zero replaced by the one that was given.
    fn address(&self) -> String;
}

/// One connection. Its halves may be used by two tasks.
///
/// Dropping the sender ends the connection in good order: the other end receives what was sent, then the end. Dropping both halves
/// frees it; what was sent may then be lost if the other end was still sending, so who wants a last frame to
/// arrive goes on receiving for a moment. Dropping the receiver alone need not be noticed at the other end.
pub struct Connection {
    /// The authenticated name of the other end, if the transport authenticates.
    pub peer: Option<String>,
    /// Where the other end is, for logs.
    pub remote: String,
    /// Towards the other end.
    pub sender: Box<dyn FrameSender>,
    /// From the other end.
    pub receiver: Box<dyn FrameReceiver>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// The sending half.
#[async_trait]
pub trait FrameSender: Send {
    /// Sends frames, each of any length up to the transport's limit and possibly empty, in order, and leaves `frames` empty; one flush for all of them. Returns once they are on their way, which says nothing of
    /// their arrival. Waits while the other end does not read. Not cancel-safe: a dropped call may have sent part of a frame, so
    /// the connection must be dropped with it.
    ///
    /// # Errors
    /// If the connection is lost, or a frame is above the transport's limit (then nothing was sent).
    async fn send(&mut self, frames: &mut Vec<Bytes>) -> Result<(), TransportError>;
}

/// The receiving half.
#[async_trait]
pub trait FrameReceiver: Send {
    /// Waits for at least one frame and appends all that have arrived whole. Returns `false`, with nothing appended, when the
    /// other end has closed. Cancel-safe.
    ///
    /// # Errors
    /// If the connection is lost or carries what is not a frame. Frames that arrived whole before are received first.
    async fn receive(&mut self, frames: &mut Vec<Bytes>) -> Result<bool, TransportError>;
}
