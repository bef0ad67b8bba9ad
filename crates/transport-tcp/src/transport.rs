//! Connecting and listening.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use atomix_transport::{Connection, Listener, Transport, TransportError};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};

use crate::listener::TcpFrameListener;
use crate::receiver::TcpReceiver;
use crate::sender::TcpSender;

/// Connections that wait to be accepted; the system may allow less.
const BACKLOG: i32 = 4_096;

/// Settings of a [`TcpTransport`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Longest frame sent or taken; 4 MiB.
    pub frame_bytes: usize,
    /// After this much silence the system asks whether the other end is still there, and after as much again with three questions
    /// unanswered it gives the connection up; 15 s. `None`: never.
    pub keepalive: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions { frame_bytes: 4 << 20, keepalive: Some(Duration::from_secs(15)) }
    }
}

/// Frames over TCP. Addresses are `host:port`; a port of zero listens at one that the system chooses.
///
/// ```
/// use atomix_transport::Transport;
/// use atomix_transport_tcp::TcpTransport;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let tcp = TcpTransport::default();
/// let mut listener = tcp.listen("127.0.0.1:0").await?;
/// let mut near = tcp.connect(&listener.address()).await?;
/// let mut far = listener.accept().await?;
///
/// near.sender.send(&mut vec!["hello".into()]).await?;
/// let mut frames = Vec::new();
/// far.receiver.receive(&mut frames).await?;
/// assert_eq!(frames, ["hello"]);
/// # Ok::<(), atomix_transport::TransportError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TcpTransport {
    options: TcpOptions,
}

impl TcpTransport {
    /// With settings of one's own.
    #[must_use]
    pub fn new(options: TcpOptions) -> Self {
        TcpTransport { options }
    }
}

#[async_trait]
impl Transport for TcpTransport {
    async fn connect(&self, address: &str) -> Result<Connection, TransportError> {
        let unreachable = |reason: String| TransportError::Unreachable { address: address.into(), reason };
        let stream = TcpStream::connect(address).await.map_err(|error| unreachable(error.to_string()))?;
        // Whoever retries a dead port of its own machine for long enough is given that port as its own and meets itself.
        if matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer) {
            return Err(unreachable("nobody listens".into()));
        }
        connection(stream, address.into(), &self.options).map_err(|error| unreachable(error.to_string()))
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>, TransportError> {
        let cannot = |error: io::Error| TransportError::CannotListen {
            address: address.into(),
            reason: error.to_string(),
        };
        // On Unix this allows an address whose last connections still linger to be taken again at once.
        let socket = TcpListener::bind(address).await.map_err(cannot)?;
        // Longer than the default: when a leader falls, all of its clients come at once, and whoever finds no room waits a second.
        rustix::net::listen(&socket, BACKLOG).map_err(|error| cannot(error.into()))?;
        let bound = socket.local_addr().map_err(cannot)?;
        let address = match address.rsplit_once(':') {
            Some((host, "0")) => format!("{host}:{}", bound.port()),
            _ => address.into(),
        };
        Ok(Box::new(TcpFrameListener { socket, address, options: self.options.clone() }))
    }
}

pub(crate) fn connection(stream: TcpStream, remote: String, options: &TcpOptions) -> io::Result<Connection> {
    // Batches are made above: waiting for more would only cost time.
    stream.set_nodelay(true)?;
    if let Some(keepalive) = options.keepalive {
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, keepalive.max(Duration::from_secs(1)))?;
        sockopt::set_tcp_keepintvl(&stream, (keepalive / 3).max(Duration::from_secs(1)))?;
        sockopt::set_tcp_keepcnt(&stream, 3)?;
    }
    // What the length field can say.
    let limit = options.frame_bytes.min(u32::MAX as usize);
    let (receiver, sender) = stream.into_split();
    Ok(Connection {
        peer: None,
        remote,
        sender: Box::new(TcpSender::new(sender, limit)),
        receiver: Box::new(TcpReceiver::new(receiver, limit)),
    })
}
