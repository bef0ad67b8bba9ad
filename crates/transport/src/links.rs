//! Many connections by number, for the loop of a driver.
//!
//! One task per connection waits for frames and hands over whole batches. Sending costs no task: [`Links::flush`] tries each
//! connection on the spot, once per batch, and only a connection that does not take everything at once gets a task to finish.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, pending};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{Connection, FrameReceiver, FrameSender, Listener, Transport, TransportError};

/// Batches that wait for the loop before readers stop reading.
const REPORTS: usize = 128;

/// Limits of [`Links`].
#[derive(Clone, Debug)]
pub struct LinkLimits {
    /// A connection attempt that takes longer is given up.
    pub connect_timeout: Duration,
    /// How long a closed link may still take to get its last frames across.
    pub linger: Duration,
    /// A link with more bytes waiting than this, because the other end does not read, is closed.
    pub queued_bytes: usize,
    /// With that many links, whoever connects is turned away.
    pub links: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        LinkLimits {
            connect_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            queued_bytes: 32 << 20,
            links: 66_000,
        }
    }
}

/// What happened to a link. Events of one link come in order.
#[derive(Debug)]
pub enum LinkEvent {
    /// A dialled link stands.
    Dialed(u64),
    /// Somebody connected: to be given a number with [`Links::adopt`], or dropped.
    Accepted(Connection),
    /// Frames arrived, at least one.
    Frames(u64, Vec<Bytes>),
    /// A link could not be dialled, or closed by no wish of ours. Its last event.
    Closed(u64, TransportError),
}

/// Many connections by number. Belongs to one task; must live within a tokio runtime with time enabled.
///
/// ```
/// use std::sync::Arc;
/// use atomix_transport::{LinkEvent, LinkLimits, Links, MemoryNetwork, Transport};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let network: Arc<dyn Transport> = Arc::new(MemoryNetwork::new());
/// let mut server = Links::new(network.clone(), LinkLimits::default());
/// server.serve(network.listen("here").await?);
/// let mut client = Links::new(network, LinkLimits::default());
/// client.dial(1, "here");
/// assert!(matches!(client.next().await, LinkEvent::Dialed(1)));
/// client.send(1, "hello".into());
/// client.flush();
/// let LinkEvent::Accepted(connection) = server.next().await else { panic!("somebody connected") };
/// server.adopt(7, connection);
/// assert!(matches!(server.next().await, LinkEvent::Frames(7, frames) if frames == ["hello"]));
/// # Ok::<(), atomix_transport::TransportError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Links {
    transport: Arc<dyn Transport>,
    limits: LinkLimits,
    reporter: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    links: BTreeMap<u64, Link>,
    /// Links with frames that were not tried yet.
    unflushed: Vec<u64>,
    ready: VecDeque<LinkEvent>,
    listening: Option<Task>,
}

struct Link {
    outgoing: Outgoing,
    queue: Vec<Bytes>,
    /// Invariant: the bytes in `queue`.
    queued: usize,
    /// Invariant: whether `unflushed` names this link.
    unflushed: bool,
    /// Dials, then reads. Ends with the link.
    task: Task,
}

enum Outgoing {
    Dialing,
    Idle(Box<dyn FrameSender>),
    /// A task finishes what the connection did not take at once, and gives the sender back.
    Sending(oneshot::Receiver<Sent>, Task),
}

type Sent = Result<(Box<dyn FrameSender>, Vec<Bytes>), TransportError>;

/// What tasks tell the loop.
enum Report {
    Connected(u64, Result<Connection, TransportError>),
    Accepted(Connection),
    Frames(u64, Vec<Bytes>),
    Ended(u64, TransportError),
    Sent(u64),
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Task {
    fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Task(tokio::spawn(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    fn new(outgoing: Outgoing, task: Task) -> Self {
        Link { outgoing, queue: Vec::new(), queued: 0, unflushed: false, task }
    }
}

impl Links {
    /// No links yet.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, limits: LinkLimits) -> Self {
        let (reporter, reports) = mpsc::channel(REPORTS);
        Links {
            transport,
            limits,
            reporter,
            reports,
            links: BTreeMap::new(),
            unflushed: Vec::new(),
            ready: VecDeque::new(),
            listening: None,
        }
    }

    /// Takes the connections of a listener from now on.
    pub fn serve(&mut self, mut listener: Box<dyn Listener>) {
        let reporter = self.reporter.clone();
        self.listening = Some(Task::spawn(async move {
            while let Ok(connection) = listener.accept().await {
                if reporter.send(Report::Accepted(connection)).await.is_err() {
                    return;
                }
            }
        }));
    }

    /// Connects: ends in [`LinkEvent::Dialed`] or [`LinkEvent::Closed`]. The number must be new.
    pub fn dial(&mut self, link: u64, address: &str) {
        let (transport, reporter) = (self.transport.clone(), self.reporter.clone());
        let (address, patience) = (address.to_owned(), self.limits.connect_timeout);
        let task = Task::spawn(async move {
            let connected = match timeout(patience, transport.connect(&address)).await {
                Ok(connected) => connected,
                Err(_) => Err(TransportError::Unreachable { address, reason: "timed out".into() }),
            };
            let _ = reporter.send(Report::Connected(link, connected)).await;
        });
        self.links.insert(link, Link::new(Outgoing::Dialing, task));
    }

    /// Gives an accepted connection its number, which must be new.
    pub fn adopt(&mut self, link: u64, connection: Connection) {
        let task = Task::spawn(read(link, connection.receiver, self.reporter.clone()));
        self.links.insert(link, Link::new(Outgoing::Idle(connection.sender), task));
    }

    /// Puts a frame behind what was sent on the link before; it leaves with the next [`Links::flush`]. Without effect if there is no
    /// such link.
    pub fn send(&mut self, link: u64, frame: Bytes) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        if !mem::replace(&mut entry.unflushed, true) {
            self.unflushed.push(link);
        }
        entry.queued += frame.len();
        entry.queue.push(frame);
    }

    /// Gets everything under way that was sent: one flush per connection.
    pub fn flush(&mut self) {
        for link in mem::take(&mut self.unflushed) {
            self.flush_one(link);
        }
    }

    /// Closes a link after what was sent on it. No more events of it.
    pub fn close(&mut self, link: u64) {
        if let Some(finish) = self.finish(link) {
            tokio::spawn(finish);
        }
    }

    /// Closes all links after what was sent on them, and stops listening.
    pub async fn close_all(&mut self) {
        self.listening = None;
        let links: Vec<u64> = self.links.keys().copied().collect();
        let finishing: Vec<_> = links.into_iter().filter_map(|l| self.finish(l)).map(tokio::spawn).collect();
        for task in finishing {
            let _ = task.await;
        }
    }

    /// The next event. Cancel-safe.
    pub async fn next(&mut self) -> LinkEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            match self.reports.recv().await {
                Some(report) => self.take(report),
                None => pending().await,
            }
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<LinkEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let report = self.reports.try_recv().ok()?;
            self.take(report);
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            // Whatever comes of a link that was closed meanwhile is dropped: a connection with it.
            Report::Connected(link, connected) if self.links.contains_key(&link) => match connected {
                Ok(connection) => {
                    let earlier = self.links.remove(&link);
                    self.adopt(link, connection);
                    for frame in earlier.map(|l| l.queue).unwrap_or_default() {
                        self.send(link, frame);
                    }
                    self.ready.push_back(LinkEvent::Dialed(link));
                }
                Err(error) => self.lost(link, error),
            },
            Report::Accepted(connection) if self.links.len() < self.limits.links => {
                self.ready.push_back(LinkEvent::Accepted(connection));
            }
            Report::Frames(link, frames) if self.links.contains_key(&link) => {
                self.ready.push_back(LinkEvent::Frames(link, frames));
            }
            Report::Ended(link, error) => self.lost(link, error),
            Report::Sent(link) => self.sent(link),
            Report::Connected(..) | Report::Accepted(_) | Report::Frames(..) => {}
        }
    }

    fn flush_one(&mut self, link: u64) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        entry.unflushed = false;
        let outgoing = mem::replace(&mut entry.outgoing, Outgoing::Dialing);
        let Outgoing::Idle(sender) = outgoing else {
            entry.outgoing = outgoing;
            if entry.queued > self.limits.queued_bytes {
                let waiting = entry.queued;
                self.lost(
                    link,
                    TransportError::Lost(format!("the other end does not read: {waiting} bytes wait")),
                );
            }
            return;
        };
        entry.queued = 0;
        let mut sending: Pin<Box<dyn Future<Output = Sent> + Send>> =
            Box::pin(send(sender, mem::take(&mut entry.queue)));
        match sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok((sender, spare))) => {
                entry.outgoing = Outgoing::Idle(sender);
                entry.queue = spare;
            }
            Poll::Ready(Err(error)) => self.lost(link, error),
            Poll::Pending => {
                let (done, result) = oneshot::channel();
                let reporter = self.reporter.clone();
                let task = Task::spawn(async move {
                    let _ = done.send(sending.await);
                    let _ = reporter.send(Report::Sent(link)).await;
                });
                entry.outgoing = Outgoing::Sending(result, task);
            }
        }
    }

    fn sent(&mut self, link: u64) {
        let Some(entry) = self.links.get_mut(&link) else { return };
        let Outgoing::Sending(result, _) = &mut entry.outgoing else { return };
        match result.try_recv() {
            Ok(Ok((sender, _))) => {
                entry.outgoing = Outgoing::Idle(sender);
                if !entry.queue.is_empty() {
                    self.flush_one(link);
                }
            }
            Ok(Err(error)) => self.lost(link, error),
            Err(_) => self.lost(link, TransportError::Lost("the sending task ended".into())),
        }
    }

    fn lost(&mut self, link: u64, error: TransportError) {
        if self.links.remove(&link).is_some() {
            self.ready.push_back(LinkEvent::Closed(link, error));
        }
    }

    fn finish(&mut self, link: u64) -> Option<impl Future<Output = ()> + Send + use<>> {
        let closing = self.links.remove(&link)?;
        // Events that were taken from tasks before but not from us yet must not surface any more.
        self.ready.retain(|event| match event {
            LinkEvent::Dialed(l) | LinkEvent::Frames(l, _) | LinkEvent::Closed(l, _) => *l != link,
            LinkEvent::Accepted(_) => true,
        });
        let linger = self.limits.linger;
        Some(async move {
            let _ = timeout(linger, finish(closing)).await;
        })
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("links", &self.links.len()).finish_non_exhaustive()
    }
}

async fn read(link: u64, mut receiver: Box<dyn FrameReceiver>, reporter: mpsc::Sender<Report>) {
    loop {
        let mut frames = Vec::new();
        let report = match receiver.receive(&mut frames).await {
            Ok(true) => Report::Frames(link, frames),
            Ok(false) => Report::Ended(link, TransportError::Lost("closed by the other end".into())),
            Err(error) => Report::Ended(link, error),
        };
        let over = matches!(report, Report::Ended(..));
        if reporter.send(report).await.is_err() || over {
            return;
        }
    }
}

async fn send(mut sender: Box<dyn FrameSender>, mut frames: Vec<Bytes>) -> Sent {
    sender.send(&mut frames).await?;
    frames.clear();
    Ok((sender, frames))
}

/// Sends what is left and goes on reading until the other end has closed too: a socket closed with unread bytes in it would
/// take back what was sent last.
async fn finish(mut link: Link) {
    let mut sender = match mem::replace(&mut link.outgoing, Outgoing::Dialing) {
        Outgoing::Dialing => return,
        Outgoing::Idle(sender) => sender,
        Outgoing::Sending(result, _task) => match result.await {
            Ok(Ok((sender, _))) => sender,
            _ => return,
        },
    };
    if !link.queue.is_empty() && sender.send(&mut link.queue).await.is_err() {
        return;
    }
    drop(sender);
    let _ = (&mut link.task.0).await;
}
