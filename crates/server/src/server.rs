//! Start, watch, shut down.

use std::fmt;
use std::sync::Arc;

use atomix_engine::{Engine, Options, Recovered};
use atomix_protocol::status::Status;
use atomix_protocol::{Address, BootNonce, ClusterId, Incarnation, LocalTime, MemberKind, limits};
use atomix_session::StateMachine;
use atomix_storage::Storage;
use atomix_transport::{LinkLimits, Links, Listener, Transport, TransportError};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::clock::now;
use crate::driver::{Disk, Driver};
use crate::read_thread::start_reader;
use crate::snapshot_thread::{Turns, start_writer};
use crate::storage_thread::{Done, Opened, Worker, panic_message};
use crate::{ServerError, ServerOptions, storage_thread};

/// One server in this process. Dropping it stops the server too, but tells nobody when that is done; see [`Server::shutdown`].
pub struct Server {
    address: Address,
    status: watch::Receiver<Status>,
    /// Why it serves no more.
    ended: watch::Receiver<Option<ServerError>>,
    stop: oneshot::Sender<()>,
    /// The loop, which may outlive that.
    running: JoinHandle<()>,
}

impl Server {
    /// Recovers what the storage holds, then listens, then returns. Needs a tokio runtime with time enabled, which drives the server
    /// from then on; the disk has threads of its own.
    ///
    /// # Errors
    /// If the settings do not go together, the storage can't be read, or the address can't be listened at.
    pub async fn start(
        options: ServerOptions,
        transport: Arc<dyn Transport>,
        storage: Box<dyn Storage>,
        machine: Box<dyn StateMachine>,
    ) -> Result<Self, ServerError> {
        let mut engine_options = engine_options(&options)?;
        let (done, worked) = mpsc::unbounded_channel();
        let (storage, opened) = recover(storage, &done).await?;
        let writer = start_writer(opened.writer, done.clone())?;
        let reader = start_reader(opened.reader, done)?;
        let disk = Disk { storage, writer, reader };
        let listener = match transport.listen(options.address.as_str()).await {
            Ok(listener) => listener,
            Err(error) => {
                disk.close().await;
                return Err(cannot_listen(&options.address, error));
            }
        };
        let address = settle_address(&mut engine_options, &*listener);
        let engine = match build(engine_options, opened.recovered, machine).await {
            Ok(engine) => engine,
            Err(error) => {
                disk.close().await;
                return Err(error);
            }
        };
        let limits = LinkLimits {
            connect_timeout: options.connect_timeout,
            queued_bytes: options.link_bytes,
            links: options.links,
            ..LinkLimits::default()
        };
        let mut links = Links::new(transport, limits);
        links.serve(listener);
        info!(address = %address, "listening");
        let status = watch::Sender::new(engine.status(now()));
        let watching = status.subscribe();
        let turns = Turns::default();
        let ended = watch::Sender::new(None);
        let driver = Driver {
            engine,
            links,
            disk: Some(disk),
            closing: None,
            done: worked,
            status,
            turns,
            ended: ended.clone(),
            published: LocalTime::ZERO,
        };
        let (stop, stopped) = oneshot::channel();
        let watched = ended.subscribe();
        let running = supervise(driver, ended, stopped);
        Ok(Server { address, status: watching, ended: watched, stop, running })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the server says of itself, at most a few dozen milliseconds ago.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The status and its changes.
    #[must_use]
    pub fn statuses(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Resolves once the server knows a leader, and its disk has room: while it has none, no server of a full cluster takes commands.
    ///
    /// # Errors
    /// If it stops before.
    pub async fn ready(&self) -> Result<(), ServerError> {
        let mut status = self.status.clone();
        tokio::select! {
            biased;
            error = self.failed() => Err(error),
            Ok(_) = status.wait_for(Status::is_ready) => Ok(()),
        }
    }

    /// Resolves when the server serves no more, by itself, with the reason. The process is left to its embedder. If the disk
    /// failed ([`ServerError::Storage`]), the server goes on saying so to whoever asks for its status, until it is shut down or dropped.
    pub async fn failed(&self) -> ServerError {
        let mut ended = self.ended.clone();
        let reason = ended.wait_for(Option::is_some).await.map(|reason| reason.clone());
        reason.ok().flatten().unwrap_or(ServerError::ShutDown)
    }

    /// Stops serving, lets the disk finish, and returns once the storage is closed. A leader hands over first, so that clients do
    /// not wait for an election timeout; if nobody takes over, that costs at most two of them.
    ///
    /// # Errors
    /// If the server had stopped by itself before: the reason.
    pub async fn shutdown(self) -> Result<(), ServerError> {
        let Server { ended, stop, running, .. } = self;
        let _ = stop.send(());
        let _ = running.await;
        let reason = ended.borrow().clone();
        match reason {
            None | Some(ServerError::ShutDown) => Ok(()),
            Some(error) => Err(error),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A server forms a cluster with those listed, or joins one. Nobody would take it in with an address that is too long.
fn check_lists(options: &ServerOptions) -> Result<(), ServerError> {
    let refused = |problem: String| Err(ServerError::Settings(problem));
    let own = [Some(&options.address), options.client_address.as_ref()];
    let named = own.into_iter().flatten().chain(&options.bootstrap).chain(&options.join);
    if let Some(long) = named.into_iter().find(|address| address.is_too_long()) {
        let (bytes, most) = (long.as_str().len(), limits::ADDRESS_BYTES);
        return refused(format!("an address of {bytes} bytes: at most {most}"));
    }
    if !options.join.is_empty() {
        if !options.bootstrap.is_empty() {
            return refused("a server forms a cluster or joins one: give one list, not both".into());
        }
        if options.join.iter().all(|address| *address == options.address) {
            return refused("the servers to join through must be others than this one".into());
        }
        if options.kind == MemberKind::Leaving {
            return refused("a server joins as voter, learner or reserve".into());
        }
        return Ok(());
    }
    if !options.bootstrap.contains(&options.address) {
        let address = &options.address;
        return refused(format!("the servers listed must include this one: {address}"));
    }
    if options.bootstrap.len() > limits::VOTERS {
        let (listed, most) = (options.bootstrap.len(), limits::VOTERS);
        return refused(format!("{listed} servers are listed: at most {most} form a cluster"));
    }
    Ok(())
}

fn engine_options(options: &ServerOptions) -> Result<Options, ServerError> {
    check_lists(options)?;
    let wide = || -> Result<u128, ServerError> { Ok(u128::from(draw()?) << 64 | u128::from(draw()?)) };
    let mut engine = Options::new(options.address.clone(), options.bootstrap.clone());
    engine.client_address = options.client_address.clone().unwrap_or_else(|| options.address.clone());
    engine.join.clone_from(&options.join);
    (engine.kind, engine.priority) = (options.kind, options.priority);
    engine.raft.heartbeat = options.heartbeat;
    engine.raft.election_timeout = options.election_timeout;
    engine.raft.promise = options.lease;
    engine.raft.log_memory_bytes = options.log_memory_bytes;
    engine.session_timeouts = options.session_timeouts;
    engine.command_bytes = options.command_bytes;
    engine.snapshot_log_bytes = options.snapshot_log_bytes;
    (engine.outbox_events, engine.outbox_bytes) = options.outbox;
    engine.fresh_incarnation = Incarnation(wide()?);
    engine.fresh_cluster = ClusterId(wide()?);
    engine.boot_nonce = BootNonce(draw()?);
    engine.seed = match options.seed {
        Some(seed) => seed,
        None => draw()?,
    };
    engine.raft.validate().map_err(|error| ServerError::Settings(error.to_string()))?;
    Ok(engine)
}

fn draw() -> Result<u64, ServerError> {
    SysRng
        .try_next_u64()
        .map_err(|error| ServerError::System(format!("the system gives no randomness: {error}")))
}

async fn recover(
    storage: Box<dyn Storage>,
    done: &mpsc::UnboundedSender<Done>,
) -> Result<(Worker<storage_thread::Job>, Opened), ServerError> {
    let (opened, opening) = oneshot::channel();
    let worker = storage_thread::start(storage, done.clone(), opened)?;
    match opening.await {
        Ok(Ok(opened)) => Ok((worker, opened)),
        Ok(Err(error)) => Err(ServerError::Storage(error)),
        Err(_) => Err(ServerError::Panicked("while the storage was read".into())),
    }
}

fn cannot_listen(address: &Address, error: TransportError) -> ServerError {
    let reason = match error {
        TransportError::CannotListen { reason, .. } => reason,
        other => other.to_string(),
    };
    ServerError::CannotListen { address: address.to_string(), reason }
}

/// A port that the system chose takes the place of the zero that was asked for.
fn settle_address(options: &mut Options, listener: &dyn Listener) -> Address {
    let (asked, listening) = (options.address.clone(), Address::new(listener.address()));
    for address in options.bootstrap.iter_mut().chain([&mut options.address, &mut options.client_address]) {
        if *address == asked {
            *address = listening.clone();
        }
    }
    listening
}

/// Restoring a large state takes a while, and calls foreign code.
async fn build(
    options: Options,
    recovered: Recovered,
    machine: Box<dyn StateMachine>,
) -> Result<Engine, ServerError> {
    match tokio::task::spawn_blocking(move || Engine::new(options, recovered, machine, now())).await {
        Ok(Ok(engine)) => Ok(engine),
        Ok(Err(error)) => Err(ServerError::Restore(error.to_string())),
        Err(error) => Err(ServerError::Panicked(error.to_string())),
    }
}

/// Runs the loop and tells how it ended, also if it panicked.
fn supervise(
    driver: Driver,
    ended: watch::Sender<Option<ServerError>>,
    stop: oneshot::Receiver<()>,
) -> JoinHandle<()> {
    let address = driver.engine.status(now()).address;
    let running = tokio::spawn(driver.run(stop));
    tokio::spawn(async move {
        let reason = match running.await {
            Ok(reason) => reason,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => ServerError::Panicked(panic_message(&*panic)),
                Err(_) => ServerError::ShutDown,
            },
        };
        match &reason {
            ServerError::ShutDown => info!(address = %address, "shut down"),
            reason => error!(address = %address, %reason, "the server has stopped: an operator must act"),
        }
        // What it had said before is why.
        ended.send_modify(|ended| _ = ended.get_or_insert(reason));
    })
}
