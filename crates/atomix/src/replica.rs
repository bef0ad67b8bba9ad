//! Server and client in this process.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atomix_client::ClientOptions;
use atomix_protocol::status::Status;
use atomix_protocol::{Address, MemberKind};
use atomix_resource::Registry;
use atomix_server::{Server, ServerOptions};
use atomix_storage::Storage;
use atomix_transport::Transport;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::atomix::default_transport;
use crate::families::families;
use crate::{Atomix, Error};

/// How long [`Replica::shutdown`] waits for the cluster to close the session: it may have lost its majority, and the
/// session ends by its timeout then.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A server of a cluster in this process, with a client of its own. Dropping it stops the server; [`Replica::shutdown`] says when that
/// is done.
pub struct Replica {
    server: Server,
    data_dir: Option<PathBuf>,
    client_options: ClientOptions,
    transport: Arc<dyn Transport>,
    atomix: Mutex<Atomix>,
}

impl Replica {
    /// A replica that listens at `address`, which is also where its peers and clients reach it.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), atomix::Error> {
    /// use atomix::Replica;
    ///
    /// let replica = Replica::builder("127.0.0.1:8701")
    ///     .data_dir("data/1")
    ///     .bootstrap(["127.0.0.1:8701", "127.0.0.1:8702", "127.0.0.1:8703"])
    ///     .await?;
    /// replica.ready().await?;
    /// let users = replica.atomix().map::<String, u32>("/users").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(address: impl Into<Address>) -> ReplicaBuilder {
        ReplicaBuilder {
            server: ServerOptions::new::<Address>(address, []),
            client: ClientOptions::new::<Address>([]),
            data_dir: None,
            segment_bytes: None,
            registry: families(),
            transport: None,
            storage: None,
        }
    }

    /// Resolves once a leader is known, the disk has room, and the replica's own client has its session. Waits for as long as that takes.
    ///
    /// # Errors
    /// If the server stops before.
    pub async fn ready(&self) -> Result<(), Error> {
        loop {
            self.server.ready().await.map_err(|error| Error::stopped(self.data_dir.as_deref(), error))?;
            let atomix = self.atomix();
            tokio::select! {
                error = self.failed() => return Err(error),
                session = atomix.session() => match session {
                    // The leader that was known may be gone.
                    Err(Error::Unreachable { .. }) => {}
                    session => return session.map(|_| ()),
                },
            }
        }
    }

    /// The client of this replica's cluster. Connects when first used, unless [`Replica::ready`] has done so. If the session of
    /// the one before has ended, this is a new one.
    #[must_use]
    pub fn atomix(&self) -> Atomix {
        let mut atomix = self.atomix.lock();
        if atomix.is_over() {
            *atomix = Atomix::lazy(self.client_options.clone(), self.transport.clone());
        }
        atomix.clone()
    }

    /// What the server says of itself, at most a few dozen milliseconds ago.
    #[must_use]
    pub fn status(&self) -> Status {
        self.server.status()
    }

    /// The status and its changes.
    #[must_use]
    pub fn statuses(&self) -> watch::Receiver<Status> {
        self.server.statuses()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.server.address()
    }

    /// Resolves when the server serves no more, by itself, with the reason: a failed disk, a duplicate identity, a panic. After the
    /// failure of its disk it goes on saying so to whoever asks for its status, until it is shut down or dropped.
    pub async fn failed(&self) -> Error {
        Error::stopped(self.data_dir.as_deref(), self.server.failed().await)
    }

    /// Closes the client's session and stops the server; if it leads, another one takes over first. Once it returns, the
    /// address and the data directory are free.
    ///
    /// # Errors
    /// If the server had stopped by itself before: the reason.
    pub async fn shutdown(self) -> Result<(), Error> {
        // Whether or not the cluster confirms it, the session is over.
        let _ = timeout(CLOSE_TIMEOUT, self.atomix().close()).await;
        let Replica { server, data_dir, .. } = self;
        server.shutdown().await.map_err(|error| Error::stopped(data_dir.as_deref(), error))
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Settings of a [`Replica`].
#[must_use]
pub struct ReplicaBuilder {
    server: ServerOptions,
    client: ClientOptions,
    data_dir: Option<PathBuf>,
    segment_bytes: Option<u64>,
    registry: Registry,
    transport: Option<Arc<dyn Transport>>,
    storage: Option<Box<dyn Storage>>,
}

impl ReplicaBuilder {
    /// Where the server keeps its log and snapshots; created if need be. One process at a time uses it.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// The session timeout of this replica's own client.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.client.session_timeout = timeout;
        self
    }

    /// Between two heartbeats of a leader.
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.server.heartbeat = heartbeat;
        self
    }

    /// Shortest and longest election timeout.
    pub fn election_timeout(mut self, shortest: Duration, longest: Duration) -> Self {
        self.server.election_timeout = (shortest, longest);
        self
    }

    /// Lets the server, when it leads, answer linearizable reads without asking a majority each time: while one has promised to
    /// elect nobody else. A promise lasts `lease`, at most the shortest election timeout of every server, and is renewed with each
    /// heartbeat. Reads stay linearizable as long as no machine's clock runs more than 5 % faster or slower than real time; without a
    /// lease, the default, they need no clock. After a leader is lost, the next is elected no sooner than promises have run out.
    pub fn lease_reads(mut self, lease: Duration) -> Self {
        self.server.lease = lease;
        self
    }

    /// Shortest and longest session timeout that the server grants to clients.
    pub fn session_timeouts(mut self, shortest: Duration, longest: Duration) -> Self {
        self.server.session_timeouts = (shortest, longest);
        self
    }

    /// Length of a segment of the log.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// A snapshot is due when the log since the last one is longer than this, and than that snapshot.
    pub fn snapshot_log_bytes(mut self, bytes: u64) -> Self {
        self.server.snapshot_log_bytes = bytes;
        self
    }

    /// Most events, and most bytes of them, that a session leaves unacknowledged: one that leaves more is given up, and expires.
    pub fn outbox(mut self, events: u64, bytes: u64) -> Self {
        self.server.outbox = (events, bytes);
        self
    }

    /// Where clients reach this server, if that is not where the other servers do.
    pub fn client_address(mut self, address: impl Into<Address>) -> Self {
        self.server.client_address = Some(address.into());
        self
    }

    /// What the server wants to be in a cluster that it [joins](ReplicaBuilder::join): a voter, unless set; a
    /// [learner](MemberKind::Learner), which holds the state and never counts; a [reserve](MemberKind::Reserve), which stands by. [Leaving](MemberKind::Leaving) is refused
    /// when the server starts.
    pub fn member_kind(mut self, kind: MemberKind) -> Self {
        self.server.kind = kind;
        self
    }

    /// The server's priority in a cluster that it [joins](ReplicaBuilder::join): greater is preferred as leader.
    pub fn priority(mut self, priority: u8) -> Self {
        self.server.priority = priority;
        self
    }

    /// Adds kinds of resources to those that come with Atomix. All servers of a cluster should know the same.
    pub fn registry(mut self, add: impl FnOnce(Registry) -> Registry) -> Self {
        self.registry = add(self.registry);
        self
    }

    /// Another transport than TCP.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Another storage than files in a data directory.
    pub fn storage(mut self, storage: Box<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Starts the server: one of those listed, which form the cluster together the first time and know it after that.
    /// Returns once it has recovered and listens.
    ///
    /// # Errors
    /// If the settings can't work, the data directory can't be used, or the address can't be listened at.
    pub async fn bootstrap<A: Into<Address>>(
        mut self,
        servers: impl IntoIterator<Item = A>,
    ) -> Result<Replica, Error> {
        self.server.bootstrap = servers.into_iter().map(Into::into).collect();
        self.start().await
    }

    /// Starts the server as one more of a cluster that exists, reached at any of these addresses. It asks to be taken in, is a
    /// learner until it has caught up, and votes then; [`Replica::status`] says how far it is, [`Replica::ready`] waits until it knows a
    /// leader. A wiped server comes back in this way, and takes the place of its old self. On a member's data directory the
    /// addresses are only compared, and the server goes on as what it is. One that was stopped on its way goes on asking, unless its log no longer
    /// shows that it never had the place, which an operator may have taken away: [`Replica::status`] says so.
    ///
    /// Returns once it has recovered and listens.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), atomix::Error> {
    /// use atomix::Replica;
    ///
    /// let replica = Replica::builder("127.0.0.1:8704")
    ///     .data_dir("data/4")
    ///     .join(["127.0.0.1:8701", "127.0.0.1:8702"])
    ///     .await?;
    /// replica.ready().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the settings can't work, the data directory can't be used, or the address can't be listened at.
    pub async fn join<A: Into<Address>>(
        mut self,
        servers: impl IntoIterator<Item = A>,
    ) -> Result<Replica, Error> {
        self.server.join = servers.into_iter().map(Into::into).collect();
        if self.server.join.is_empty() {
            return Err(Error::Settings("no servers to join through were given".into()));
        }
        self.start().await
    }

    async fn start(self) -> Result<Replica, Error> {
        let transport = self.transport.map_or_else(default_transport, Ok)?;
        let storage = match (self.storage, &self.data_dir) {
            (Some(storage), None) => storage,
            (None, Some(path)) => open_directory(path.clone(), self.segment_bytes).await?,
            (Some(_), Some(_)) => {
                return Err(Error::Settings("a data directory and a storage: choose one".into()));
            }
            (None, None) => return Err(Error::Settings("no data directory was given".into())),
        };
        let asked = self.server.address.clone();
        let mut servers = [self.server.bootstrap.as_slice(), &self.server.join].concat();
        let server = Server::start(self.server, transport.clone(), storage, Box::new(self.registry)).await;
        let server = server.map_err(|error| Error::starting(self.data_dir.as_deref(), error))?;
        // Its own server first, where it really listens.
        servers.retain(|address| *address != asked);
        servers.insert(0, server.address().clone());
        let client_options = {
            let mut options = self.client;
            options.servers = servers;
            options
        };
        let atomix = Atomix::lazy(client_options.clone(), transport.clone());
        Ok(Replica { server, data_dir: self.data_dir, client_options, transport, atomix: Mutex::new(atomix) })
    }
}

impl fmt::Debug for ReplicaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaBuilder")
            .field("server", &self.server)
            .field("client", &self.client)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "file")]
async fn open_directory(path: PathBuf, segment_bytes: Option<u64>) -> Result<Box<dyn Storage>, Error> {
    use atomix_storage_file::{FileOptions, FileStorage, FolderDisk};
    let folder = path.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let mut options = FileOptions::default();
        if let Some(bytes) = segment_bytes {
            options.segment_bytes = bytes;
        }
        FileStorage::open(Box::new(FolderDisk::open(&folder)?), options)
    });
    match opening.await {
        Ok(Ok(storage)) => Ok(Box::new(storage)),
        Ok(Err(error)) => Err(Error::opening(Some(&path), error)),
        Err(error) => Err(Error::Stopped(error.to_string())),
    }
}

#[cfg(not(feature = "file"))]
async fn open_directory(_path: PathBuf, _segment_bytes: Option<u64>) -> Result<Box<dyn Storage>, Error> {
    Err(Error::Settings("no storage: give one, or enable the feature `file`".into()))
}
