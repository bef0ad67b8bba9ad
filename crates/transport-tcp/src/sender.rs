//! The sending half of a connection.

use std::collections::VecDeque;
use std::io::IoSlice;

use async_trait::async_trait;
use atomix_transport::{FrameSender, TransportError};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

use crate::frame::header;

/// Payloads up to this length are gathered into one piece of memory: for the system, a few short copies cost less than a
/// list of many pieces.
const GATHER_BYTES: usize = 4 << 10;

pub(crate) struct TcpSender {
    socket: OwnedWriteHalf,
    limit: usize,
    /// Memory for headers and short payloads, used again once it was sent.
    gathered: BytesMut,
}

impl TcpSender {
    pub(crate) fn new(socket: OwnedWriteHalf, limit: usize) -> Self {
        TcpSender { socket, limit, gathered: BytesMut::new() }
    }

    fn lay_out(&mut self, frames: &mut Vec<Bytes>) -> Pieces {
        let mut pieces = Pieces { pieces: VecDeque::new(), length: 0 };
        for frame in frames.drain(..) {
            self.gathered.extend_from_slice(&header(&frame));
            if frame.len() <= GATHER_BYTES {
                self.gathered.extend_from_slice(&frame);
            } else {
                pieces.push(self.gathered.split().freeze());
                pieces.push(frame);
            }
        }
        pieces.push(self.gathered.split().freeze());
        pieces
    }
}

#[async_trait]
impl FrameSender for TcpSender {
    async fn send(&mut self, frames: &mut Vec<Bytes>) -> Result<(), TransportError> {
        if let Some(frame) = frames.iter().find(|frame| frame.len() > self.limit) {
            let (length, limit) = (frame.len(), self.limit);
            return Err(TransportError::BadFrame(format!("{length} bytes are above the limit of {limit}")));
        }
        let mut pieces = self.lay_out(frames);
        self.socket.write_all_buf(&mut pieces).await.map_err(|error| TransportError::Lost(error.to_string()))
    }
}

/// What is to be written, one piece after the other, in as few calls to the system as it allows.
struct Pieces {
    /// Invariant: none is empty.
    pieces: VecDeque<Bytes>,
    /// Invariant: the bytes in `pieces`.
    length: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.length += piece.len();
            self.pieces.push_back(piece);
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_a_buffer() {
        let mut pieces = Pieces { pieces: VecDeque::new(), length: 0 };
        for piece in ["", "abc", "", "defg", "h"] {
            pieces.push(piece.into());
        }
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(pieces.chunks_vectored(&mut slices), 2);
        assert_eq!((&*slices[0], &*slices[1]), (&b"abc"[..], &b"defg"[..]));
        pieces.advance(5);
        assert_eq!((pieces.remaining(), pieces.chunk()), (3, &b"fg"[..]));
        assert_eq!(pieces.copy_to_bytes(3), "fgh");
        assert_eq!((pieces.remaining(), pieces.chunk()), (0, &b""[..]));
    }
}
