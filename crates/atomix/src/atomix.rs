//! A client of a cluster, and the way to its resources.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atomix_client::{Client, ClientOptions};
use atomix_protocol::{Address, ClientId};
use atomix_resource::management::{Deleted, delete, exists};
use atomix_resource::{Resource, ResourceHandle, Sharing, open};
use atomix_session::Session;
use atomix_transport::Transport;
use tokio::sync::OnceCell;

use crate::Error;

/// A client of a cluster, and the way to its resources. Clones share its session.
///
/// The session is closed by [`Atomix::close`], or when the last clone and the last resource opened through it are gone.
#[derive(Clone)]
pub struct Atomix {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    transport: Arc<dyn Transport>,
    client: OnceCell<Client>,
}

impl Atomix {
    /// Connects with default settings, over TCP. Returns once the session is open.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), atomix::Error> {
    /// use atomix::{Atomix, DistributedMap};
    ///
    /// let atomix = Atomix::connect(["127.0.0.1:8701", "127.0.0.1:8702", "127.0.0.1:8703"]).await?;
    /// let users: DistributedMap<String, u32> = atomix.map("/users").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If no server that knows a leader is reached in time.
    pub async fn connect<A: Into<Address>>(servers: impl IntoIterator<Item = A>) -> Result<Self, Error> {
        Self::builder().connect(servers).await
    }

    /// Settings first.
    pub fn builder() -> AtomixBuilder {
        AtomixBuilder { options: ClientOptions::new::<Address>([]), transport: None }
    }

    /// Connects when first used.
    pub(crate) fn lazy(options: ClientOptions, transport: Arc<dyn Transport>) -> Self {
        Atomix { inner: Arc::new(Inner { options, transport, client: OnceCell::new() }) }
    }

    async fn client(&self) -> Result<&Client, Error> {
        let Inner { options, transport, client } = &*self.inner;
        let connect = || Client::connect(options.clone(), transport.clone());
        Ok(client.get_or_try_init(connect).await?)
    }

    /// The session, connecting first if need be.
    ///
    /// # Errors
    /// If it can't be opened in time.
    pub async fn session(&self) -> Result<Arc<dyn Session>, Error> {
        Ok(self.client().await?.session())
    }

    /// The resource at `path`, created with its default configuration if need be. All who call this in one session share the
    /// instance.
    ///
    /// # Errors
    /// If the path holds a resource of another kind, is no path, or the cluster can't be reached.
    pub async fn get<R: ResourceHandle>(&self, path: &str) -> Result<R, Error>
    where
        <R::State as Resource>::Configuration: Default,
    {
        self.open(path, &Default::default(), Sharing::Shared).await
    }

    /// As [`Atomix::get`], but an instance of one's own: its own contender, its own member.
    ///
    /// # Errors
    /// As [`Atomix::get`].
    pub async fn create<R: ResourceHandle>(&self, path: &str) -> Result<R, Error>
    where
        <R::State as Resource>::Configuration: Default,
    {
        self.open(path, &Default::default(), Sharing::Own).await
    }

    /// As [`Atomix::get`] or [`Atomix::create`], with a configuration, which decides at creation only.
    ///
    /// # Errors
    /// As [`Atomix::get`], and if the configuration makes no sense.
    pub async fn open<R: ResourceHandle>(
        &self,
        path: &str,
        configuration: &<R::State as Resource>::Configuration,
        sharing: Sharing,
    ) -> Result<R, Error> {
        let session = self.session().await?;
        Ok(open(&session, path, configuration, sharing).await?)
    }

    /// Deletes the resource at `path`, with all that is in it. Who has it open learns so with the next operation, and never reaches
    /// a later one at the same path. Returns whether there was one.
    ///
    /// # Errors
    /// [`ResourceError::InUse`](crate::ResourceError::InUse) if it has granted something, as a lock that is held; as [`Atomix::get`].
    pub async fn delete(&self, path: &str) -> Result<bool, Error> {
        Ok(delete(&self.session().await?, path, false).await? == Deleted::Gone)
    }

    /// As [`Atomix::delete`], also if it has granted something: that is revoked first. [`Deleted::Revoking`] says that it goes as
    /// soon as the holder has let go, or the holder's session has ended; until then nothing is granted at this path.
    ///
    /// # Errors
    /// As [`Atomix::get`].
    pub async fn delete_forced(&self, path: &str) -> Result<Deleted, Error> {
        Ok(delete(&self.session().await?, path, true).await?)
    }

    /// The kind of the resource at `path`; `None` if there is none.
    ///
    /// # Errors
    /// As [`Atomix::get`].
    pub async fn exists(&self, path: &str) -> Result<Option<String>, Error> {
        Ok(exists(&self.session().await?, path).await?)
    }

    /// How many commands were sent more than once.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.inner.client.get().map_or(0, Client::retries)
    }

    /// Closes the session, once everything submitted is answered. Nothing submitted from now on is done. If the cluster makes no
    /// progress for a session timeout, the wait ends, and silence ends the session.
    ///
    /// # Errors
    /// If the session had ended before.
    pub async fn close(&self) -> Result<(), Error> {
        match self.inner.client.get() {
            Some(client) => Ok(client.close().await?),
            None => Ok(()),
        }
    }

    /// Whether its session has ended. One that was not opened yet has not.
    pub(crate) fn is_over(&self) -> bool {
        self.inner.client.get().is_some_and(|client| client.session().state().is_final())
    }
}

impl fmt::Debug for Atomix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Atomix").field("client", &self.inner.client.get()).finish_non_exhaustive()
    }
}

/// Settings of an [`Atomix`] client.
#[must_use]
pub struct AtomixBuilder {
    options: ClientOptions,
    transport: Option<Arc<dyn Transport>>,
}

impl AtomixBuilder {
    /// Another transport than TCP.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// The session timeout wanted; the cluster may clamp it.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.options.session_timeout = timeout;
        self
    }

    /// Longest wait of [`AtomixBuilder::connect`].
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// Commands that take longer end as unknown for the caller, queries as timed out.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.options.operation_timeout = Some(timeout);
        self
    }

    /// The client's name across its sessions; drawn at random unless set.
    pub fn client_id(mut self, client: ClientId) -> Self {
        self.options.client = Some(client);
        self
    }

    /// Ask for sequential and causal reads at this server instead of the leader.
    pub fn read_from(mut self, server: impl Into<Address>) -> Self {
        self.options.read_from = Some(server.into());
        self
    }

    /// Connects. Returns once the session is open.
    ///
    /// # Errors
    /// If no server that knows a leader is reached in time.
    pub async fn connect<A: Into<Address>>(
        mut self,
        servers: impl IntoIterator<Item = A>,
    ) -> Result<Atomix, Error> {
        self.options.servers = servers.into_iter().map(Into::into).collect();
        let transport = self.transport.map_or_else(default_transport, Ok)?;
        let atomix = Atomix::lazy(self.options, transport);
        atomix.client().await?;
        Ok(atomix)
    }
}

impl fmt::Debug for AtomixBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomixBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(feature = "tcp")]
pub(crate) fn default_transport() -> Result<Arc<dyn Transport>, Error> {
    Ok(Arc::new(atomix_transport_tcp::TcpTransport::default()))
}

#[cfg(not(feature = "tcp"))]
pub(crate) fn default_transport() -> Result<Arc<dyn Transport>, Error> {
    Err(Error::Settings("no transport: give one, or enable the feature `tcp`".into()))
}
