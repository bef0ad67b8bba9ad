//! Three servers in this process: real files, a network that can be cut.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use atomix::{Status, Transport};
use atomix_server::{Server, ServerError, ServerOptions};
use atomix_storage::StorageError;
use atomix_storage_file::{FileOptions, FileStorage, FolderDisk};
use atomix_transport::{Connection, Listener, MemoryNetwork, TransportError};

/// Longest wait for anything.
pub(super) const WAIT: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(5);
pub(super) const SERVERS: usize = 3;
const HEARTBEAT: Duration = Duration::from_millis(20);
pub(super) const ELECTION: (Duration, Duration) = (Duration::from_millis(150), Duration::from_millis(300));
/// Small, so that everything that happens to a log happens often.
const SEGMENT_BYTES: u64 = 12 << 10;
const SNAPSHOT_LOG_BYTES: u64 = 40 << 10;
/// Less than a follower lacks that was away for a while: some are given a snapshot, and some what is read from files.
const LOG_MEMORY_BYTES: u64 = 20 << 10;

/// A network within this process, from which servers can be cut off. Clients reach them all the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Net {
    network: MemoryNetwork,
    cut: Arc<Mutex<BTreeSet<String>>>,
}

/// The network as one server has it.
struct Port {
    net: Net,
    server: String,
}

#[async_trait]
impl Transport for Port {
    async fn connect(&self, address: &str) -> Result<Connection, TransportError> {
        if self.net.is_cut(&self.server) || self.net.is_cut(address) {
            return Err(TransportError::Unreachable { address: address.into(), reason: "cut off".into() });
        }
        self.net.network.connect(address).await
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>, TransportError> {
        self.net.network.listen(address).await
    }
}

impl Net {
    /// Where the servers are.
    pub(super) fn addresses(&self) -> Vec<String> {
        (0..SERVERS).map(address).collect()
    }

    /// As clients have it.
    pub(super) fn clients(&self) -> Arc<dyn Transport> {
        Arc::new(self.network.clone())
    }

    fn is_cut(&self, server: &str) -> bool {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).contains(server)
    }

    /// Nobody connects to that server or from it any more, but for clients; or all do again.
    pub(super) fn cut(&self, server: usize, cut: bool) {
        let mut all = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        if cut {
            all.insert(address(server))
        } else {
            all.remove(&address(server))
        };
    }
}

pub(super) fn address(server: usize) -> String {
    format!("server-{server}")
}

/// The servers, numbered from zero.
pub(super) struct Servers {
    pub(super) net: Net,
    home: PathBuf,
    running: [Option<Server>; SERVERS],
}

impl Servers {
    /// A new cluster, which keeps its files in a directory.
    pub(super) async fn begin(home: PathBuf) -> Result<Self, String> {
        let mut servers = Servers { net: Net::default(), home, running: [None, None, None] };
        for server in 0..SERVERS {
            servers.start(server, false).await.map_err(|error| error.to_string())?;
        }
        servers.leader().await?;
        Ok(servers)
    }

    pub(super) fn directory(&self, server: usize) -> PathBuf {
        self.home.join(server.to_string())
    }

    /// Starts a server that is down, as it was before or as one that joins.
    pub(super) async fn start(&mut self, server: usize, join: bool) -> Result<(), ServerError> {
        let addresses = self.net.addresses();
        let mut options = ServerOptions::new(address(server), if join { vec![] } else { addresses.clone() });
        if join {
            options.join = addresses.iter().map(|address| address.as_str().into()).collect();
        }
        options.heartbeat = HEARTBEAT;
        options.election_timeout = ELECTION;
        options.snapshot_log_bytes = SNAPSHOT_LOG_BYTES;
        options.log_memory_bytes = LOG_MEMORY_BYTES;
        let begin = Instant::now();
        let storage = loop {
            match open(self.directory(server)).await {
                // Dropped, and not gone yet.
                Err(StorageError::InUse(_)) if begin.elapsed() < WAIT => tokio::time::sleep(POLL).await,
                opened => break opened.map_err(ServerError::Storage)?,
            }
        };
        let port = Arc::new(Port { net: self.net.clone(), server: address(server) });
        let machine = atomix::collections::register(atomix::resource::Registry::new());
        let started = Server::start(options, port, Box::new(storage), Box::new(machine)).await?;
        self.running[server] = Some(started);
        Ok(())
    }

    /// Stops a server: in good order, or at once. Nobody uses its directory any more on return.
    pub(super) async fn stop(&mut self, server: usize, in_good_order: bool) -> Result<(), String> {
        let stopped = self.running[server].take().ok_or("it is down already")?;
        if in_good_order {
            let stopping = tokio::time::timeout(WAIT, stopped.shutdown()).await;
            let stopped = stopping.map_err(|_| format!("{} does not stop", address(server)))?;
            return stopped.map_err(|error| format!("{} had failed: {error}", address(server)));
        }
        drop(stopped);
        let begin = Instant::now();
        while matches!(open(self.directory(server)).await, Err(StorageError::InUse(_))) {
            if begin.elapsed() > WAIT {
                return Err(format!("{} does not stop", address(server)));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub(super) fn is_up(&self, server: usize) -> bool {
        self.running[server].is_some()
    }

    /// Why a server has stopped by itself, if it has.
    pub(super) async fn failure(&self, server: usize) -> Option<String> {
        let failed = self.running[server].as_ref()?.failed();
        tokio::time::timeout(Duration::ZERO, failed).await.ok().map(|error| error.to_string())
    }

    /// What a server says of itself.
    pub(super) fn status(&self, server: usize) -> Status {
        self.running[server].as_ref().map(Server::status).unwrap_or_default()
    }

    /// What a server says of itself, later than now.
    pub(super) async fn fresh_status(&self, server: usize) -> Result<Status, String> {
        let running = self.running[server].as_ref().ok_or("it is down")?;
        let mut statuses = running.statuses();
        statuses.borrow_and_update();
        let changed = tokio::time::timeout(WAIT, statuses.changed()).await;
        changed.map_err(|_| format!("{} is silent", address(server)))?.map_err(|error| error.to_string())?;
        Ok(statuses.borrow().clone())
    }

    /// Waits until something holds of a server's status; what it was then.
    pub(super) async fn until(
        &self,
        server: usize,
        what: &str,
        holds: impl Fn(&Status) -> bool,
    ) -> Result<Status, String> {
        let running = self.running[server].as_ref().ok_or("it is down")?;
        let mut statuses = running.statuses();
        tokio::select! {
            biased;
            found = tokio::time::timeout(WAIT, statuses.wait_for(holds)) => match found {
                Ok(Ok(status)) => return Ok(status.clone()),
                Ok(Err(_)) => {}
                Err(_) => {
                    let status = running.status();
                    return Err(format!("{}: {what} after {WAIT:?}: {status:?}", address(server)));
                }
            },
            _ = running.failed() => {}
        }
        let reason = self.failure(server).await.unwrap_or_default();
        Err(format!("{}: {what}: it has stopped: {reason}", address(server)))
    }

    /// Waits until one of the servers leads.
    pub(super) async fn leader(&self) -> Result<usize, String> {
        let begin = Instant::now();
        loop {
            if let Some(leader) = self.leads() {
                return Ok(leader);
            }
            if begin.elapsed() > WAIT {
                return Err("nobody leads".into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The server that leads in the latest term of which any knows.
    pub(super) fn leads(&self) -> Option<usize> {
        let statuses: Vec<(usize, Status)> =
            (0..SERVERS).filter(|server| self.is_up(*server)).map(|s| (s, self.status(s))).collect();
        let latest = statuses.iter().map(|(_, status)| status.term).max()?;
        let leader = |(_, status): &&(usize, Status)| status.role == "leader" && status.term == latest;
        statuses.iter().find(leader).map(|(server, _)| *server)
    }
}

async fn open(directory: PathBuf) -> Result<FileStorage, StorageError> {
    let opening = tokio::task::spawn_blocking(move || {
        let disk = FolderDisk::open(Path::new(&directory))?;
        FileStorage::open(Box::new(disk), FileOptions { segment_bytes: SEGMENT_BYTES })
    });
    opening.await.unwrap_or_else(|error| Err(StorageError::Unusable(error.to_string())))
}
