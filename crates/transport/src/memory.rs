//! A network within one process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{Connection, FrameReceiver, FrameSender, Listener, Transport, TransportError};

/// Batches of frames that one direction of a connection holds before the sender waits.
const QUEUE_BATCHES: usize = 256;
/// Connections that wait to be accepted.
const BACKLOG: usize = 128;

/// A network within one process: addresses are any text. Clones are the same network.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::Sender<Connection>>>>,
}

impl MemoryNetwork {
    /// A network without listeners.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Transport for MemoryNetwork {
    async fn connect(&self, address: &str) -> Result<Connection, TransportError> {
        let unreachable =
            |reason: &str| TransportError::Unreachable { address: address.into(), reason: reason.into() };
        let listener = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned();
        let listener = listener.ok_or_else(|| unreachable("nobody listens"))?;
        let (near, far) = pair(address);
        listener.send(far).await.map_err(|_| unreachable("nobody listens any more"))?;
        Ok(near)
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>, TransportError> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.get(address).is_some_and(|listener| !listener.is_closed()) {
            return Err(TransportError::CannotListen {
                address: address.into(),
                reason: "address in use".into(),
            });
        }
        let (sender, receiver) = mpsc::channel(BACKLOG);
        listeners.insert(address.into(), sender);
        Ok(Box::new(MemoryListener { address: address.into(), receiver }))
    }
}

fn pair(address: &str) -> (Connection, Connection) {
    let (to_far, at_far) = mpsc::channel(QUEUE_BATCHES);
    let (to_near, at_near) = mpsc::channel(QUEUE_BATCHES);
    let end = |remote: &str, sender, receiver| Connection {
        peer: None,
        remote: remote.into(),
        sender: Box::new(MemorySender { sender }),
        receiver: Box::new(MemoryReceiver { receiver }),
    };
    (end(address, to_far, at_near), end("memory", to_near, at_far))
}

struct MemoryListener {
    address: String,
    receiver: mpsc::Receiver<Connection>,
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&mut self) -> Result<Connection, TransportError> {
        self.receiver.recv().await.ok_or_else(|| TransportError::Lost("the network is gone".into()))
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

struct MemorySender {
    sender: mpsc::Sender<Vec<Bytes>>,
}

#[async_trait]
impl FrameSender for MemorySender {
    async fn send(&mut self, frames: &mut Vec<Bytes>) -> Result<(), TransportError> {
        let batch = std::mem::take(frames);
        self.sender.send(batch).await.map_err(|_| TransportError::Lost("closed by the other end".into()))
    }
}

struct MemoryReceiver {
    receiver: mpsc::Receiver<Vec<Bytes>>,
}

#[async_trait]
impl FrameReceiver for MemoryReceiver {
    async fn receive(&mut self, frames: &mut Vec<Bytes>) -> Result<bool, TransportError> {
        let Some(batch) = self.receiver.recv().await else { return Ok(false) };
        frames.extend(batch);
        while let Ok(batch) = self.receiver.try_recv() {
            frames.extend(batch);
        }
        Ok(true)
    }
}
