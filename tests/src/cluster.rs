//! Replicas that can be stopped and started again where they left off.

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use atomix::{Atomix, Error, Replica, ReplicaBuilder, Transport};
use atomix_storage::MemoryStorage;
use atomix_transport::MemoryNetwork;
use tempfile::TempDir;

/// A cluster in this process. Servers are numbered from zero.
#[derive(Debug)]
pub struct Cluster {
    addresses: Vec<String>,
    replicas: Vec<Option<Replica>>,
    home: Home,
}

enum Home {
    /// Real sockets and real files.
    Machine(TempDir),
    /// A transport, and storages that outlive their servers.
    Memory(Arc<dyn Transport>, Vec<MemoryStorage>),
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Home::Machine(_) => "Machine",
            Home::Memory(..) => "Memory",
        })
    }
}

/// Ports of this machine at which nobody listens, all different.
///
/// # Panics
/// If the system has none.
#[must_use]
pub fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("bound").to_string()).collect()
}

impl Cluster {
    /// Servers over TCP with data directories.
    ///
    /// # Panics
    /// If one does not start, or the cluster does not get ready.
    pub async fn on_this_machine(servers: usize) -> Self {
        let home = Home::Machine(tempfile::tempdir().expect("a temporary directory"));
        Self::start_all(free_addresses(servers), home).await
    }

    /// Servers over an in-process network with storage in memory.
    ///
    /// # Panics
    /// As [`Cluster::on_this_machine`].
    pub async fn in_memory(servers: usize) -> Self {
        Self::over(Arc::new(MemoryNetwork::new()), servers).await
    }

    /// Servers over a transport that takes any text for an address, with storage in memory.
    ///
    /// # Panics
    /// As [`Cluster::on_this_machine`].
    pub async fn over(transport: Arc<dyn Transport>, servers: usize) -> Self {
        let storages = (0..servers).map(|_| MemoryStorage::new()).collect();
        let addresses = (0..servers).map(|server| format!("server-{server}")).collect();
        Self::start_all(addresses, Home::Memory(transport, storages)).await
    }

    async fn start_all(addresses: Vec<String>, home: Home) -> Self {
        let replicas = addresses.iter().map(|_| None).collect();
        let mut cluster = Cluster { addresses, replicas, home };
        cluster.start_those_down().await;
        cluster
    }

    /// Settings for one server; `bootstrap` with [`Cluster::addresses`] starts it.
    pub fn builder(&self, server: usize) -> ReplicaBuilder {
        let builder = Replica::builder(self.addresses[server].as_str()).segment_bytes(1 << 20);
        match &self.home {
            Home::Machine(folder) => builder.data_dir(folder.path().join(server.to_string())),
            Home::Memory(transport, storages) => {
                builder.transport(transport.clone()).storage(Box::new(storages[server].clone()))
            }
        }
    }

    /// Starts every server that is down and waits until all are ready.
    ///
    /// # Panics
    /// If one does not start, or the cluster does not get ready.
    pub async fn start_those_down(&mut self) {
        for server in 0..self.addresses.len() {
            if self.replicas[server].is_none() {
                let started = self.builder(server).bootstrap(self.addresses()).await;
                self.replicas[server] = Some(started.expect("the server starts"));
            }
        }
        for server in 0..self.addresses.len() {
            within(self.replica(server).ready()).await.expect("the server gets ready");
        }
    }

    /// Where the servers listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<&str> {
        self.addresses.iter().map(String::as_str).collect()
    }

    /// The transport of a cluster in memory.
    ///
    /// # Panics
    /// If it runs over real sockets.
    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        match &self.home {
            Home::Memory(transport, _) => transport.clone(),
            Home::Machine(_) => panic!("over real sockets"),
        }
    }

    /// A server that runs.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn replica(&self, server: usize) -> &Replica {
        self.replicas[server].as_ref().expect("the server runs")
    }

    /// Waits until one of the running servers leads; its number.
    pub async fn leader(&self) -> usize {
        within(async {
            loop {
                for (server, replica) in self.replicas.iter().enumerate() {
                    if replica.as_ref().is_some_and(|replica| replica.status().role == "leader") {
                        return server;
                    }
                }
                // Every server publishes its status at each heartbeat.
                let running = self.replicas.iter().flatten().next().expect("a server runs");
                let _ = running.statuses().changed().await;
            }
        })
        .await
    }

    /// Shuts a server down.
    ///
    /// # Panics
    /// If it had failed before.
    pub async fn stop(&mut self, server: usize) {
        let replica = self.replicas[server].take().expect("the server runs");
        within(replica.shutdown()).await.expect("the server had not failed");
    }

    /// A client of its own, which knows all addresses.
    ///
    /// # Errors
    /// If it can't connect.
    pub async fn client(&self) -> Result<Atomix, Error> {
        let builder = match &self.home {
            Home::Machine(_) => Atomix::builder(),
            Home::Memory(transport, _) => Atomix::builder().transport(transport.clone()),
        };
        builder.connect(self.addresses()).await
    }
}

/// Nothing in these tests takes this long unless it hangs.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}
