//! The receiving half of a connection.

use async_trait::async_trait;
use atomix_transport::{FrameReceiver, TransportError};
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

use crate::frame::{Front, take};

/// Room for one read at first, and at most. It doubles when a read fills it.
const READ_BYTES: (usize, usize) = (8 << 10, 256 << 10);
/// With less room than this left, the next read gets new memory.
const LEAST_ROOM: usize = 2 << 10;
/// One call hands over at most about this much, so that one busy connection can't fill the memory of its reader.
const CALL_BYTES: usize = 1 << 20;

pub(crate) struct TcpReceiver {
    socket: OwnedReadHalf,
    limit: usize,
    /// What arrived and was not handed over: less than a frame, between calls.
    buffer: BytesMut,
    room: usize,
}

impl TcpReceiver {
    pub(crate) fn new(socket: OwnedReadHalf, limit: usize) -> Self {
        TcpReceiver { socket, limit, buffer: BytesMut::new(), room: READ_BYTES.0 }
    }

    /// Takes all whole frames. A bad one behind good ones waits for the next call.
    fn take_whole(&mut self, frames: &mut Vec<Bytes>) -> Result<bool, TransportError> {
        let before = frames.len();
        loop {
            match take(&mut self.buffer, self.limit) {
                Ok(Front::Frame(payload)) => frames.push(payload),
                Ok(Front::Incomplete(wanted)) => {
                    self.make_room(wanted);
                    return Ok(frames.len() > before);
                }
                Err(_) if frames.len() > before => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Room for the next read. A frame's claim of its length gets no more than doubles what has arrived.
    fn make_room(&mut self, wanted: usize) {
        let missing = wanted.saturating_sub(self.buffer.len());
        let room = missing.min(self.buffer.len()).max(self.room);
        if self.buffer.capacity() - self.buffer.len() < LEAST_ROOM.min(room) || missing > self.room {
            self.buffer.reserve(room);
        }
    }

    /// Takes what else has arrived. Returns whether that ended because the system had no more.
    fn read_more(&mut self) -> io::Result<()> {
        let mut taken = self.buffer.len();
        // A read that did not fill its room has emptied the socket.
        while self.buffer.len() == self.buffer.capacity() && taken < CALL_BYTES {
            self.room = (self.room * 2).min(READ_BYTES.1);
            self.buffer.reserve(self.room);
            match self.socket.try_read_buf(&mut self.buffer) {
                Ok(read) => taken += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl FrameReceiver for TcpReceiver {
    async fn receive(&mut self, frames: &mut Vec<Bytes>) -> Result<bool, TransportError> {
        let lost = |error: io::Error| TransportError::Lost(error.to_string());
        loop {
            if self.take_whole(frames)? {
                return Ok(true);
            }
            match self.socket.read_buf(&mut self.buffer).await.map_err(lost)? {
                0 if self.buffer.is_empty() => return Ok(false),
                0 => return Err(TransportError::Lost("the other end closed within a frame".into())),
                // An error or the end shows again in the next call, when what came before is handed over.
                _ => {
                    let _ = self.read_more();
                }
            }
        }
    }
}
