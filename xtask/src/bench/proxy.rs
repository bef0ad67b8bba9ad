//! A link between two processes that is cut on the way.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// Nobody is reached for so long after a cut.
const CLOSED: Duration = Duration::from_millis(500);
/// Bytes passed on at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Passes on what arrives at one loopback address to another one. All connections are cut when as many bytes have gone there as it is
/// told.
/// Ends when it is dropped.
pub(super) struct Proxy {
    address: String,
    shared: Arc<Shared>,
    task: JoinHandle<io::Result<()>>,
}

struct Shared {
    to: String,
    /// Bytes that went there, in all.
    bytes: AtomicU64,
    /// The numbers of them at which the connections are cut.
    limits: Mutex<VecDeque<u64>>,
    limit_reached: Notify,
    cuts: AtomicU64,
}

impl Proxy {
    /// Listens at a free port.
    pub(super) async fn start(to: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            to: to.into(),
            bytes: AtomicU64::new(0),
            limits: Mutex::default(),
            limit_reached: Notify::new(),
            cuts: AtomicU64::new(0),
        });
        let task = tokio::spawn(run(listener, shared.clone()));
        Ok(Proxy { address, shared, task })
    }

    /// Cuts the connections each time so many more bytes have gone than until now.
    pub(super) fn cut(&self, after: &[u64]) {
        let gone = self.bytes();
        self.shared.limits().extend(after.iter().map(|bytes| gone + bytes));
        self.shared.limit_reached.notify_one();
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Bytes that went there.
    pub(super) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// How often the connections were cut.
    pub(super) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn limits(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_reached(&self) -> bool {
        let bytes = self.bytes.load(Ordering::SeqCst);
        self.limits().front().is_some_and(|limit| bytes >= *limit)
    }
}

async fn run(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = listener;
    loop {
        tokio::select! {
            () = serve(&listener, &shared) => {}
            () = reached(&shared) => {}
        }
        drop(listener);
        shared.limits().pop_front();
        shared.cuts.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(CLOSED).await;
        listener = TcpListener::bind(address).await?;
    }
}

/// Waits until as many bytes have gone as the next limit says.
async fn reached(shared: &Shared) {
    // What is left of an earlier limit may wake it too.
    while !shared.is_reached() {
        shared.limit_reached.notified().await;
    }
}

/// Dropped, it takes all connections with it.
async fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((near, _)) = accepted {
                    links.spawn(link(near, shared.clone()));
                }
            }
            Some(_) = links.join_next() => {}
        }
    }
}

async fn link(near: TcpStream, shared: Arc<Shared>) {
    let Ok(far) = TcpStream::connect(&shared.to).await else { return };
    // As the servers do: a small frame is not to wait for the one before.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    let _ = tokio::join!(pass(from_near, to_far, Some(&shared)), pass(from_far, to_near, None));
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counted: Option<&Shared>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..bytes]).await?;
        if let Some(shared) = counted {
            shared.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
            if shared.is_reached() {
                shared.limit_reached.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all of it, over as many connections as it takes.
    async fn send(address: &str, bytes: usize) {
        let begin = std::time::Instant::now();
        let mut left = bytes;
        while left > 0 {
            assert!(begin.elapsed() < Duration::from_secs(30), "{left} bytes are left");
            let Ok(mut stream) = TcpStream::connect(address).await else {
                tokio::task::yield_now().await;
                continue;
            };
            // What was under way is lost with the connection: here it does not matter.
            while left > 0 && stream.write_all(&[7; 1_000]).await.is_ok() {
                left = left.saturating_sub(1_000);
                let mut answer = [0];
                if stream.read_exact(&mut answer).await.is_err() {
                    break;
                }
            }
        }
    }

    #[tokio::test]
    async fn connections_are_cut_where_it_was_told_and_opened_again() {
        let target = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let to = target.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = target.accept().await {
                let mut buffer = vec![0; 1_000];
                while stream.read_exact(&mut buffer).await.is_ok() && stream.write_all(&[1]).await.is_ok() {}
            }
        });
        let proxy = Proxy::start(&to).await.expect("a proxy");
        proxy.cut(&[10_000, 30_000]);
        send(proxy.address(), 25_000).await;
        assert_eq!(proxy.cuts(), 1, "{} bytes", proxy.bytes());
        send(proxy.address(), 25_000).await;
        assert_eq!(proxy.cuts(), 2, "{} bytes", proxy.bytes());
        proxy.cut(&[10_000]);
        send(proxy.address(), 25_000).await;
        assert_eq!(proxy.cuts(), 3, "{} bytes", proxy.bytes());
    }
}
